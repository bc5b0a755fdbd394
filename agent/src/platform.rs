//! What the agent asks the machine: power, free space, name, clock.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_protocol::{Battery, Power, Timestamp};

/// The platform that this agent was built for, as artifacts name it.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// The machine's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::ZERO.plus(since)
}

/// The machine's name for people.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    if name.is_empty() {
        "device".into()
    } else {
        name
    }
}

/// Names this start of the machine, where the system does; empty where it does not.
pub(crate) fn boot_id() -> String {
    read_small(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

/// Bytes that an ordinary user may still write below a path; `None` where it cannot be told.
pub fn free_space(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// The battery: from a file where one is named (`14 battery`, `80 mains`), else from the system.
/// What cannot be read is unknown, never empty.
pub fn battery(file: Option<&Path>) -> Battery {
    match file {
        Some(file) => from_file(file).unwrap_or_default(),
        None => from_sysfs(Path::new("/sys/class/power_supply")),
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
/// `Device`: a mouse is not a machine); mains when any supply is online or none is there.
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

fn read_small(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)
        .ok()?
        .take(256)
        .read_to_string(&mut text)
        .ok()?;
    Some(text.trim().to_owned())
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
        assert!(!battery(Some(&root.path().join("missing"))).is_low());
    }

    #[test]
    fn a_file_can_stand_in_for_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("battery");
        std::fs::write(&file, "14 battery\n").unwrap();
        assert_eq!(battery(Some(&file)).percent, Some(14));
        std::fs::write(&file, "rubbish").unwrap();
        assert_eq!(battery(Some(&file)), Battery::default());
    }
}
