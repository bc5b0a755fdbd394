//! Battery state and metered links: from the system, a file, or a UPS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_protocol::{Battery, Power};
use tidegate_trust::CommandLine;

use super::command::{Call, Ended};
use super::platform::read_small;

/// Sources of a machine's battery state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerSettings {
    /// File with charge and power (`14 battery`, `80 mains`), where the system does not tell.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// UPS known to Network UPS Tools: `NAME@HOST[:PORT]`.
    #[serde(default)]
    pub ups: Option<String>,
    /// Folder of power supplies on Linux; `/sys/class/power_supply` by default.
    #[serde(default)]
    pub supplies: Option<PathBuf>,
}

/// Whether the link is metered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metered {
    /// NetworkManager's answer or guess; not metered where there is none.
    #[default]
    Auto,
    /// It is metered.
    Yes,
    /// It is not metered.
    No,
}

impl std::str::FromStr for Metered {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "yes" => Ok(Self::Yes),
            "no" => Ok(Self::No),
            other => Err(format!("{other:?} is not auto, yes or no")),
        }
    }
}

impl Metered {
    /// Returns whether the link is metered now. May ask the system, which takes up to five seconds.
    pub fn costs(self) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Auto => asked_of_network_manager(),
        }
    }
}

/// Asks NetworkManager for its property `Metered`: 1 is yes, 3 a guess of yes.
fn asked_of_network_manager() -> bool {
    // Where it does not run it is not asked: that would start a process for nothing.
    if !cfg!(target_os = "linux") || !Path::new("/run/NetworkManager").is_dir() {
        return false;
    }
    let line = CommandLine {
        command: [
            "busctl",
            "get-property",
            "org.freedesktop.NetworkManager",
            "/org/freedesktop/NetworkManager",
            "org.freedesktop.NetworkManager",
            "Metered",
        ]
        .map(str::to_owned)
        .to_vec(),
        timeout_s: 5,
    };
    let call = Call {
        line: &line,
        arguments: &[],
        folder: Path::new("/"),
        environment: &[],
    };
    matches!(call.run(), Ended::Well(said) if matches!(said.trim(), "u 1" | "u 3"))
}

impl PowerSettings {
    /// Reads the battery. What cannot be read is unknown, never empty. Takes up to ten seconds with
    /// a UPS.
    pub fn battery(&self) -> Battery {
        if let Some(file) = &self.file {
            return from_file(file).unwrap_or_default();
        }
        if let Some(battery) = self.ups.as_deref().and_then(|ups| from_nut(ups).ok()) {
            return battery;
        }
        match self.supplies.as_deref() {
            Some(supplies) => from_sysfs(supplies),
            None => from_system(),
        }
    }
}

#[cfg(not(any(windows, target_os = "macos")))]
fn from_system() -> Battery {
    from_sysfs(Path::new("/sys/class/power_supply"))
}

/// Lowest charge of the machine's batteries, as its system reports it.
#[cfg(any(windows, target_os = "macos"))]
fn from_system() -> Battery {
    use starship_battery::{Manager, State};
    let batteries = Manager::new().and_then(|manager| manager.batteries());
    let mut found = Battery::default();
    for battery in batteries.into_iter().flatten().flatten() {
        let charge = (battery.state_of_charge().value * 100.0).clamp(0.0, 100.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number from 0 to 100"
        )]
        let charge = charge as u8;
        found.percent = Some(found.percent.unwrap_or(100).min(charge));
        let discharges = matches!(battery.state(), State::Discharging | State::Empty);
        found.power = match (found.power, discharges) {
            (Power::Battery, _) | (_, true) => Power::Battery,
            _ => Power::Mains,
        };
    }
    found
}

/// Validates the address of a UPS, which need not answer yet.
pub(crate) fn look_at_ups(ups: &str) -> Result<(), String> {
    match ups.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() => Ok(()),
        _ => Err("expected NAME@HOST[:PORT]".into()),
    }
}

/// Queries a UPS by the text protocol of Network UPS Tools (RFC 9271, section 4.2.6).
pub(crate) fn from_nut(ups: &str) -> Result<Battery, String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    /// Upper bound on the answer, in bytes: a UPS has some hundred variables.
    const LIMIT: u64 = 256 << 10;
    let failed = |e: std::io::Error| e.to_string();
    let (name, host) = ups.split_once('@').ok_or("expected NAME@HOST[:PORT]")?;
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("the name of a UPS must not contain spaces".into());
    }
    let place = match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:3493"),
    };
    let address = place
        .to_socket_addrs()
        .map_err(failed)?
        .next()
        .ok_or("no such host")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    stream
        .write_all(format!("LIST VAR {name}\n").as_bytes())
        .map_err(failed)?;
    let mut battery = Battery::default();
    let answer = Patient {
        stream,
        until: Instant::now() + PATIENCE,
    };
    for line in BufReader::new(answer.take(LIMIT)).lines() {
        let line = line.map_err(failed)?;
        if line.starts_with("ERR ") {
            return Err(line);
        }
        if line.starts_with("END LIST") {
            return Ok(battery);
        }
        let Some((key, value)) = line
            .strip_prefix(&format!("VAR {name} "))
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        match key {
            "battery.charge" => {
                let whole = value.split('.').next().unwrap_or_default();
                battery.percent = whole.parse().ok().filter(|p| *p <= 100);
            }
            "ups.status" => {
                let has = |word: &str| value.split_whitespace().any(|w| w == word);
                battery.power = match (has("OB"), has("OL")) {
                    (true, _) => Power::Battery,
                    (_, true) => Power::Mains,
                    _ => Power::Unknown,
                };
                // `LB` is the UPS' own verdict, whatever charge it shows.
                if has("LB") && has("OB") {
                    battery.percent = Some(battery.percent.unwrap_or(0).min(1));
                }
            }
            _ => {}
        }
    }
    Err("the answer ended early".into())
}

/// Reader with an overall deadline, however slowly bytes come.
struct Patient {
    stream: TcpStream,
    until: Instant,
}

impl std::io::Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buf)
    }
}

fn from_file(file: &Path) -> Option<Battery> {
    let text = read_small(file)?;
    let mut words = text.split_whitespace();
    let percent: u8 = words.next()?.trim_end_matches('%').parse().ok()?;
    let power = words
        .next()
        .and_then(|w| w.parse().ok())
        .unwrap_or(Power::Battery);
    (percent <= 100).then_some(Battery {
        percent: Some(percent),
        power,
    })
}

/// Linux: the lowest charge of the batteries that power the machine itself (`scope` is not
/// `Device`: a mouse is not a machine); on battery if one of them discharges, else on mains.
/// Without a battery, on mains if a supply is online, else unknown.
fn from_sysfs(root: &Path) -> Battery {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Battery::default();
    };
    let mut percent: Option<u8> = None;
    let (mut on_mains, mut discharging) = (false, false);
    for dir in entries.flatten().map(|e| e.path()) {
        let field = |name: &str| read_small(&dir.join(name));
        match field("type").as_deref() {
            Some("Mains" | "USB") => on_mains |= field("online").as_deref() == Some("1"),
            Some("Battery" | "UPS") if field("scope").as_deref() != Some("Device") => {
                let charge = field("capacity").and_then(|t| t.parse::<u8>().ok());
                percent = match (percent, charge.filter(|c| *c <= 100)) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                discharging |= field("status").as_deref() == Some("Discharging");
            }
            _ => {}
        }
    }
    let power = match (percent, on_mains, discharging) {
        (None, true, _) => Power::Mains,
        (None, false, _) => Power::Unknown,
        (Some(_), _, true) => Power::Battery,
        (Some(_), _, false) => Power::Mains,
    };
    Battery { percent, power }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(root: &Path, name: &str, fields: &[(&str, &str)]) {
        let dir = root.join(name);
        std::fs::create_dir(&dir).unwrap();
        for (field, value) in fields {
            std::fs::write(dir.join(field), format!("{value}\n")).unwrap();
        }
    }

    #[test]
    fn a_discharging_battery_is_seen_and_a_mouse_is_not() {
        let root = tempfile::tempdir().unwrap();
        supply(root.path(), "AC", &[("type", "Mains"), ("online", "0")]);
        supply(
            root.path(),
            "BAT0",
            &[
                ("type", "Battery"),
                ("capacity", "17"),
                ("status", "Discharging"),
            ],
        );
        let mouse = [("type", "Battery"), ("scope", "Device"), ("capacity", "3")];
        supply(root.path(), "mouse", &mouse);
        let battery = from_sysfs(root.path());
        assert_eq!(
            battery,
            Battery {
                percent: Some(17),
                power: Power::Battery
            }
        );
        assert!(battery.is_low());
    }

    #[test]
    fn no_supply_at_all_is_unknown_and_never_low() {
        let root = tempfile::tempdir().unwrap();
        assert!(!from_sysfs(root.path()).is_low());
        let missing = PowerSettings {
            file: Some(root.path().join("missing")),
            ..PowerSettings::default()
        };
        assert!(!missing.battery().is_low());
    }

    #[test]
    fn a_file_can_stand_in_for_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("battery");
        let settings = PowerSettings {
            file: Some(file.clone()),
            ..PowerSettings::default()
        };
        std::fs::write(&file, "14 battery\n").unwrap();
        assert_eq!(settings.battery().percent, Some(14));
        std::fs::write(&file, "rubbish").unwrap();
        assert_eq!(settings.battery(), Battery::default());
    }

    /// A UPS daemon that answers one question; its address.
    fn daemon(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "LIST VAR cabinet");
            let _ = (&stream).write_all(answer.as_bytes());
        });
        format!("cabinet@{place}")
    }

    #[test]
    fn a_ups_is_asked_by_its_own_protocol() {
        let on_battery = "BEGIN LIST VAR cabinet\nVAR cabinet battery.charge \"17.4\"\n\
            VAR cabinet ups.status \"OB DISCHRG\"\nEND LIST VAR cabinet\n";
        let battery = from_nut(&daemon(on_battery)).unwrap();
        assert_eq!(battery.percent, Some(17));
        assert!(battery.is_low());
        let low = "VAR cabinet battery.charge \"35\"\nVAR cabinet ups.status \"OB LB\"\n\
            END LIST VAR cabinet\n";
        assert!(from_nut(&daemon(low)).unwrap().is_low());
        let mains = "VAR cabinet battery.charge \"9\"\nVAR cabinet ups.status \"OL CHRG\"\n\
            END LIST VAR cabinet\n";
        assert!(!from_nut(&daemon(mains)).unwrap().is_low());
        assert!(from_nut(&daemon("ERR UNKNOWN-UPS\n")).is_err());
        assert!(from_nut(&daemon("VAR cabinet battery.charge \"9\"\n")).is_err());
        assert!(from_nut("no place").is_err());
    }
}
