//! What this device can do with payloads: told with each check-in, so that the server can choose
//! what takes the least time here.

use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_delta::Limits;
use tidegate_protocol::{Abilities, Encoding};

use crate::platform;

/// Smallest download that says something about the link, in bytes.
const ENOUGH: u64 = 256 << 10;

/// Where the speed is kept: a machine's does not change, and the first word to the server waits for
/// it.
const FILE: &str = "measured";

/// What this device can do: its speed as it was measured once.
pub(super) fn known(state: &Path) -> Abilities {
    let path = state.join(FILE);
    let kept = platform::read_small(&path).and_then(|text| text.parse().ok());
    if let Some(kilobits) = kept.filter(|kilobits| *kilobits > 0) {
        return with(kilobits);
    }
    let measured = measure();
    // It is measured again where it cannot be kept, or a power cut took it.
    let _ = std::fs::write(&path, measured.kilobits.to_string());
    measured
}

/// Measures how fast models decode here: some milliseconds of work, and some MiB that are given
/// back.
fn measure() -> Abilities {
    let begun = Instant::now();
    let bits = tidegate_delta::decode_sample();
    let took = begun.elapsed().as_micros().max(1);
    let kilobits = u128::from(bits) * 1000 / took;
    with(u32::try_from(kilobits).unwrap_or(u32::MAX))
}

fn with(kilobits: u32) -> Abilities {
    Abilities {
        // What the engine of this agent knows it can apply.
        encodings: Encoding::ALL.iter().map(ToString::to_string).collect(),
        memory_kib: u32::try_from(Limits::default().max_memory >> 10).unwrap_or(u32::MAX),
        kilobits,
        link: 0,
    }
}

/// Bytes a second of a download, if it was long enough to tell.
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
        let abilities = known(dir.path());
        assert!(abilities.kilobits > 0);
        assert_eq!(known(dir.path()), abilities);
        std::fs::write(dir.path().join(FILE), "rubbish").unwrap();
        assert!(known(dir.path()).kilobits > 0);
        assert!(abilities.encodings.iter().any(|e| e == "dense"));
        assert_eq!(link(1 << 20, Duration::from_secs(2)), Some(1 << 19));
        assert_eq!(link(1000, Duration::from_millis(1)), None);
    }
}
