//! Reports of devices: accepted only signed, acknowledged only after their commit.

use tidegate_protocol::{DeviceId, ReportBatch, ReportsAccepted};
use tidegate_trust::{PublicKey, verify_report};

use crate::CoreError;
use crate::app::App;
use crate::queue::{Write, Written};

impl App {
    /// Takes reports; they are acknowledged after their commit.
    pub async fn take_reports(
        &self,
        device: DeviceId,
        batch: ReportBatch,
    ) -> Result<ReportsAccepted, CoreError> {
        if batch.reports.len() > ReportBatch::MAX {
            let text = format!("at most {} reports at once", ReportBatch::MAX);
            return Err(CoreError::invalid(text));
        }
        self.check_signatures(device, &batch)?;
        self.metrics.reports.inc_by(batch.reports.len() as u64);
        let actor = self.device_actor(device);
        let write = Write::Reports(batch.reports);
        match self.writer.write(actor, device, write).await? {
            Written::Acknowledged(acknowledged) => {
                if let Some(entry) = self.fleet.device(device) {
                    // The next answer says it: an older number would have the device send it again.
                    let mut state = entry.lock();
                    state.device.report_seq = state.device.report_seq.max(acknowledged);
                }
                Ok(ReportsAccepted { acknowledged })
            }
            Written::Offered(_) | Written::NoPermit | Written::Outdated | Written::Done => {
                Err(CoreError::invalid("the reports were not accepted"))
            }
        }
    }

    /// Checks that each report is signed by the device it is about.
    fn check_signatures(&self, device: DeviceId, batch: &ReportBatch) -> Result<(), CoreError> {
        let entry = self
            .fleet
            .device(device)
            .ok_or_else(|| CoreError::not_found("such device"))?;
        let key = entry.lock().device.public_key.clone();
        let key: PublicKey = key.parse().map_err(CoreError::invalid)?;
        for report in &batch.reports {
            verify_report(&key, device, report).map_err(|_| {
                let seq = report.seq;
                CoreError::invalid(format!("report {seq} is not signed by this device"))
            })?;
        }
        Ok(())
    }
}
