//! Health checks and restarts: commands with a deadline.

use std::path::PathBuf;

use tidegate_protocol::{Explained, Reason};
use tidegate_trust::Health;

use crate::install::command::{Call, Ended};

/// Where and for whom a command runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The folder of the version; commands run in it.
    pub folder: PathBuf,
    /// The release.
    pub release: String,
    /// The device's name.
    pub device_name: String,
}

/// Runs a command to its end or its deadline; on the deadline its whole process group is killed.
/// `failed` and `late` are the reasons for the two ways to go wrong.
pub fn run(
    line: &Health,
    around: &Surroundings,
    failed: Reason,
    late: Reason,
) -> Result<(), Explained> {
    let call = Call {
        line,
        arguments: &[],
        folder: &around.folder,
        environment: &[
            ("TIDEGATE_RELEASE", around.release.clone()),
            ("TIDEGATE_DEVICE_NAME", around.device_name.clone()),
        ],
    };
    match call.run() {
        Ended::Well(_) => Ok(()),
        Ended::Badly(what) => Err(Explained::new(failed, what)),
        Ended::Late => Err(Explained::new(
            late,
            format!("no answer within {} s", line.timeout_s.max(1)),
        )),
    }
}
