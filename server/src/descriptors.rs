//! Limit of open files: each connected device takes one, and a service usually gets 1,024.

/// Upper bound on the limit asked for: some systems have no hard limit.
#[cfg(unix)]
const ENOUGH: u64 = 1 << 20;

/// Raises the soft limit of open files as far as the hard limit allows, logs the result and returns
/// it.
#[cfg(unix)]
pub(crate) fn raise() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let found = getrlimit(Resource::Nofile);
    let wanted = found.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let soft = found.current.unwrap_or(u64::MAX);
    let mut now = soft;
    if soft < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: found.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => now = wanted,
            Err(error) => {
                tracing::warn!(%error, soft, wanted, "cannot raise the limit of open files");
            }
        }
    }
    if now < ENOUGH / 16 {
        tracing::warn!(
            open_files = now,
            was = soft,
            "each connected device takes one open file; raise the hard limit (systemd: LimitNOFILE) to serve more devices"
        );
    } else {
        tracing::info!(open_files = now, was = soft, "limit of open files");
    }
    now
}

/// Returns what Windows, which has no such limit, is not asked for.
#[cfg(not(unix))]
pub(crate) fn raise() -> u64 {
    1 << 16
}
