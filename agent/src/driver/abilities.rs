//! Capabilities of this device for payloads, sent with each check-in, so that the server can choose
//! what takes the least time here.

use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_delta::Limits;
use tidegate_protocol::{Abilities, Encoding};

use crate::host::platform;

/// Smallest download from which the link speed is estimated, in bytes.
const ENOUGH: u64 = 256 << 10;

/// File that keeps the decoding speed: a machine's does not change, and the first check-in waits
/// for it.
const FILE: &str = "measured";

/// Returns this device's capabilities; the decoding speed is measured once and kept. A device that
/// decodes nothing says so, and is given whole images.
pub(super) fn known(state: &Path, decodes: bool) -> Abilities {
    let mut known = measured(state);
    if !decodes {
        known.encodings = vec![Encoding::Raw.to_string()];
    }
    known
}

fn measured(state: &Path) -> Abilities {
    let path = state.join(FILE);
    let kept = platform::read_small(&path).and_then(|text| text.parse().ok());
    if let Some(kilobits) = kept.filter(|kilobits| *kilobits > 0) {
        return with(kilobits);
    }
    let measured = measure();
    // Measured again if it cannot be kept, or if a power cut loses it.
    let _ = std::fs::write(&path, measured.kilobits.to_string());
    measured
}

/// Measures how fast models decode here: some milliseconds of work, and some MiB that are freed
/// again.
fn measure() -> Abilities {
    let begun = Instant::now();
    let bits = tidegate_delta::decode_sample();
    let took = begun.elapsed().as_micros().max(1);
    let kilobits = u128::from(bits) * 1000 / took;
    with(u32::try_from(kilobits).unwrap_or(u32::MAX))
}

fn with(kilobits: u32) -> Abilities {
    Abilities {
        // Encodings that this agent's delta engine can apply.
        encodings: Encoding::ALL.iter().map(ToString::to_string).collect(),
        memory_kib: u32::try_from(Limits::default().max_memory >> 10).unwrap_or(u32::MAX),
        kilobits,
        link: 0,
    }
}

/// Link speed in bytes per second; `None` if the download was too small to tell.
pub(super) fn link(bytes: u64, took: Duration) -> Option<u64> {
    let rate = u128::from(bytes) * 1_000_000 / took.as_micros().max(1);
    (bytes >= ENOUGH).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_measures_itself_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let abilities = known(dir.path(), true);
        assert!(abilities.kilobits > 0);
        assert_eq!(known(dir.path(), true), abilities);
        std::fs::write(dir.path().join(FILE), "rubbish").unwrap();
        assert!(known(dir.path(), true).kilobits > 0);
        assert_eq!(known(dir.path(), false).encodings, ["raw"]);
        assert!(abilities.encodings.iter().any(|e| e == "dense"));
        assert_eq!(link(1 << 20, Duration::from_secs(2)), Some(1 << 19));
        assert_eq!(link(1000, Duration::from_millis(1)), None);
    }
}
