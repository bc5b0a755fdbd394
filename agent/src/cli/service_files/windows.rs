//! The agent as a Windows service.
//!
//! The service manager starts this program as `service`, which runs the agent, or its guard, as a
//! child process, so that the agent can be updated under it, and restarts it when it exits by
//! itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use windows_services::Service;

use super::{Plan, run};
use crate::host::supervise::{LogFile, supervise};
use crate::people::config::Config;

/// Name of the service.
const NAME: &str = "tidegate-agent";
/// Name of the log in the agent's folder.
const LOG: &str = "agent.log";
/// Pause between the end of an agent and the start of the next.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest time for which the service manager waits for the end.
const PATIENCE: Duration = Duration::from_secs(25);

/// Command that the service runs: the agent, or the guard of its own updates, which ends with us.
fn command(state: &Path, own: Option<&Path>) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    let mut command = match own {
        None => Command::new(&program),
        Some(own) => {
            let mut guard = Command::new(program.with_file_name("tidegate-guard.exe"));
            guard.arg("--exit-with-stdin").arg(own);
            guard
        }
    };
    command.arg("run").arg("--state").arg(state);
    match own {
        None => command.arg("--exit-with-stdin"),
        Some(own) => command.arg("--self-state").arg(own),
    };
    Ok(command)
}

/// Serves the service manager until the service is stopped.
///
/// # Errors
///
/// When this process was not started by the service manager, or its log cannot be written.
pub(crate) fn serve(state: &Path, own: Option<&Path>) -> Result<String, String> {
    let mut command = command(state, own)?;
    let path = state.join(LOG);
    let log = LogFile::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (ask, asked) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let begin = Mutex::new(Some(move || {
        supervise(&mut command, &Mutex::new(log), PAUSE, &asked);
        let _ = tell.send(());
    }));
    let told = Mutex::new(told);
    Service::new()
        .can_stop()
        .run(move |_, word| match word {
            windows_services::Command::Start => {
                let begin = begin.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(begin) = begin {
                    std::thread::spawn(begin);
                }
            }
            windows_services::Command::Stop => {
                let _ = ask.send(());
                let told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = told.recv_timeout(PATIENCE);
            }
            _ => {}
        })
        .map_err(|_| {
            "`service` can be started by the service manager only; use `run` by hand".to_owned()
        })?;
    Ok(String::new())
}

/// Creates the service, and starts it if the device is enrolled. Returns what was done or is to be
/// done next; `None` if that is to enroll.
pub(super) fn make(
    plan: &Plan,
    program: &Path,
    config: Option<&Config>,
    said: &mut Vec<String>,
) -> Result<Option<String>, String> {
    close_folder(&plan.state)?;
    create(program, &plan.state, plan.own.as_deref())?;
    said.push(format!("made    the service {NAME}"));
    if config.is_none() {
        return Ok(None);
    }
    // Restarted if it runs.
    stop();
    control(&["start", NAME])?;
    Ok(Some(format!("started {NAME}")))
}

/// Removes the service.
pub(super) fn remove(_: &Plan, said: &mut Vec<String>) -> Result<(), String> {
    if exists() {
        stop();
        control(&["delete", NAME])?;
        said.push(format!("removed the service {NAME}"));
    }
    Ok(())
}

/// Creates the service, or changes an existing one. It starts with the machine, and again 5 s after
/// it exits by itself.
fn create(program: &Path, state: &Path, own: Option<&Path>) -> Result<(), String> {
    let mut line = format!("{} service --state {}", quoted(program), quoted(state));
    if let Some(own) = own {
        line += &format!(" --self-state {}", quoted(own));
    }
    let verb = if exists() { "config" } else { "create" };
    control(&[
        verb,
        NAME,
        "binPath=",
        &line,
        "start=",
        "auto",
        "DisplayName=",
        "Tidegate agent",
    ])?;
    control(&[
        "description",
        NAME,
        "Keeps this machine on the release that its fleet is to run",
    ])?;
    let actions = "restart/5000/restart/5000/restart/60000";
    control(&["failure", NAME, "reset=", "86400", "actions=", actions])
}

/// Stops the service if it runs, and waits for its end.
fn stop() {
    // `net stop` waits for the end, `sc stop` does not; a service that does not run is not an
    // error.
    let _ = run("net.exe", &["stop", NAME]);
}

/// Returns whether the service exists.
fn exists() -> bool {
    control(&["query", NAME]).is_ok()
}

/// Closes the agent's folder to all but the system and the administrators: below `ProgramData`
/// everybody may read, and the device's key is in it. Uses well-known SIDs, since the names differ
/// from language to language.
fn close_folder(folder: &Path) -> Result<(), String> {
    let folder = folder.display().to_string();
    let (system, administrators) = ("*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F");
    run(
        "icacls.exe",
        &[
            &folder,
            "/inheritance:r",
            "/grant:r",
            system,
            "/grant:r",
            administrators,
        ],
    )
}

/// Default state directory of an installed agent.
pub(crate) fn default_state() -> PathBuf {
    let data =
        std::env::var_os("ProgramData").map_or_else(|| r"C:\ProgramData".into(), PathBuf::from);
    data.join(NAME)
}

/// Quotes a path. A backslash at its end would escape the quote.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().trim_end_matches('\\'))
}

fn control(words: &[&str]) -> Result<(), String> {
    run("sc.exe", words)
}
