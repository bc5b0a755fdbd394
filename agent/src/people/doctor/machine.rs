//! Checks of the machine itself.

use std::path::{Path, PathBuf};

use tidegate_machine::fsm::{Phase, Record, SlotId};
use tidegate_protocol::{Finding, Power, Verdict, plain};

use super::{bad, bad_unless, notice_unless};
use crate::fs;
use crate::host::platform;
use crate::install::{self, BackendSettings};
use crate::people::config::Config;
use crate::people::control::{self, Ask};
use crate::people::identity;
use crate::trust::TrustStore;

/// Upper bound on memory in use, in percent.
const MEMORY: u64 = 90;
/// Minimum charge without mains, in percent: the same as in rollouts.
const CHARGE: u8 = 20;
/// Longest acceptable time without an answer from the server, in seconds.
const SILENCE: u64 = 900;

/// The machine under examination.
pub(super) struct Machine<'a> {
    pub(super) state: &'a Path,
    pub(super) config: &'a Config,
    pub(super) record: Option<&'a Record>,
    /// Error of the journal, if there is no record.
    pub(super) damage: Option<String>,
    /// Whether an agent runs here.
    pub(super) runs: bool,
    /// Whether that agent runs this examination itself.
    pub(super) own: bool,
}

impl Machine<'_> {
    pub(super) fn look(&self) -> Vec<Finding> {
        let mut findings = vec![self.journal(), self.identity()];
        findings.extend(self.metadata());
        findings.push(self.slots());
        findings.extend(self.leftovers());
        findings.extend(self.left());
        findings.extend([self.clock(), self.space()]);
        findings.extend(self.space_elsewhere());
        findings.extend([memory(), self.battery()]);
        findings.extend(self.in_place());
        findings.extend(self.read_only());
        findings.push(super::decoder::look(self.config));
        findings.extend(super::stuck::look(self.state));
        findings.extend(super::commands::look(self.state, self.config, self.record));
        if !self.own {
            findings.push(self.service());
        }
        findings.push(self.environment());
        findings
    }

    fn journal(&self) -> Finding {
        if self.damage.is_none() && platform::is_read_only(self.state) {
            let value = "readable, but not writable: the file system can only be read";
            return Finding::new("journal", value, "writable", Verdict::Bad);
        }
        match (&self.damage, self.record) {
            (None, Some(record)) => Finding::new(
                "journal",
                format!("readable, {} reports pending", record.outbox.len()),
                "readable",
                Verdict::Good,
            ),
            (damage, _) => {
                let damage = damage.clone().unwrap_or_default();
                Finding::new("journal", damage, "readable", Verdict::Bad)
            }
        }
    }

    fn identity(&self) -> Finding {
        let path = self.state.join("identity.pem");
        if !path.is_file() {
            let value = format!("{} is not there", path.display());
            return Finding::new("identity", value, "the device's own key", Verdict::Bad);
        }
        if let Err(error) = identity::identity(self.state) {
            return bad("identity", &error);
        }
        #[cfg(unix)]
        if let Ok(meta) = std::fs::metadata(&path) {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = meta.permissions().mode() & 0o777;
            let verdict = bad_unless(mode | 0o700 == 0o700);
            let value = format!("readable, mode {mode:o}");
            return Finding::new("identity", value, "nobody else may read it", verdict);
        }
        Finding::new("identity", "readable", "readable", Verdict::Good)
    }

    /// Checks the signed files. Opening the store repairs a damaged copy from the other one.
    fn metadata(&self) -> Vec<Finding> {
        let kept = TrustStore::open(fs::system(), self.state).and_then(|store| store.load());
        let files = match kept {
            Ok(files) => files,
            Err(error) => return vec![bad("metadata", &error)],
        };
        let now = platform::now().as_secs();
        let roles = [
            ("root", Some(files.root)),
            ("targets", files.targets),
            ("role", files.role),
            ("snapshot", files.snapshot),
            ("timestamp", files.timestamp),
        ];
        let mut expired = Vec::new();
        let mut next: Option<(i64, &str)> = None;
        for (name, bytes) in &roles {
            let Some(ends) = bytes.as_deref().and_then(expiry) else {
                continue;
            };
            if ends <= now {
                expired.push(format!("{name} {} h ago", (now - ends) / 3_600));
            } else if next.is_none_or(|(at, _)| ends < at) {
                next = Some((ends, name));
            }
        }
        let (value, verdict) = match (expired.is_empty(), next) {
            // The agent fetches newer files before it trusts any; their signer may be late.
            (false, _) => (format!("expired: {}", expired.join(", ")), Verdict::Notice),
            (true, Some((at, name))) => (
                format!("{name} is the next to expire, in {} h", (at - now) / 3_600),
                Verdict::Good,
            ),
            (true, None) => ("no signed files yet".into(), Verdict::Unknown),
        };
        vec![Finding::new("metadata", value, "none has expired", verdict)]
    }

    fn slots(&self) -> Finding {
        let backend = install::open(fs::system(), self.state, &self.config.backend);
        let looked = backend.and_then(|backend| {
            let medium = backend.medium()?;
            let gone = medium.active.filter(|slot| !backend.is_there(*slot));
            Ok((medium, gone))
        });
        let (medium, gone) = match looked {
            Ok(looked) => looked,
            Err(error) => return bad("slots", &error),
        };
        if let Some(slot) = gone {
            let value = format!("slot {} is in use but empty", slot.name());
            return Finding::new("slots", value, "a version", Verdict::Bad);
        }
        let Some(record) = self.record else {
            return Finding::new(
                "slots",
                "no journal",
                "as the journal says",
                Verdict::Unknown,
            );
        };
        let resting = matches!(record.phase, Phase::Idle | Phase::Probation { .. });
        let name = |slot: Option<SlotId>| slot.map_or("none", |slot| slot.name());
        let value = format!(
            "slot {} is in use, the journal says {}",
            name(medium.active),
            name(record.active)
        );
        let verdict = bad_unless(!resting || medium.active == record.active);
        Finding::new("slots", value, "as the journal says", verdict)
    }

    /// Leftovers of an interrupted update in the agent's folder. Removed if no agent runs and no
    /// update is under way.
    fn leftovers(&self) -> Option<Finding> {
        let resting = self.record.is_some_and(|r| r.phase == Phase::Idle);
        if self.runs || !resting {
            return None;
        }
        let fs = fs::system();
        let mut found = Vec::new();
        let slots = ["a", "b"].map(|slot| self.state.join("slots").join(slot));
        for folder in [self.state.to_owned()].into_iter().chain(slots) {
            for (name, _) in fs.list(&folder).unwrap_or_default() {
                let text = name.to_string_lossy();
                let temporary = text.starts_with('.') && text.ends_with(".new");
                let staged = ["made", "unpacked", "unpacking", "header", "tree.new"]
                    .contains(&&*text)
                    || text.starts_with("artifact.");
                if temporary || (folder != self.state && staged) {
                    found.push(folder.join(&name));
                }
            }
        }
        if let BackendSettings::Executable { path } = &self.config.backend {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let cut = install::HALF.map(|end| path.with_file_name(format!(".{name}{end}")));
            let there = |path: &PathBuf| fs.kind(path).is_ok_and(|kind| kind.is_some());
            found.extend(cut.into_iter().filter(there));
        }
        let download = self.state.join("download");
        if fs.kind(&download).ok().flatten().is_some() {
            found.push(download);
        }
        if found.is_empty() {
            return Some(Finding::new("leftovers", "none", "none", Verdict::Good));
        }
        let failed = found.iter().find_map(|path| fs.remove_tree(path).err());
        let value = format!("{} of an update that was cut", found.len());
        let mut finding = Finding::new("leftovers", value, "none", Verdict::Notice);
        match failed {
            None => {
                finding.verdict = Verdict::Good;
                finding.repaired = Some("removed".into());
            }
            Some(error) => finding.value += &format!(", cannot be removed: {error}"),
        }
        Some(finding)
    }

    fn clock(&self) -> Finding {
        let now = platform::now();
        let floor = self.record.map(|r| r.time_floor).unwrap_or_default();
        let mut value = format!("{now}; the newest signed time is {floor}");
        // Which file set it: the holders of that one can turn it back.
        let kept = TrustStore::open(fs::system(), self.state).and_then(|store| store.load());
        if let Ok(files) = kept {
            let files = [
                ("root", Some(files.root)),
                ("targets", files.targets),
                ("role", files.role),
            ];
            for (name, bytes) in files {
                if let Some(at) = bytes.and_then(|bytes| signed(&bytes, "x-issued")) {
                    value += &format!(", {name} of {}", plain(&at));
                }
            }
        }
        let verdict = notice_unless(now >= floor);
        Finding::new("clock", value, "not before the newest signed time", verdict)
    }

    fn battery(&self) -> Finding {
        let battery = self.config.power.battery();
        let threshold = format!("mains, or {CHARGE} %");
        let (value, verdict) = match (battery.percent, battery.power) {
            (Some(percent), power) => (
                format!("{percent} %, {power}"),
                notice_unless(!battery.is_low()),
            ),
            (None, Power::Mains) => ("mains".into(), Verdict::Good),
            (None, _) => ("none, or unknown".into(), Verdict::Unknown),
        };
        Finding::new("battery", value, threshold, verdict)
    }

    fn service(&self) -> Finding {
        let threshold = "running, and in contact with its server";
        let place = self.config.control.place(self.state);
        let (value, verdict) = match (control::ask(&place, Ask::Status), self.runs) {
            (Ok(reply), _) => match (reply.live.heard_s, reply.live.error) {
                (Some(seconds), None) => (
                    format!("running, last answer from the server {seconds} s ago"),
                    notice_unless(seconds <= SILENCE),
                ),
                (_, Some(error)) => (format!("runs: {error}"), Verdict::Bad),
                (None, None) => (
                    "running, no answer from its server yet".into(),
                    Verdict::Notice,
                ),
            },
            (Err(error), true) => (
                format!("running, but does not answer: {error}"),
                Verdict::Unknown,
            ),
            (Err(_), false) => ("does not run".into(), Verdict::Bad),
        };
        Finding::new("service", value, threshold, verdict)
    }

    /// Fingerprint of the environment: machines that share it may share a problem.
    fn environment(&self) -> Finding {
        let read = |path: &str| platform::read_small(Path::new(path)).unwrap_or_default();
        let system = std::fs::read_to_string("/etc/os-release")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|l| l.starts_with("PRETTY_NAME="))?;
                Some(line["PRETTY_NAME=".len()..].trim_matches('"').to_owned())
            })
            .unwrap_or_else(|| std::env::consts::OS.to_owned());
        let facts = format!(
            "{system}, kernel {}, {}, agent {}, {}",
            read("/proc/sys/kernel/osrelease"),
            std::env::consts::ARCH,
            crate::VERSION,
            self.config.backend.word(),
        );
        let print = tidegate_delta::sha256(facts.as_bytes()).to_string();
        let value = format!("{} ({facts})", print.get(..12).unwrap_or_default());
        Finding::new("environment", value, "known", Verdict::Good)
    }
}

/// Expiry of signed metadata, in seconds since the epoch.
fn expiry(bytes: &[u8]) -> Option<i64> {
    let text = signed(bytes, "expires")?;
    text.parse().ok().map(jiff::Timestamp::as_second)
}

/// Text of a field of signed metadata.
fn signed(bytes: &[u8], field: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value["signed"][field].as_str().map(str::to_owned)
}

fn memory() -> Finding {
    let threshold = format!("below {MEMORY} %");
    let Some((total, available)) = platform::memory() else {
        return Finding::new("memory", "cannot be told", threshold, Verdict::Unknown);
    };
    let used = total.saturating_sub(available) * 100 / total.max(1);
    let value = format!("{used} % of {} MiB in use", total >> 10);
    Finding::new("memory", value, threshold, notice_unless(used < MEMORY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_of_signed_metadata_is_read() {
        let bytes = br#"{"signed":{"expires":"2030-01-02T03:04:05Z"}}"#;
        assert_eq!(expiry(bytes), Some(1_893_553_445));
        assert_eq!(expiry(b"{}"), None);
        assert_eq!(expiry(b"rubbish"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_room_beside_a_program_on_another_file_system_is_told_and_what_a_cut_left_there_is_removed()
     {
        let state = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir_in("/dev/shm").ok();
        let other = other.filter(|other| platform::is_elsewhere(other.path(), state.path()));
        let Some(other) = other else {
            println!("skipped: /dev/shm is not another file system");
            return;
        };
        let text = r#"{"server": "http://a:1", "device": "dev_00000000000000000000000000000000",
            "name": "n", "product": "app", "platform": "linux-arm", "channel": "stable"}"#;
        let mut config: Config = serde_json::from_str(text).unwrap();
        let record = Record::new();
        let mut look = |path: PathBuf| {
            config.backend = BackendSettings::Executable { path };
            let machine = Machine {
                state: state.path(),
                config: &config,
                record: Some(&record),
                damage: None,
                runs: false,
                own: false,
            };
            let told = machine.space_elsewhere();
            (told, machine.leftovers())
        };
        let half = other.path().join(".app.tidegate-new");
        std::fs::write(&half, "half").unwrap();
        let (told, left) = look(other.path().join("app"));
        let told = told.unwrap();
        assert_eq!(told.check, "space");
        assert!(told.value.contains("free in /dev/shm/"), "{told:?}");
        assert!(left.unwrap().repaired.is_some());
        assert!(!half.exists());
        // On the agent's own file system it would be the same line twice.
        assert_eq!(look(state.path().join("app")).0, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_a_share() {
        let finding = memory();
        assert!(finding.value.contains(" % of "), "{finding:?}");
    }
}
