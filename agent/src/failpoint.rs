//! Points at which a test may kill the process, as a power cut would.
//!
//! In a debug build, `TIDEGATE_CRASH_AT=N` makes the N-th point kill the process with SIGKILL: no
//! destructor runs, no buffer is flushed. A release build has no such code.

/// One point: before and after every durable step.
#[cfg(all(debug_assertions, unix))]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static AT: OnceLock<Option<u64>> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(at) = *AT.get_or_init(|| std::env::var("TIDEGATE_CRASH_AT").ok()?.parse().ok()) else {
        return;
    };
    if COUNT.fetch_add(1, Ordering::SeqCst) + 1 == at {
        crate::log::line(&format!("killed at point {at}: {name}"));
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal needs no help, but it may take a moment to arrive.
        loop {
            std::thread::park();
        }
    }
}

/// No points in a release build.
#[cfg(not(all(debug_assertions, unix)))]
pub(crate) fn point(_name: &str) {}
