//! Health checks: a command with a deadline.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tidegate_protocol::{Explained, Reason};
use tidegate_trust::Health;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// How much of a command's output is kept for the report, in bytes.
const KEEP: u64 = 2_000;

/// Where and for whom a command runs.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// The unpacked version; commands run in it.
    pub tree: &'a Path,
    /// The release.
    pub release: String,
    /// The device's name.
    pub device_name: &'a str,
}

/// Runs a command to its end or its deadline; on the deadline its whole process group is killed.
/// `failed` and `late` are the reasons for the two ways to go wrong.
pub async fn run(
    health: &Health,
    around: &Surroundings<'_>,
    failed: Reason,
    late: Reason,
) -> Result<(), Explained> {
    let Some((program, arguments)) = health.command.split_first() else {
        return Ok(());
    };
    // A program below the slot is that program, whatever stands in PATH.
    let inside = around.tree.join(program);
    let program = if inside.is_file() {
        inside
    } else {
        program.into()
    };
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .current_dir(around.tree)
        .env("TIDEGATE_RELEASE", &around.release)
        .env("TIDEGATE_DEVICE_NAME", around.device_name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|e| {
        Explained::new(failed, format!("{} does not start: {e}", program.display()))
    })?;
    let group = child.id();
    let mut stderr = child.stderr.take();
    let deadline = Duration::from_secs(u64::from(health.timeout_s.max(1)));
    let ended = tokio::time::timeout(deadline, async {
        let mut text = Vec::new();
        if let Some(stderr) = &mut stderr {
            // Read to the end, keep the beginning: a full pipe would hang the command.
            let _ = stderr.take(KEEP).read_to_end(&mut text).await;
            let _ = tokio::io::copy(stderr, &mut tokio::io::sink()).await;
        }
        (child.wait().await, text)
    })
    .await;
    match ended {
        Ok((Ok(status), _)) if status.success() => Ok(()),
        Ok((Ok(status), text)) => {
            let text = String::from_utf8_lossy(&text);
            Err(Explained::new(failed, format!("{status} {}", text.trim())))
        }
        Ok((Err(error), _)) => Err(Explained::new(failed, error.to_string())),
        Err(_) => {
            kill_group(group);
            Err(Explained::new(
                late,
                format!("no answer within {} s", deadline.as_secs()),
            ))
        }
    }
}

#[cfg(unix)]
fn kill_group(leader: Option<u32>) {
    let leader = leader
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(leader) = leader {
        let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
    }
}

/// `kill_on_drop` ends the command itself.
#[cfg(not(unix))]
fn kill_group(_: Option<u32>) {}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    async fn check(script: &str, timeout_s: u32) -> Result<(), Explained> {
        let dir = tempfile::tempdir().unwrap();
        let health = Health {
            command: vec!["sh".into(), "-c".into(), script.into()],
            timeout_s,
        };
        let around = Surroundings {
            tree: dir.path(),
            release: "1.0.0".into(),
            device_name: "t",
        };
        run(
            &health,
            &around,
            Reason::HealthFailed,
            Reason::HealthTimeout,
        )
        .await
    }

    #[tokio::test]
    async fn the_exit_status_is_the_verdict_and_stderr_the_particulars() {
        assert_eq!(check("exit 0", 5).await, Ok(()));
        let failed = check("echo broken >&2; exit 3", 5).await.unwrap_err();
        assert_eq!(failed.code, Reason::HealthFailed);
        assert!(failed.detail.contains("broken"), "{failed}");
    }

    #[tokio::test]
    async fn a_check_that_never_answers_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("sh -c 'echo $$ > {}; exec sleep 600'; true", mark.display());
        let late = check(&script, 1).await.unwrap_err();
        assert_eq!(late.code, Reason::HealthTimeout);
        let pid: i32 = std::fs::read_to_string(&mark)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        // The grandchild was in the group: it ends, at most as a zombie that init will collect.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |text| text.contains(" Z "))
        };
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let killed = tokio::time::timeout(Duration::from_secs(10), async {
            while !gone() {
                ticks.tick().await;
            }
        });
        assert!(killed.await.is_ok(), "process {pid} lives on");
    }
}
