//! The diagnosis that a support engineer would make, by the machine itself.
//!
//! Each finding has a value, what it should be, a verdict, and the key of its fix in
//! `docs/doctor.md`. What is safe to mend is mended: leftovers of a staging that was cut, a damaged
//! copy where the other one is whole. Nothing that runs is ever touched.

mod certificate;
mod machine;
mod network;
#[cfg(target_os = "linux")]
mod socket;

use std::path::Path;
use std::time::Duration;

use tidegate_protocol::{Finding, Verdict};

use crate::config::{self, Config, ConfigError};
use crate::fs;
use crate::journal::Journal;
use crate::log;
use crate::tls::TlsClock;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Looks at everything. `own` says that it is the running agent that looks: what belongs to it
/// alone is not looked at from outside, and not mended.
pub(crate) async fn examine(state: &Path, own: bool) -> Vec<Finding> {
    let looked = tokio::time::timeout(PATIENCE, all(state, own)).await;
    looked.unwrap_or_else(|_| {
        let value = format!("no end within {} s", PATIENCE.as_secs());
        vec![Finding::new("doctor", value, "an end", Verdict::Bad)]
    })
}

async fn all(state: &Path, own: bool) -> Vec<Finding> {
    let config = match Config::load(state) {
        Ok(config) => config,
        Err(error) => return vec![bad("configuration", &error)],
    };
    let mut findings = vec![Finding::new(
        "configuration",
        format!("device {} at {}", config.device, config.server),
        "readable",
        Verdict::Good,
    )];
    // An agent that runs holds the lock; then nothing of its folder is mended by others.
    let lock = if own { None } else { Some(config::lock(state)) };
    let runs = own || matches!(lock, Some(Err(ConfigError::Busy(_))));
    let journal = Journal::open_enrolled(fs::system(), state);
    let record = journal.as_ref().ok().map(Journal::record).cloned();
    let looked = tokio::task::spawn_blocking({
        let (state, config, record) = (state.to_owned(), config.clone(), record.clone());
        let damage = journal.err().map(|error| log::chain(&error));
        move || {
            let at = machine::Machine {
                state: &state,
                config: &config,
                record: record.as_ref(),
                damage,
                runs,
                own,
            };
            at.look()
        }
    });
    findings.extend(looked.await.unwrap_or_default());
    let clock = TlsClock {
        floor: record.map(|record| record.time_floor).unwrap_or_default(),
        trusted: config.clock_trusted,
    };
    for server in config.endpoints() {
        findings.extend(network::look(server, &config, clock).await);
    }
    findings
}

fn bad(check: &str, error: &(dyn std::error::Error + 'static)) -> Finding {
    Finding::new(check, log::chain(error), "readable", Verdict::Bad)
}

/// A verdict of a bound that is kept or not.
fn notice_unless(kept: bool) -> Verdict {
    if kept { Verdict::Good } else { Verdict::Notice }
}

fn bad_unless(kept: bool) -> Verdict {
    if kept { Verdict::Good } else { Verdict::Bad }
}

/// The findings for a person, what is wrong first.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let mut text = String::new();
    for finding in sorted {
        text += &format!(
            "{:<8} {:<14} {}",
            finding.verdict, finding.check, finding.value
        );
        if finding.verdict >= Verdict::Notice {
            text += &format!("; should be: {}; see {}", finding.threshold, finding.key);
        }
        if let Some(repaired) = &finding.repaired {
            text += &format!(" [mended: {repaired}]");
        }
        text += "\n";
    }
    text
}
