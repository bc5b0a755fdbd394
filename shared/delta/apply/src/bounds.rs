//! Bounds that a decoder sets for itself before it reads a payload.

use std::io;

use tidegate_delta::Task;

/// Memory of a decoder beside what it needs for decoding, in bytes: its program, what is read ahead,
/// and what allocators lose.
#[cfg(any(target_os = "linux", windows))]
pub(crate) const BESIDE: u64 = 32 << 20;

/// Bounds the memory of this process, the file that it may write, and its life by that of the process
/// that started it. Gives up every right that decoding does not take.
#[cfg(target_os = "linux")]
pub(crate) fn set(task: &Task) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    let limit = |resource, most: u64| {
        let both = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, both)
    };
    let most = task.memory().saturating_add(BESIDE);
    limit(Resource::Data, most)?;
    // Linux before 4.7 counts in `Data` what `brk` gave and not what was mapped. The rest is the
    // program itself.
    limit(Resource::As, most.saturating_add(1 << 30))?;
    // What it holds is another's image.
    limit(Resource::Core, 0)?;
    // The scratch file is the only file that it has. Writing on ends it.
    limit(Resource::Fsize, task.scratch())?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    crate::rights::give_up();
    Ok(())
}

/// Sets nothing: the process that started it looks after the memory.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_: &Task) -> io::Result<()> {
    Ok(())
}
