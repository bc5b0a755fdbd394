//! Command-line arguments.

mod enroll;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use tidegate_protocol::Label;

use super::service_files::{Plan, default_state};
use crate::people::control::Ask;
use crate::people::enroll::Request;
use crate::people::settings;
use enroll::request;
use values::{Span, absolute, typed};

/// A command with its arguments.
pub(super) enum Command {
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
    Ask {
        state: PathBuf,
        ask: Ask,
    },
    Recover {
        state: PathBuf,
        token: String,
    },
    NewKey {
        state: PathBuf,
    },
    Fingerprint {
        state: PathBuf,
    },
    /// Entry point for the Windows service manager.
    Service {
        state: PathBuf,
        own: Option<PathBuf>,
    },
    Man,
    Apply {
        state: PathBuf,
        folder: PathBuf,
        result: Option<PathBuf>,
        waits: bool,
    },
    Export {
        state: PathBuf,
        to: PathBuf,
    },
    Install(Box<Plan>),
    Uninstall(Box<Plan>),
    Doctor {
        state: PathBuf,
        json: bool,
    },
}

/// Options as given; whether a command has those it needs is checked afterwards.
#[derive(Default)]
struct Options {
    state: Option<PathBuf>,
    flags: BTreeSet<&'static str>,
    values: BTreeMap<&'static str, String>,
    labels: BTreeMap<String, String>,
    also: Vec<String>,
    mirror_hosts: Vec<String>,
    write: Vec<PathBuf>,
}

const FLAGS: &[&str] = &[
    "json",
    "clock-trusted",
    "exit-with-stdin",
    "no-wait",
    "allow-public",
    "allow-plain-http",
    "drop-attributes",
];

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
    "for",
    "group",
    "root",
    "result",
    "path",
    "slot-a",
    "slot-b",
    "boot-cmd",
    "reboot-cmd",
    "hook-cmd",
    "hook-timeout",
];

pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut command = None;
    let mut operand = None;
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("state") => options.state = Some(parser.value()?.into()),
            Long("also") => {
                let address = parser.value()?.string()?;
                options.also.push(address.trim_end_matches('/').to_owned());
            }
            Long("mirror-host") => {
                let host = settings::host(&parser.value()?.string()?);
                let host = host.map_err(|e| format!("--mirror-host: {e}"))?;
                options.mirror_hosts.push(host);
            }
            Long("write") => options.write.push(absolute(parser.value()?.into())),
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
            Value(word)
                if operand.is_none() && matches!(command.as_deref(), Some("apply" | "export")) =>
            {
                operand = Some(absolute(word.into()));
            }
            other => return Err(other.unexpected()),
        }
    }
    let told = options.state.clone();
    let state = options
        .state
        .take()
        .or_else(|| std::env::var_os("TIDEGATE_AGENT_STATE").map(PathBuf::from))
        .unwrap_or_else(usual_state);
    let state = absolute(state);
    let own = options.values.remove("self-state");
    let own = own.map(|text| absolute(text.into()));
    let ask = |ask| {
        Ok(Command::Ask {
            state: state.clone(),
            ask,
        })
    };
    match command.as_deref() {
        Some("run") => Ok(Command::Run {
            state,
            own,
            with_stdin: options.flags.contains("exit-with-stdin"),
        }),
        Some("service") => Ok(Command::Service { state, own }),
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
        Some("apply") => Ok(Command::Apply {
            state,
            folder: operand.ok_or("apply needs the folder of a bundle")?,
            result: options.values.remove("result").map(|t| absolute(t.into())),
            waits: !options.flags.contains("no-wait"),
        }),
        Some("export") => Ok(Command::Export {
            state,
            to: operand.ok_or("export needs a file to write")?,
        }),
        Some("man") => Ok(Command::Man),
        Some(word @ ("install" | "uninstall")) => {
            let of_systemd = ["group", "root"].map(|name| options.values.contains_key(name));
            if cfg!(windows) && (of_systemd.contains(&true) || !options.write.is_empty()) {
                let text = "--group, --root and --write are not for Windows: \
                            administrators speak to the agent there";
                return Err(text.into());
            }
            let plan = Box::new(Plan {
                state: told.map_or_else(default_state, absolute),
                own,
                group: options.values.remove("group"),
                write: options.write,
                root: options
                    .values
                    .remove("root")
                    .map_or_else(|| "/".into(), |t| absolute(t.into())),
                man: String::new(),
            });
            Ok(if word == "install" {
                Command::Install(plan)
            } else {
                Command::Uninstall(plan)
            })
        }
        Some("doctor") => Ok(Command::Doctor {
            state,
            json: options.flags.contains("json"),
        }),
        Some("check-now") => ask(Ask::CheckNow),
        Some("resume") => ask(Ask::Resume),
        Some("rollback") => ask(Ask::Rollback),
        Some("pause") => ask(Ask::Pause {
            seconds: typed("for", options.values.remove("for"))?.map_or(3_600, |span: Span| span.0),
        }),
        Some("new-key") => Ok(Command::NewKey { state }),
        Some("fingerprint") => Ok(Command::Fingerprint { state }),
        Some("enroll") => request(options, state).map(|r| Command::Enroll(Box::new(r))),
        Some(other) => Err(format!("unknown command {other:?}").into()),
        None => Err("no command given: enroll, run, status, doctor, install or another one".into()),
    }
}

/// Default state directory: `./tidegate-agent`, unless only the installed agent's is enrolled.
fn usual_state() -> PathBuf {
    let here = PathBuf::from("tidegate-agent");
    let installed = default_state();
    let is_enrolled = |state: &Path| state.join("agent.json").exists();
    if !is_enrolled(&here) && is_enrolled(&installed) {
        installed
    } else {
        here
    }
}
