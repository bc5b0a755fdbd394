//! Notifications to the service manager: the agent is ready, and not stuck.
//!
//! The signs of life come from the event loop, and only while the driver makes progress: if either
//! hangs they stop, systemd kills the agent, and in the trial of a new version that costs a try.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Time of the driver's last progress, in seconds since the start.
static BEAT: AtomicU64 = AtomicU64::new(0);

fn seconds() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_secs()
}

/// Records that the driver makes progress.
pub(crate) fn beat() {
    BEAT.store(seconds(), Ordering::Relaxed);
}

/// Returns whether the driver has made progress lately: nothing that it waits for takes ten minutes.
#[cfg(target_os = "linux")]
fn is_alive(now_s: u64, beat_s: u64) -> bool {
    now_s.saturating_sub(beat_s) < 600
}

/// Signals that the agent is ready, then that it is alive, for as long as it is polled. Never ends.
pub(crate) async fn keep_alive() {
    #[cfg(target_os = "linux")]
    {
        use sd_notify::{NotifyState, notify, watchdog_enabled};
        // In a thread of its own: sending waits while the manager does not read, and the event loop
        // must not. What does not fit is dropped; the next sign of life follows soon.
        let (tell, told) = std::sync::mpsc::sync_channel(2);
        let in_thread = std::thread::Builder::new().spawn(move || {
            for state in told {
                // No effect where no service manager listens.
                let _ = notify(&[state]);
            }
        });
        let in_thread = in_thread.is_ok();
        // Where no thread is to be had the loop waits for the manager, which is better than being ended by it.
        let say = |state: NotifyState<'static>| {
            if in_thread {
                let _ = tell.try_send(state);
            } else {
                let _ = notify(&[state]);
            }
        };
        say(NotifyState::Ready);
        if let Some(within) = watchdog_enabled() {
            loop {
                if is_alive(seconds(), BEAT.load(Ordering::Relaxed)) {
                    say(NotifyState::Watchdog);
                }
                tokio::time::sleep(within / 3).await;
            }
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixDatagram;
    use std::process::{Command, Stdio};

    #[test]
    fn a_driver_that_hangs_is_not_vouched_for() {
        use super::is_alive;
        assert!(is_alive(5, 0) && is_alive(700, 650));
        assert!(!is_alive(700, 50));
    }

    /// The environment is per process: the messages are read from a child process.
    #[test]
    fn systemd_hears_that_it_is_ready_and_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "host::service::tests::a_child_that_speaks",
                "--exact",
                "--ignored",
            ])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000")
            .stdout(Stdio::null())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut heard = Vec::new();
        let mut buffer = [0; 256];
        while heard.len() < 4 {
            let length = socket.recv(&mut buffer).unwrap();
            heard.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(heard[0], "READY=1");
        assert!(
            heard[1..].iter().all(|word| word == "WATCHDOG=1"),
            "{heard:?}"
        );
    }

    #[test]
    #[ignore = "the child of the test above"]
    fn a_child_that_speaks() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(super::keep_alive());
        runtime.block_on(async {
            // Until it is killed, or its parent is gone.
            let gone = tokio::task::spawn_blocking(|| {
                let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
            });
            let _ = gone.await;
        });
    }
}
