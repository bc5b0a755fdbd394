//! What the server of the model knows, by the domain's own state machine.

use std::collections::BTreeMap;

use tidegate_domain::deployment::{DeploymentEvent, apply};
use tidegate_protocol::{DeploymentId, DeploymentState as State, Report};

use super::VERSIONS;
use super::versions::{Versions, image_of};

/// What the server knows.
#[derive(Default)]
pub(super) struct Server {
    pub(super) deployments: Vec<Deployment>,
    pub(super) heard: BTreeMap<u64, Report>,
    /// What the device said last that it runs.
    pub(super) runs: usize,
    /// How many versions newer what it is to be offered when it asks next is.
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

    /// What comes twice is the same, or somebody lies.
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
