//! `agent.conf` in the agent's folder: settings that an administrator changes after enrollment.
//!
//! One `name = value` per line, `#` before a comment; the names are those of `enroll`. These
//! settings override those from enrollment.

use std::path::{Path, PathBuf};

use tidegate_trust::CommandLine;

use super::config::{Config, ConfigError};
use crate::host::health;
use crate::net::rate::RateLimit;

/// Name of the settings file.
pub(crate) const FILE: &str = "agent.conf";
/// Upper bound on the bytes read from the settings file.
const MAX_BYTES: u64 = 64 << 10;

/// Contents of a new settings file: every setting, none of them set.
pub(crate) const TEMPLATE: &str = "\
# Settings of the Tidegate agent on this machine. They override those from enrollment; restart the
# agent after a change. `tidegate-agent doctor` checks this file too.

# Addresses of the control plane; `also` may be repeated.
#server = https://updates.example:8420
#also = https://updates-2.example:8420
#ca-file = /etc/tidegate/ca.pem
# Allow http:// beyond this machine, which shows tickets and tokens to everybody on the way.
#allow-plain-http = no
# Host whose mirrors may be used beside those on the server's own host; may be repeated.
#mirror-host = mirror.plant.example

# Health check that overrides the publisher's, and its timeout in seconds.
#health-cmd = http://127.0.0.1:8080/ready
#health-timeout = 30
# Interval between health checks outside of updates, in seconds.
#health-every = 300
# Commands that restart the installed software after each switch, and reboot the machine.
#restart-cmd = systemctl restart press.service
#reboot-cmd = systemctl reboot

# Power and link.
#ups = ups@localhost
#battery-file = /run/battery
#metered = auto
#clock-trusted = no

# Downloads: chunks at once, seconds for one download, and how fast by the hour (UTC); `limit` may
# be repeated. `0` lets nothing through.
#parallel = 2
#download-deadline = 172800
#limit = 6-18 50000

# Program that is started to decode payloads, where the agent cannot start itself. `decode = no` takes
# whole images only, as they are: no delta, nothing compressed.
#decoder = /usr/lib/tidegate/decode
#decode = yes

# Group with access to the running agent besides root (status, check-now, pause, rollback), and the socket.
#group = operators
#socket = /run/tidegate-agent/control.sock
";

impl Config {
    /// Loads `agent.json` and applies `agent.conf` on top.
    pub fn load(state: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::as_enrolled(state)?;
        overlay(state, &mut config)?;
        Ok(config)
    }
}

/// Applies the settings file of a state directory, if there is one, to a configuration.
fn overlay(state: &Path, config: &mut Config) -> Result<(), ConfigError> {
    use std::io::Read as _;
    let path = state.join(FILE);
    let mut text = String::new();
    // Reading a pipe in its place would block.
    if std::fs::metadata(&path).is_ok_and(|meta| !meta.is_file()) {
        let what = "is not a regular file".into();
        return Err(ConfigError::Malformed { path, what });
    }
    let read =
        std::fs::File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ConfigError::Io { path, source }),
    }
    apply(&text, config).map_err(|what| ConfigError::Malformed { path, what })
}

fn apply(text: &str, config: &mut Config) -> Result<(), String> {
    let (mut also, mut limits, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
    let mut timeout_s = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut set = || {
            let (name, value) = line.split_once('=').ok_or("it is not `name = value`")?;
            let (name, value) = (name.trim(), value.trim());
            match name {
                "also" => also.push(value.trim_end_matches('/').to_owned()),
                "mirror-host" => hosts.push(host(value)?),
                "limit" => limits.push(limit(value)?),
                "health-timeout" => timeout_s = Some(number_of(value)?),
                _ => return one(name, value, config),
            }
            Ok(())
        };
        set().map_err(|what: String| format!("line {}: {what}", number + 1))?;
    }
    if !also.is_empty() {
        config.also = also;
    }
    if !hosts.is_empty() {
        config.mirror_hosts = hosts;
    }
    if !limits.is_empty() {
        config.limits = limits;
    }
    if let (Some(timeout_s), Some(health)) = (timeout_s, &mut config.health) {
        health.timeout_s = timeout_s;
    }
    Ok(())
}

fn path_of(name: &str, value: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{name}: {value:?} is not an absolute path"))
    }
}

fn one(name: &str, value: &str, config: &mut Config) -> Result<(), String> {
    match name {
        "server" => value.trim_end_matches('/').clone_into(&mut config.server),
        "ca-file" => config.ca_file = Some(value.into()),
        "health-cmd" => {
            let check = command(value, 30)?;
            health::look_at(&check.command)?;
            config.health = Some(check);
        }
        "health-every" => config.health_every_s = number_of(value)?,
        "restart-cmd" => config.restart = Some(command(value, 30)?),
        "reboot-cmd" => config.reboot = Some(command(value, 600)?),
        "ups" => config.power.ups = Some(value.into()),
        "battery-file" => config.power.file = Some(value.into()),
        "metered" => config.metered = value.parse()?,
        "clock-trusted" => config.clock_trusted = yes_or_no(name, value)?,
        "allow-plain-http" => config.plain_http = yes_or_no(name, value)?,
        "parallel" => config.parallel = number_of(value)?,
        "download-deadline" => config.download_deadline_s = number_of(value)?,
        "group" => config.control.group = Some(value.into()),
        "socket" => config.control.socket = Some(path_of(name, value)?),
        "decoder" => config.decoder = Some(path_of(name, value)?),
        "decode" => config.decode = yes_or_no(name, value)?,
        other => return Err(format!("unknown setting {other:?}")),
    }
    Ok(())
}

fn yes_or_no(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(format!("{name}: {other:?} is not yes or no")),
    }
}

fn number_of<T: std::str::FromStr<Err: std::fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|e| format!("{value:?}: {e}"))
}

fn command(value: &str, timeout_s: u32) -> Result<CommandLine, String> {
    let command: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return Err("the command is empty".into());
    }
    Ok(CommandLine { command, timeout_s })
}

/// Parses the host of mirrors: a name or an IP address, without scheme, port and path.
pub(crate) fn host(value: &str) -> Result<String, String> {
    let bare = value.trim_matches(['[', ']']);
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    if is_address || (!bare.is_empty() && !bare.contains([':', '/', '@', ' '])) {
        return Ok(bare.to_ascii_lowercase());
    }
    Err(format!(
        "{value:?} is not a host: give its name or IP address, without http:// and without a port"
    ))
}

/// Parses `6-18 50000`: hours (UTC), bytes per second.
fn limit(value: &str) -> Result<RateLimit, String> {
    let refuse = || format!("{value:?} is not like 6-18 50000: hours (UTC) and bytes a second");
    let (hours, rate) = value.split_once(' ').ok_or_else(refuse)?;
    let (from, to) = hours.split_once('-').ok_or_else(refuse)?;
    let hour = |text: &str, most: u8| {
        let hour = text.parse().ok().filter(|hour| *hour <= most);
        hour.ok_or_else(refuse)
    };
    Ok(RateLimit {
        from_hour: hour(from, 23)?,
        to_hour: hour(to, 24)?,
        bytes_per_s: rate.trim().parse().map_err(|_| refuse())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = r#"{"server": "http://a:1", "device": "dev_00000000000000000000000000000000",
            "name": "n", "product": "app", "platform": "linux-arm", "channel": "stable"}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_template_sets_nothing_and_each_of_its_settings_is_one() {
        let mut told = config();
        apply(TEMPLATE, &mut told).unwrap();
        assert_eq!(told, config());
        let settings = TEMPLATE
            .lines()
            .filter(|line| line.starts_with('#') && !line.starts_with("# "))
            .map(|line| &line[1..]);
        let all: Vec<&str> = settings.collect();
        assert!(all.len() >= 17, "{all:?}");
        apply(&all.join("\n"), &mut told).unwrap();
        assert_eq!(told.server, "https://updates.example:8420");
        assert_eq!(told.also, ["https://updates-2.example:8420"]);
        assert_eq!(told.mirror_hosts, ["mirror.plant.example"]);
        assert_eq!(told.limits[0].bytes_per_s, 50_000);
        assert_eq!(told.control.group.as_deref(), Some("operators"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, wanted) in [
            ("\nservre = x", "line 2: unknown setting \"servre\""),
            ("parallel = many", "line 1: \"many\""),
            ("limit = 6-25 1", "line 1: \"6-25 1\""),
            ("health-cmd = tcp:nohost", "line 1: \"tcp:nohost\""),
            (
                "mirror-host = http://a",
                "line 1: \"http://a\" is not a host",
            ),
            ("rubbish", "line 1: it is not `name = value`"),
            ("clock-trusted = maybe", "line 1: clock-trusted"),
        ] {
            let said = apply(text, &mut config()).unwrap_err();
            assert!(said.starts_with(wanted), "{said}");
        }
    }
}
