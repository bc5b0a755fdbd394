//! The agent's command line: `enroll`, `run`, `status`, `recover`, `new-key`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use lexopt::prelude::*;
use tidegate_protocol::Label;
use tidegate_trust::Health;

use crate::config::{self, Config};
use crate::driver::{Driver, DriverError, Together};
use crate::enrol::{self, Request};
use crate::fs;
use crate::install::{self, BackendSettings};
use crate::journal::Journal;
use crate::log;
use crate::platform;
use crate::power::PowerSettings;
use crate::service;
use crate::stop::asked_to_stop;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// It did what was asked.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
}

const HELP: &str = "\
tidegate-agent: keeps one machine on the release that its fleet is to run

USAGE
  tidegate-agent enroll --server URL --token TOKEN --product NAME [options]
  tidegate-agent run     [--state DIR] [--self-state DIR]
  tidegate-agent status  [--state DIR] [--json]
  tidegate-agent recover --token TOKEN [--state DIR]   fetch a lost root of trust again
  tidegate-agent new-key [--state DIR]                 make a new device key with the next round

ENROLL
  --server URL          the control plane: http://host:port or https://host:port
  --token TOKEN         a join token (or TIDEGATE_JOIN_TOKEN, which does not show in process lists)
  --product NAME        what this machine runs
  --region NAME         where it stands, unless the token says so
  --channel NAME        alpha, beta or stable, unless the token says so
  --name NAME           a name for people; the host name by default
  --label KEY=VALUE     a further fact; may be repeated
  --adopt DIR           take over what is installed in DIR ...
  --release VERSION     ... which is this release
  --platform NAME       this machine's platform by default
  --ca-file PEM         the server's certificate authority; the public ones by default
  --backend KIND        how versions are installed: directory (default), executable, image, hook,
                        agent (this program itself, started by tidegate-guard)
  --path FILE           executable: the file that people and services start
  --slot-a, --slot-b    image: files or block devices
  --boot-cmd CMD        image: tells the boot loader (booted, next, set, confirm)
  --reboot-cmd CMD      image, hook: starts the machine again, like \"systemctl reboot\"
  --hook-cmd CMD        hook: installs (install, activate, current, confirm, remove)
  --hook-timeout S      how long one call of a hook may take; 600 by default
  --health-cmd CMD      a health check that stands in for the publisher's (split at spaces)
  --health-timeout S    how long a health check may take; 30 by default
  --restart-cmd CMD     restarts what runs, after each switch (split at spaces)
  --battery-file FILE   says the charge, like \"80 mains\" or \"14 battery\"
  --clock-trusted       the clock is set by a trusted source: expiry is judged by it alone
  --ups NAME@HOST       a UPS that Network UPS Tools (upsd) speaks of
  --metered WORD        whether the link costs by the byte: auto (as NetworkManager says), yes, no
  --health-every S      how often what runs is checked outside of updates; 300 by default

ALL
  --state DIR           the agent's folder; ./tidegate-agent by default (or TIDEGATE_AGENT_STATE)
  -h, --help  -V, --version

What is installed is under <state>/current/tree. Exit codes: 0 ok, 1 failed, 2 usage.
";

/// Runs the agent with these arguments (without the program's name).
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
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
            let config = enrol::enrol(*request).await.map_err(|e| log::chain(&e))?;
            Ok(format!("enrolled as {} ({})\n", config.device, config.name))
        })),
        Ok(Command::Recover { state, token }) => finish(block_on(async {
            enrol::recover(&state, &token)
                .await
                .map_err(|e| log::chain(&e))
        })),
        Ok(Command::NewKey { state }) => finish(
            Config::load(&state)
                .and_then(|_| config::next_identity(&*fs::system(), &state))
                .map_err(|e| log::chain(&e))
                .map(|key| {
                    format!(
                        "the key {} takes its place with the next round of the agent\n",
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

fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    // A closed pipe (`| head`) is the reader's business.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::Ok
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

/// One thread for everything; staging gets one more while it lasts.
fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

async fn run(state: PathBuf, own: Option<PathBuf>, with_stdin: bool) -> Result<String, String> {
    let together = Arc::new(Together::default());
    let mut driver = Driver::open(&state, together.clone()).map_err(|e| log::chain(&e))?;
    together.is_watched();
    // The agent's own updates are a second matter: what is wrong with them stops nothing else.
    let own = own.and_then(|own| {
        Driver::open(&own, together)
            .map_err(|e| log::line(&format!("own updates: {}", log::chain(&e))))
            .ok()
    });
    log::line(&format!("runs, state in {}", state.display()));
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
        () = service::keep_alive() => Ok(String::new()),
        () = asked_to_stop(with_stdin) => {
            log::line("stops; the journal holds what it was doing");
            Ok(String::new())
        }
    }
}

fn status(state: &std::path::Path, json: bool) -> Result<String, String> {
    let config = Config::load(state).map_err(|e| log::chain(&e))?;
    let fs = fs::system();
    let journal = Journal::open_enrolled(fs.clone(), state).map_err(|e| log::chain(&e))?;
    let record = journal.record();
    let running = record.running();
    // A hook that does not answer is no reason to say nothing.
    let current = install::open(fs, state, &config.backend)
        .and_then(|backend| backend.medium())
        .map_err(|e| log::line(&log::chain(&e)))
        .ok()
        .and_then(|medium| medium.active);
    let status = record.status();
    if json {
        let value = serde_json::json!({
            "device": config.device,
            "name": config.name,
            "server": config.server,
            "product": config.product,
            "channel": config.channel,
            "release": running.map(|i| i.release.to_string()),
            "image": running.map(|i| i.image.sha256),
            "slot": record.active,
            "slot_on_medium": current,
            "deployment": status.map(|(id, ..)| id),
            "state": status.map(|(_, state, _)| state),
            "window_left_s": status.and_then(|(.., left)| left),
            "kept": record.slot(record.inactive()).map(|i| i.release.to_string()),
            "reports_waiting": record.outbox.len(),
            "bad_images": record.bad,
        });
        return serde_json::to_string_pretty(&value)
            .map(|t| t + "\n")
            .map_err(|e| e.to_string());
    }
    let release = running.map_or_else(|| "nothing".to_owned(), |i| i.release.to_string());
    let mut text = format!(
        "device   {} ({})\nserver   {}\nproduct  {}, channel {}\nruns     {release}",
        config.device, config.name, config.server, config.product, config.channel
    );
    if let Some(slot) = record.active {
        text += &format!(" from slot {}", slot.name());
    }
    if let Some(kept) = record.slot(record.inactive()) {
        text += &format!(", keeps {}", kept.release);
    }
    match status {
        None => text += "\nstate    idle\n",
        Some((id, state, left)) => {
            text += &format!("\nstate    {state} ({id})");
            if let Some(left) = left {
                text += &format!(", {left} s of the rollback window left");
            }
            text += "\n";
        }
    }
    if !record.outbox.is_empty() {
        text += &format!("waiting  {} reports for the server\n", record.outbox.len());
    }
    Ok(text)
}

enum Command {
    Help,
    Version,
    Enroll(Box<Request>),
    Run {
        state: PathBuf,
        own: Option<PathBuf>,
        with_stdin: bool,
    },
    Status {
        state: PathBuf,
        json: bool,
    },
    Recover {
        state: PathBuf,
        token: String,
    },
    NewKey {
        state: PathBuf,
    },
}

/// Options as they come; which of them a command needs is checked afterwards.
#[derive(Default)]
struct Options {
    state: Option<PathBuf>,
    flags: BTreeSet<&'static str>,
    values: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
}

const FLAGS: &[&str] = &["json", "clock-trusted", "exit-with-stdin"];

const VALUES: &[&str] = &[
    "server",
    "token",
    "product",
    "region",
    "channel",
    "name",
    "adopt",
    "release",
    "platform",
    "ca-file",
    "health-cmd",
    "health-timeout",
    "restart-cmd",
    "battery-file",
    "ups",
    "metered",
    "health-every",
    "backend",
    "self-state",
    "path",
    "slot-a",
    "slot-b",
    "boot-cmd",
    "reboot-cmd",
    "hook-cmd",
    "hook-timeout",
];

fn parse(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut command = None;
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("state") => options.state = Some(parser.value()?.into()),
            Long("label") => {
                let label: Label = parser.value()?.parse()?;
                options.labels.insert(label.key, label.value);
            }
            Long(name) => {
                if let Some(flag) = FLAGS.iter().find(|f| **f == name) {
                    options.flags.insert(flag);
                    continue;
                }
                let Some(name) = VALUES.iter().find(|v| **v == name) else {
                    return Err(Long(name).unexpected());
                };
                options.values.insert(name, parser.value()?.string()?);
            }
            Value(word) if command.is_none() => command = Some(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let state = options
        .state
        .take()
        .or_else(|| std::env::var_os("TIDEGATE_AGENT_STATE").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("tidegate-agent"));
    // Commands run in the slot's folder: a relative path would lead elsewhere from there.
    let state = std::path::absolute(&state).unwrap_or(state);
    match command.as_deref() {
        Some("run") => Ok(Command::Run {
            state,
            own: options
                .values
                .remove("self-state")
                .map(|text| std::path::absolute(&text).unwrap_or_else(|_| text.into())),
            with_stdin: options.flags.contains("exit-with-stdin"),
        }),
        Some("status") => Ok(Command::Status {
            state,
            json: options.flags.contains("json"),
        }),
        Some("recover") => Ok(Command::Recover {
            state,
            token: options
                .values
                .remove("token")
                .or_else(|| std::env::var("TIDEGATE_JOIN_TOKEN").ok())
                .ok_or("recover needs --token")?,
        }),
        Some("new-key") => Ok(Command::NewKey { state }),
        Some("enroll") => request(options, state).map(|r| Command::Enroll(Box::new(r))),
        Some(other) => Err(format!("there is no command {other:?}").into()),
        None => Err("name a command: enroll, run, status, recover or new-key".into()),
    }
}

fn request(mut options: Options, state: PathBuf) -> Result<Request, lexopt::Error> {
    fn typed<T: std::str::FromStr<Err: std::fmt::Display>>(
        text: Option<String>,
    ) -> Result<Option<T>, lexopt::Error> {
        text.map(|t| {
            t.parse::<T>()
                .map_err(|e| lexopt::Error::from(e.to_string()))
        })
        .transpose()
    }
    let mut value = |name: &str| options.values.remove(name);
    let needed = |name: &str, value: Option<String>| {
        value.ok_or_else(|| lexopt::Error::from(format!("enroll needs --{name}")))
    };
    let token = value("token").or_else(|| std::env::var("TIDEGATE_JOIN_TOKEN").ok());
    let timeout_s: u32 = typed(value("health-timeout"))?.unwrap_or(30);
    let command = |text: Option<String>| {
        text.map(|t| Health {
            command: t.split_whitespace().map(str::to_owned).collect(),
            timeout_s,
        })
    };
    let adopt = match (value("adopt"), typed(value("release"))?) {
        (Some(folder), Some(release)) => Some((PathBuf::from(folder), release)),
        (None, None) => None,
        _ => return Err("--adopt and --release go together".into()),
    };
    let hook_timeout_s: u32 = typed(value("hook-timeout"))?.unwrap_or(600);
    let hook = |text: String| Health {
        command: text.split_whitespace().map(str::to_owned).collect(),
        timeout_s: hook_timeout_s,
    };
    let absolute = |text: String| std::path::absolute(&text).unwrap_or_else(|_| text.into());
    let kind = value("backend").unwrap_or_else(|| "directory".into());
    let backend = match kind.as_str() {
        "directory" => BackendSettings::Directory,
        "executable" => BackendSettings::Executable {
            path: absolute(needed("path", value("path"))?),
        },
        "image" => BackendSettings::Image {
            a: absolute(needed("slot-a", value("slot-a"))?),
            b: absolute(needed("slot-b", value("slot-b"))?),
            boot: hook(needed("boot-cmd", value("boot-cmd"))?),
        },
        "hook" => BackendSettings::Hook {
            command: hook(needed("hook-cmd", value("hook-cmd"))?),
        },
        "agent" => BackendSettings::Agent,
        other => {
            let text = format!("no backend {other:?}: directory, executable, image, hook, agent");
            return Err(text.into());
        }
    };
    let reboot = value("reboot-cmd").map(hook);
    let server = needed("server", value("server"))?;
    let product = needed("product", value("product"))?;
    Ok(Request {
        server: server.trim_end_matches('/').to_owned(),
        token: needed("token", token)?,
        product: product
            .parse()
            .map_err(|e| lexopt::Error::from(format!("{e}")))?,
        platform: typed(Some(value("platform").unwrap_or_else(platform::platform)))?
            .ok_or_else(|| lexopt::Error::from("--platform"))?,
        name: value("name").unwrap_or_else(platform::host_name),
        region: typed(value("region"))?,
        channel: typed(value("channel"))?,
        adopt,
        ca_file: value("ca-file").map(PathBuf::from),
        health: command(value("health-cmd")),
        restart: command(value("restart-cmd")),
        power: PowerSettings {
            file: value("battery-file").map(PathBuf::from),
            ups: value("ups"),
            supplies: None,
        },
        health_every_s: typed(value("health-every"))?.unwrap_or(300),
        metered: typed(value("metered"))?.unwrap_or_default(),
        clock_trusted: options.flags.contains("clock-trusted"),
        labels: options.labels,
        backend,
        reboot,
        state,
    })
}
