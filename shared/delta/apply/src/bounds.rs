//! Bounds that a decoder sets for itself before it reads a payload.

use std::io;

/// Memory of a decoder beside what it needs for decoding, in bytes: its program, what is read ahead,
/// and what allocators lose.
#[cfg(any(target_os = "linux", windows))]
pub(crate) const BESIDE: u64 = 32 << 20;

/// Bounds the memory of this process, and its life by that of the process that started it.
#[cfg(target_os = "linux")]
pub(crate) fn set(memory: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    let limit = |resource, most: u64| {
        let both = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, both)
    };
    let most = memory.saturating_add(BESIDE);
    limit(Resource::Data, most)?;
    // Linux before 4.7 counts in `Data` what `brk` gave and not what was mapped. The rest is the
    // program itself.
    limit(Resource::As, most.saturating_add(1 << 30))?;
    // What it holds is another's image.
    limit(Resource::Core, 0)?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Sets nothing: the process that started it looks after the memory.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_: u64) -> io::Result<()> {
    Ok(())
}
