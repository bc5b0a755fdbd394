//! The diagnosis that a support engineer would make, made by the machine itself.
//!
//! Each finding has a value, the expected value, a verdict, and the key of its fix in
//! `docs/reference/doctor.md`. What is safe to repair is repaired: leftovers of an interrupted staging, a
//! damaged copy whose other copy is intact. Nothing that runs is ever touched.

mod certificate;
mod commands;
mod decoder;
mod machine;
mod network;
#[cfg(target_os = "linux")]
mod socket;
mod storage;
mod stuck;

use std::path::Path;
use std::time::Duration;

use tidegate_protocol::{Finding, Verdict, plain};

use crate::fs;
use crate::fs::journal::{self, Journal};
use crate::log;
use crate::net::download::{UNUSED, Unused};
use crate::net::tls::TlsClock;
use crate::people::config::{self, Config};

/// Deadline of the whole examination.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs all checks. `own` means that the running agent itself is asking: then its service is not
/// checked from outside, and nothing in its folder is repaired.
pub(crate) async fn examine(state: &Path, own: bool) -> Vec<Finding> {
    let looked = tokio::time::timeout(PATIENCE, all(state, own)).await;
    looked.unwrap_or_else(|_| {
        let value = format!("not finished within {} s", PATIENCE.as_secs());
        vec![Finding::new(
            "doctor",
            value,
            "finished in time",
            Verdict::Bad,
        )]
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
    // A running agent holds the lock: then nobody else repairs anything in its folder. A lock that
    // cannot be asked for may be held as well.
    let lock = if own { None } else { Some(config::lock(state)) };
    let runs = own || !matches!(lock, Some(Ok(_)));
    let journal = journal::open_enrolled(fs::system(), state);
    let record = journal.as_ref().ok().map(Journal::draft);
    let floor = record.as_ref().map(|record| record.time_floor);
    let looked = crate::host::threads::run({
        let (state, config) = (state.to_owned(), config.clone());
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
        floor: floor.unwrap_or_default(),
        trusted: config.clock_trusted,
    };
    for server in config.endpoints() {
        findings.extend(network::look(server, &config, clock).await);
    }
    findings.extend(mirrors(state));
    findings
}

/// Mirrors that the agent does not use, as it has noted them; nothing if it uses all of them.
fn mirrors(state: &Path) -> Vec<Finding> {
    let noted = fs::system().read(&state.join(UNUSED), 64 << 10);
    let noted = noted.ok().flatten();
    let unused: Vec<Unused> = noted
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let finding = |unused: Unused| {
        let Unused { mirror, why, since } = unused;
        let value = plain(&format!("{mirror}: {why} (since {since})"));
        Finding::new("mirrors", value, "each serves blobs", Verdict::Notice)
    };
    unused.into_iter().map(finding).collect()
}

fn bad(check: &str, error: &(dyn std::error::Error + 'static)) -> Finding {
    Finding::new(check, log::chain(error), "readable", Verdict::Bad)
}

/// Verdict on a bound: good if it is kept, else a notice.
fn notice_unless(kept: bool) -> Verdict {
    if kept { Verdict::Good } else { Verdict::Notice }
}

fn bad_unless(kept: bool) -> Verdict {
    if kept { Verdict::Good } else { Verdict::Bad }
}

/// Formats the findings for a person, worst first.
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
            text += &format!("; expected: {}; see {}", finding.threshold, finding.key);
        }
        if let Some(repaired) = &finding.repaired {
            text += &format!(" [repaired: {repaired}]");
        }
        text += "\n";
    }
    text
}
