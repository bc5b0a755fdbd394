//! Open files: each connected device takes one, and the usual limit of a service is 1,024.

/// Most descriptors that are asked for. Some systems have no hard limit at all.
#[cfg(unix)]
const ENOUGH: u64 = 1 << 20;

/// Raises the soft limit of open files as far as the hard one allows, and logs what that is good for.
#[cfg(unix)]
pub(crate) fn raise() {
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
            "each connected device takes one of them; raise the hard limit (systemd: LimitNOFILE) for more"
        );
    } else {
        tracing::info!(open_files = now, was = soft, "limit of open files");
    }
}

#[cfg(not(unix))]
pub(crate) fn raise() {}
