//! Reports of devices: accepted only signed, acknowledged only after their commit.

use tidegate_protocol::{DeviceId, ReportBatch, ReportsAccepted, Version};
use tidegate_trust::{PublicKey, verify_report};

use super::ServiceError;
use crate::app::App;
use crate::commit::group::{Write, Written};

impl App {
    /// Takes reports; they are acknowledged after their commit.
    pub async fn take_reports(
        &self,
        device: DeviceId,
        batch: ReportBatch,
    ) -> Result<ReportsAccepted, ServiceError> {
        if batch.reports.len() > ReportBatch::MAX {
            let text = format!("at most {} reports at once", ReportBatch::MAX);
            return Err(ServiceError::invalid(text));
        }
        self.check_signatures(device, &batch)?;
        self.metrics.reports.inc_by(batch.reports.len() as u64);
        let actor = self.device_actor(device);
        let write = Write::Reports(batch.reports);
        match self.writer.write(actor, device, write).await? {
            Written::Acknowledged(acknowledged) => Ok(ReportsAccepted { acknowledged }),
            Written::Offered(_) | Written::NoPermit | Written::Outdated | Written::Done => {
                Err(ServiceError::invalid("the reports were not accepted"))
            }
        }
    }

    /// Counts the bytes a device downloaded for a release, and those of the image it did not need
    /// to download.
    pub(crate) fn count_transfer(&self, device: DeviceId, release: &Version, bytes: u64) {
        let plan = self.fleet.plan();
        let image = self.fleet.device(device).and_then(|entry| {
            let state = entry.lock();
            let device = &state.device;
            plan.artifact(&device.product, release, &device.platform)
                .map(|artifact| artifact.image.length)
        });
        self.metrics.fetched_bytes.inc_by(bytes);
        // A download from before enrollment, or done by hand, saved nothing over the network.
        if let (Some(image), 1..) = (image, bytes) {
            self.metrics.saved_bytes.inc_by(image.saturating_sub(bytes));
        }
    }

    /// Checks that each report is signed by the device it is about.
    fn check_signatures(&self, device: DeviceId, batch: &ReportBatch) -> Result<(), ServiceError> {
        let entry = self
            .fleet
            .device(device)
            .ok_or_else(|| ServiceError::not_found("such device"))?;
        let key = entry.lock().device.public_key.clone();
        let key: PublicKey = key.parse().map_err(ServiceError::invalid)?;
        for report in &batch.reports {
            verify_report(&key, device, report).map_err(|_| {
                let seq = report.seq;
                ServiceError::invalid(format!("report {seq} is not signed by this device"))
            })?;
        }
        Ok(())
    }
}
