//! Results that devices report: taken only signed, acknowledged only after their commit.

use tidegate_protocol::{DeviceId, ReportBatch, ReportsAccepted};
use tidegate_trust::{PublicKey, verify_report};

use super::ServiceError;
use super::writer::{Write, Written};
use crate::app::App;

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
        match self
            .writer
            .write(device, Write::Reports(batch.reports))
            .await?
        {
            Written::Acknowledged(acknowledged) => Ok(ReportsAccepted { acknowledged }),
            Written::Offered(_) | Written::NoRoom | Written::Outdated | Written::Done => {
                Err(ServiceError::invalid("reports were not taken"))
            }
        }
    }

    /// A result counts only under the signature of the device that it is about.
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
