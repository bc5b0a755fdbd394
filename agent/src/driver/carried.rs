//! Offline updates: orders come in the folder of a site bundle, reports go back in a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidegate_machine::fsm::Phase;
use tidegate_protocol::{Bundle, CarriedReports, DeploymentState};
use tidegate_trust::{TrustError, sign_report};

use super::{Driver, DriverError, RoundError};
use crate::fs::{self, journal};
use crate::log;
use crate::people::config::Config;
use crate::people::identity;

/// Interval between checks of the rollback window.
const LOOK: Duration = Duration::from_secs(1);

/// Reason why a bundle was not applied.
#[derive(Debug, thiserror::Error)]
pub enum CarriedError {
    /// A file of the bundle cannot be read, or the reports cannot be written.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, String),
    /// The bundle has no order for this device.
    #[error(
        "the bundle has {0} orders, but none for this device ({1}): create one whose selector includes it"
    )]
    NotForUs(usize, String),
    /// The device is in the middle of something else.
    #[error("this device is in the middle of another update: {0}")]
    Busy(String),
    /// The order was refused, or the update failed.
    #[error("the bundle was refused: {0}")]
    Refused(String),
    /// The agent cannot go on.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl Driver {
    /// Applies a bundle's order for this device and returns a summary of the outcome. With `waits`,
    /// returns only when the rollback window is over.
    pub async fn apply(&mut self, folder: &Path, waits: bool) -> Result<String, CarriedError> {
        let refuse = |name: &str, what: String| CarriedError::Unreadable(folder.join(name), what);
        let read = |name: &str| {
            let bytes = self.fs.read(&folder.join(name), Bundle::MAX_BYTES);
            bytes.map_err(|e| refuse(name, e.to_string()))
        };
        let bytes = read(Bundle::FILE)?;
        let bytes = bytes.ok_or_else(|| refuse(Bundle::FILE, "is not there".into()))?;
        let bundle: Bundle =
            serde_json::from_slice(&bytes).map_err(|e| refuse(Bundle::FILE, e.to_string()))?;
        if bundle.format != Bundle::FORMAT {
            let what = format!(
                "has the format {:?}, and this agent reads {:?}: create the bundle again with a \
                 control plane of this agent's version",
                bundle.format,
                Bundle::FORMAT
            );
            return Err(refuse(Bundle::FILE, what));
        }
        let device = self.config.device;
        let name = Bundle::order(device);
        let order = read(&name)?
            .ok_or_else(|| CarriedError::NotForUs(bundle.devices, device.to_string()))?;
        let order = String::from_utf8(order).map_err(|e| refuse(&name, e.to_string()))?;
        self.bundle = Some(folder.to_owned());
        // First finish what a power cut interrupted: it may be this very bundle.
        let agenda = self.core.start().map_err(DriverError::from)?;
        self.work_off(agenda).await?;
        let before = self.journal().record().report_seq;
        let phase = &self.journal().record().phase;
        let probation = matches!(phase, Phase::Probation { .. });
        if !probation && *phase != Phase::Idle {
            return Err(CarriedError::Busy(super::describe(phase)));
        }
        // In its window a device takes one order only: back. Another one is left untaken, so that
        // its number is not used up and it can be applied afterwards.
        let (back, number) = peek(&order);
        if back || !probation {
            match self.take_assignment(&order, None).await {
                // This very bundle, which a power cut interrupted: its window is still open.
                Err(RoundError::Trust(TrustError::WrongCounter { .. })) if probation => {}
                Ok(()) => {}
                Err(RoundError::Fatal(error)) => return Err(error.into()),
                Err(error) => return Err(CarriedError::Refused(log::chain(&error))),
            }
        } else if number > self.journal().record().counter {
            return Err(CarriedError::Busy(super::describe(phase)));
        }
        while waits && matches!(self.journal().record().phase, Phase::Probation { .. }) {
            tokio::time::sleep(LOOK).await;
            self.count_window().await?;
        }
        let record = self.journal().record();
        let runs = record
            .running()
            .map_or_else(|| "nothing".into(), |i| i.release.to_string());
        let last = record.outbox.iter().rev().find(|r| r.seq > before);
        let state = last.map_or(DeploymentState::Succeeded, |report| report.state);
        let why = last.and_then(|report| report.reason.as_ref());
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        let said = format!("{state}{why}; running {runs}\n");
        match state {
            DeploymentState::Succeeded | DeploymentState::Probation => Ok(said),
            // Back because it was ordered, and not because the version was bad.
            DeploymentState::RolledBack
                if last.is_some_and(|r| {
                    r.reason.as_ref().is_none_or(|why| !why.code.is_failure())
                }) =>
            {
                Ok(said)
            }
            _ => Err(CarriedError::Refused(said.trim().to_owned())),
        }
    }
}

/// Returns whether an order says that it is one back, and the number that it says it has. Read
/// before it is verified: it decides only whether the order is tried now.
fn peek(order: &str) -> (bool, u64) {
    let order: Value = serde_json::from_slice(order.as_bytes()).unwrap_or(Value::Null);
    let signed = &order["signed"];
    let back = signed["x-assignment"]["action"].as_str() == Some("rollback");
    (back, signed["version"].as_u64().unwrap_or(0))
}

/// Writes the device's signed reports to a file, to be carried back, and returns their number.
/// Needs no lock: it changes nothing.
pub fn export(state: &Path, to: &Path) -> Result<usize, CarriedError> {
    let config = Config::load(state).map_err(DriverError::from)?;
    let fs = fs::system();
    let key = identity::identity(state).map_err(DriverError::from)?;
    let journal = journal::open_enrolled(fs.clone(), state).map_err(DriverError::from)?;
    let unwritten = |what: String| CarriedError::Unreadable(to.to_owned(), what);
    let reports = journal
        .record()
        .outbox
        .iter()
        .map(|report| sign_report(&key, config.device, report.clone()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unwritten(e.to_string()))?;
    let count = reports.len();
    let carried = CarriedReports {
        format: CarriedReports::FORMAT.into(),
        device: config.device,
        reports,
    };
    let text = serde_json::to_vec_pretty(&carried).map_err(|e| unwritten(e.to_string()))?;
    fs.replace(to, &text, fs::Mode::Plain)
        .map_err(|e| unwritten(e.to_string()))?;
    Ok(count)
}
