//! Command-line arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lexopt::prelude::*;
use tidegate_protocol::Label;
use tidegate_trust::CommandLine;

use super::service_files::{Plan, default_state};
use crate::host::command::is_there;
use crate::host::health;
use crate::host::platform;
use crate::host::power::PowerSettings;
use crate::install::BackendSettings;
use crate::people::control::Ask;
use crate::people::enroll::Request;

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
    write: Vec<PathBuf>,
}

const FLAGS: &[&str] = &["json", "clock-trusted", "exit-with-stdin", "no-wait"];

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

/// Makes a path absolute: commands run in other folders, where a relative one would lead elsewhere.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A duration as people write it, in seconds: `90`, `90s`, `30m`, `8h`, `2d`.
struct Span(u64);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || "expected a duration like 90s, 30m, 8h or 2d".to_owned();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(refuse()),
        };
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        number.checked_mul(seconds).map(Self).ok_or_else(refuse)
    }
}

/// Parses the value of an option; the error names the option.
fn typed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<String>,
) -> Result<Option<T>, lexopt::Error> {
    text.map(|text| {
        text.parse::<T>()
            .map_err(|e| lexopt::Error::from(format!("--{name} {text}: {e}")))
    })
    .transpose()
}

/// Parses a command line of the owner's, split at spaces.
fn line(name: &str, text: &str, timeout_s: u32) -> Result<CommandLine, lexopt::Error> {
    let command: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let Some(program) = command.first() else {
        return Err(format!("--{name} is empty").into());
    };
    // A program inside a version does not exist yet; an absolute path must exist already.
    if Path::new(program).is_absolute() && !is_there(program, Path::new("/")) {
        return Err(format!("--{name}: there is no program {program:?}").into());
    }
    Ok(CommandLine { command, timeout_s })
}

fn request(mut options: Options, state: PathBuf) -> Result<Request, lexopt::Error> {
    let mut value = |name: &str| options.values.remove(name);
    let needed = |name: &str, value: Option<String>| {
        value.ok_or_else(|| lexopt::Error::from(format!("enroll needs --{name}")))
    };
    let token = value("token").or_else(|| std::env::var("TIDEGATE_JOIN_TOKEN").ok());
    let timeout_s: u32 = typed("health-timeout", value("health-timeout"))?.unwrap_or(30);
    let health = value("health-cmd")
        .map(|text| line("health-cmd", &text, timeout_s))
        .transpose()?;
    if let Some(health) = &health {
        health::look_at(&health.command).map_err(|e| format!("--health-cmd: {e}"))?;
    }
    let restart = value("restart-cmd")
        .map(|text| line("restart-cmd", &text, timeout_s))
        .transpose()?;
    let adopt = match (value("adopt"), typed("release", value("release"))?) {
        (Some(folder), Some(release)) => Some((PathBuf::from(folder), release)),
        (None, None) => None,
        _ => return Err("--adopt and --release go together".into()),
    };
    let hook_timeout_s: u32 = typed("hook-timeout", value("hook-timeout"))?.unwrap_or(600);
    let hook = |name: &str, text: String| {
        let hook = line(name, &text, hook_timeout_s)?;
        let program = hook.command.first().map_or("", String::as_str);
        // Hooks run in the agent's folder, which is still empty.
        if !is_there(program, &state) {
            let text = format!(
                "--{name}: program {program:?} not found: name one in PATH, or give its absolute path"
            );
            return Err(lexopt::Error::from(text));
        }
        Ok(hook)
    };
    let kind = value("backend").unwrap_or_else(|| "directory".into());
    let backend = match kind.as_str() {
        "directory" => BackendSettings::Directory,
        "executable" => BackendSettings::Executable {
            path: absolute(needed("path", value("path"))?.into()),
        },
        "image" => BackendSettings::Image {
            a: absolute(needed("slot-a", value("slot-a"))?.into()),
            b: absolute(needed("slot-b", value("slot-b"))?.into()),
            boot: hook("boot-cmd", needed("boot-cmd", value("boot-cmd"))?)?,
        },
        "hook" => BackendSettings::Hook {
            command: hook("hook-cmd", needed("hook-cmd", value("hook-cmd"))?)?,
        },
        "agent" => BackendSettings::Agent,
        other => {
            let text = format!(
                "unknown backend {other:?}: expected directory, executable, image, hook or agent"
            );
            return Err(text.into());
        }
    };
    for (name, of) in [
        ("path", "executable"),
        ("slot-a", "image"),
        ("slot-b", "image"),
        ("boot-cmd", "image"),
        ("hook-cmd", "hook"),
    ] {
        if value(name).is_some() {
            let text = format!("--{name} needs --backend {of}, but the backend is {kind}");
            return Err(text.into());
        }
    }
    let reboot = value("reboot-cmd")
        .map(|text| hook("reboot-cmd", text))
        .transpose()?;
    let server = needed("server", value("server"))?;
    let product = needed("product", value("product"))?;
    Ok(Request {
        server: server.trim_end_matches('/').to_owned(),
        also: options.also,
        token: needed("token", token)?,
        product: typed("product", Some(product))?.ok_or("--product")?,
        platform: typed(
            "platform",
            Some(value("platform").unwrap_or_else(platform::platform)),
        )?
        .ok_or_else(|| lexopt::Error::from("--platform"))?,
        name: value("name").unwrap_or_else(platform::host_name),
        region: typed("region", value("region"))?,
        channel: typed("channel", value("channel"))?,
        adopt,
        ca_file: value("ca-file").map(|file| absolute(file.into())),
        health,
        restart,
        power: PowerSettings {
            file: value("battery-file").map(|file| absolute(file.into())),
            ups: value("ups"),
            supplies: None,
        },
        health_every_s: typed("health-every", value("health-every"))?.unwrap_or(300),
        metered: typed("metered", value("metered"))?.unwrap_or_default(),
        clock_trusted: options.flags.contains("clock-trusted"),
        labels: options.labels,
        backend,
        reboot,
        state,
    })
}
