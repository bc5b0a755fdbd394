//! Server of the model, on the domain's own state machine.

use std::collections::BTreeMap;

use tidegate_domain::deployment::{DeploymentEvent, apply};
use tidegate_protocol::{DeploymentId, DeploymentState as State, Report};

use super::VERSIONS;
use super::versions::{Versions, image_of};

/// State of the server.
#[derive(Default)]
pub(super) struct Server {
    pub(super) deployments: Vec<Deployment>,
    pub(super) heard: BTreeMap<u64, Report>,
    /// Version that the device last said it runs.
    pub(super) runs: usize,
    /// Steps by which the version offered at the next check-in is newer; `None` for no offer.
    pub(super) wanted: Option<usize>,
}

pub(super) struct Deployment {
    pub(super) id: DeploymentId,
    pub(super) state: State,
    pub(super) target: usize,
    pub(super) from: usize,
}

impl Server {
    pub(super) fn open(&mut self) -> Option<&mut Deployment> {
        self.deployments.last_mut().filter(|d| !d.state.is_final())
    }

    /// Takes a report in. A number that comes twice must carry the same report.
    pub(super) fn hear(&mut self, report: &Report, versions: &Versions) {
        let new = report.seq > self.heard.keys().max().copied().unwrap_or(0);
        if let Some(known) = self.heard.get(&report.seq) {
            assert_eq!(known, report, "one number, two reports");
        }
        self.heard.insert(report.seq, report.clone());
        if !new {
            return;
        }
        let number = |n: &usize| report.image == Some(image_of(&versions.images[*n]).sha256);
        self.runs = (0..VERSIONS).find(number).unwrap();
        let of = |d: &&mut Deployment| d.id == report.deployment;
        if let Some(deployment) = self.deployments.iter_mut().find(of)
            && let Ok(state) = apply(deployment.state, DeploymentEvent::Reported(report.state))
        {
            deployment.state = state;
        }
    }
}
