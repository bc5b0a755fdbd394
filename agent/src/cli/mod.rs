//! The agent's command line.

mod args;
mod help;
mod man;
mod service_files;
mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_protocol::Verdict;

use crate::driver::{self, Driver, DriverError, Together};
use crate::fs;
use crate::host::platform;
use crate::host::rights::keep_others_from_writing;
use crate::host::stop::{asked_to_stop, outlives_large_files};
use crate::host::{service, spare, threads};
use crate::log;
use crate::people::config::{Config, ConfigError};
use crate::people::control;
use crate::people::doctor;
use crate::people::enroll;
use crate::people::identity;
use args::{Command, parse};
use help::HELP;
use service_files::Plan;
use status::status;

/// Exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// The command succeeded.
    Ok = 0,
    /// The command failed.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
}

/// Runs the agent with these arguments (without the program's name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    keep_others_from_writing();
    let mut parser = lexopt::Parser::from_args(arguments);
    match parse(&mut parser) {
        Err(error) => {
            log::line(&format!("{error}; see tidegate-agent --help"));
            ExitCode::Usage
        }
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(&format!("tidegate-agent {}\n", crate::VERSION)),
        Ok(Command::Status { state, json }) => finish(status(&state, json)),
        Ok(Command::Enroll(request)) => finish(block_on(async {
            enroll::enroll(*request).await.map_err(|e| log::chain(&e))
        })),
        Ok(Command::Fingerprint { state }) => {
            finish(enroll::fingerprint(&state).map_err(|e| log::chain(&e)))
        }
        Ok(Command::Recover { state, token }) => finish(block_on(async {
            enroll::recover(&state, &token)
                .await
                .map_err(|e| log::chain(&e))
        })),
        Ok(Command::Doctor { state, json }) => diagnose(&state, json),
        Ok(Command::Service { state, own }) => finish(serve(&state, own.as_deref())),
        Ok(Command::Man) => print(&man::page()),
        Ok(Command::Install(plan)) => finish(service_files::install(&Plan {
            man: man::page(),
            ..*plan
        })),
        Ok(Command::Uninstall(plan)) => finish(service_files::uninstall(&plan)),
        Ok(Command::Apply {
            state,
            folder,
            result,
            waits,
        }) => finish(block_on(apply(state, folder, result, waits))),
        Ok(Command::Export { state, to }) => finish(exported(&state, &to)),
        Ok(Command::Ask { state, ask }) => finish(status::told(&state, ask)),
        Ok(Command::NewKey { state }) => finish(
            Config::load(&state)
                // The present key signs the change: without it there is nothing to change.
                .and_then(|_| identity::identity(&state))
                .and_then(|_| identity::next_identity(&*fs::system(), &state, platform::now()))
                .map_err(|e| log::chain(&e))
                .map(|key| {
                    format!(
                        "the key {} takes effect at the agent's next check-in\n",
                        key.public()
                    )
                }),
        ),
        Ok(Command::Run {
            state,
            own,
            with_stdin,
        }) => finish(block_on(run(state, own, with_stdin))),
    }
}

#[cfg(windows)]
use service_files::serve;

#[cfg(not(windows))]
fn serve(_: &std::path::Path, _: Option<&std::path::Path>) -> Result<String, String> {
    Err("`service` is for the Windows service manager; use `run` here".into())
}

/// Applies a bundle and writes the reports to a file, whether it succeeded or not.
async fn apply(
    state: PathBuf,
    folder: PathBuf,
    result: Option<PathBuf>,
    waits: bool,
) -> Result<String, String> {
    let opened = Driver::open(&state, Arc::new(Together::default()));
    let mut driver = opened.map_err(|error| match error {
        DriverError::Config(ConfigError::Busy(_)) => format!(
            "an agent is running on {}: stop it first (systemctl stop tidegate-agent) and start it again afterwards",
            state.display()
        ),
        other => log::chain(&other),
    })?;
    let applied = driver.apply(&folder, waits).await;
    let to = result.unwrap_or_else(|| state.join("reports.json"));
    let told = exported(&state, &to);
    let said = applied.map_err(|error| log::chain(&error));
    match (said, told) {
        (Ok(said), Ok(told)) => Ok(said + &told),
        (Ok(said), Err(error)) => Err(format!("{}; {error}", said.trim())),
        (Err(error), Ok(told)) => Err(format!("{error}; {}", told.trim())),
        (Err(error), Err(_)) => Err(error),
    }
}

fn exported(state: &std::path::Path, to: &std::path::Path) -> Result<String, String> {
    let count = driver::export(state, to).map_err(|e| log::chain(&e))?;
    Ok(format!(
        "wrote {count} reports to {}: carry them back (tidegate bundle import)\n",
        to.display()
    ))
}

/// Runs every diagnostic check; the exit code is a failure if one of them is bad.
fn diagnose(state: &std::path::Path, json: bool) -> ExitCode {
    let examined = block_on(async { Ok(doctor::examine(state, false).await) });
    let findings = match examined {
        Ok(findings) => findings,
        Err(error) => return finish(Err(error)),
    };
    let bad = findings.iter().any(|f| f.verdict == Verdict::Bad);
    let text = if json {
        serde_json::to_string_pretty(&findings).map_or_else(|e| e.to_string(), |text| text + "\n")
    } else {
        doctor::text(&findings)
    };
    print(&text);
    if bad { ExitCode::Failed } else { ExitCode::Ok }
}

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    let text = tidegate_protocol::plain_lines(text);
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // A closed pipe (`| head`) is not an error.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            log::line(&log::chain(&error));
            ExitCode::Failed
        }
        _ => ExitCode::Ok,
    }
}

fn finish(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => print(&text),
        Err(error) => {
            log::line(&error);
            ExitCode::Failed
        }
    }
}

/// Runs a future on a single-threaded runtime. What blocks has threads of its own (`threads`): the runtime's
/// panic where none is to be had.
fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

async fn run(state: PathBuf, own: Option<PathBuf>, with_stdin: bool) -> Result<String, String> {
    outlives_large_files();
    threads::keep_one();
    spare::keep();
    let together = Arc::new(Together::default());
    let mut driver = Driver::open(&state, together.clone()).map_err(|e| log::chain(&e))?;
    together.note_watched();
    // The agent's own updates are secondary: a failure there must not stop the machine's.
    let own = own.and_then(|own| {
        Driver::open(&own, together)
            .map_err(|e| log::line(&format!("own updates: {}", log::chain(&e))))
            .ok()
    });
    log::line(&format!("runs, state in {}", state.display()));
    let (control, place, group) = driver.control();
    let listens = async {
        let Err(error) = control::serve(control, &place, group.as_deref()).await;
        // Updates work without local control.
        let place = place.display();
        log::line(&format!("local control at {place} is unavailable: {error}"));
        std::future::pending::<()>().await;
    };
    let own_updates = async {
        let Some(mut own) = own else {
            return std::future::pending().await;
        };
        match own.run().await {
            Err(error @ DriverError::TakesOver) => log::chain(&error),
            other => {
                if let Err(error) = other {
                    log::line(&format!("own updates: {}", log::chain(&error)));
                }
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        result = driver.run() => match result {
            Ok(()) | Err(DriverError::TakesOver) => Ok(String::new()),
            Err(error) => Err(log::chain(&error)),
        },
        said = own_updates => {
            log::line(&said);
            Ok(String::new())
        }
        () = listens => Ok(String::new()),
        () = service::keep_alive() => Ok(String::new()),
        () = asked_to_stop(with_stdin) => {
            log::line("stopping; work under way is in the journal and resumes at the next start");
            Ok(String::new())
        }
    }
}
