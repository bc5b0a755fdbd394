//! Statements that a device signs in addition to its requests: reports, and a change of its key.

use tidegate_protocol::{DeviceId, Report};

use crate::{KeyError, PublicKey, SecretKey, TrustError, canonical};

/// Bytes under a report's signature: a line that states what it is and the device, then the
/// report's canonical JSON without the signature.
fn statement(device: DeviceId, report: &Report) -> Result<Vec<u8>, TrustError> {
    let unsigned = Report {
        signature: None,
        ..report.clone()
    };
    let mut bytes = format!("tidegate-report-v1 {device}\n").into_bytes();
    bytes.extend(canonical::to_bytes("report", &unsigned)?);
    Ok(bytes)
}

/// Signs a report.
pub fn sign_report(
    key: &SecretKey,
    device: DeviceId,
    report: Report,
) -> Result<Report, TrustError> {
    let signature = Some(hex::encode(key.sign(&statement(device, &report)?)));
    Ok(Report {
        signature,
        ..report
    })
}

/// Checks a report's signature.
pub fn verify_report(key: &PublicKey, device: DeviceId, report: &Report) -> Result<(), KeyError> {
    let signature = report
        .signature
        .as_deref()
        .and_then(|text| hex::decode(text).ok())
        .ok_or(KeyError::Signature)?;
    // Nobody can have signed what has no canonical form.
    let statement = statement(device, report).map_err(|_| KeyError::Signature)?;
    key.verify(&statement, &signature)
}

/// Bytes that a device's new key signs, so that nobody announces a key that belongs to another.
pub fn key_change(device: DeviceId, counter: u64, old: &PublicKey, new: &PublicKey) -> Vec<u8> {
    format!("tidegate-key-change-v1 {device} {counter} {old} {new}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_protocol::{DeploymentId, DeploymentState};

    #[test]
    fn a_report_is_bound_to_device_key_and_every_field() {
        let device = DeviceId::from_random([1; 16]);
        let key = SecretKey::from_seed([2; 32]);
        let report = Report {
            seq: 7,
            deployment: DeploymentId::from_random([3; 16]),
            state: DeploymentState::Succeeded,
            reason: None,
            release: Some("1.2.3".parse().unwrap()),
            image: None,
            bytes_downloaded: 5,
            downtime_ms: None,
            signature: None,
        };
        let signed = sign_report(&key, device, report.clone()).unwrap();
        verify_report(&key.public(), device, &signed).unwrap();
        assert!(verify_report(&key.public(), device, &report).is_err());
        let other = SecretKey::from_seed([4; 32]).public();
        assert!(verify_report(&other, device, &signed).is_err());
        let elsewhere = DeviceId::from_random([9; 16]);
        assert!(verify_report(&key.public(), elsewhere, &signed).is_err());
        let changed = Report {
            state: DeploymentState::RolledBack,
            ..signed
        };
        assert!(verify_report(&key.public(), device, &changed).is_err());
    }
}
