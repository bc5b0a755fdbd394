//! What this device can do with payloads: told with each check-in, so that the server can choose
//! what takes the least time here.

use std::time::{Duration, Instant};

use tidegate_delta::Limits;
use tidegate_protocol::{Abilities, Encoding};

/// Smallest download that says something about the link, in bytes.
const ENOUGH: u64 = 256 << 10;

/// Measures how fast models decode here: some milliseconds of work, and some MiB that are given
/// back.
pub(super) fn measure() -> Abilities {
    let begun = Instant::now();
    let bits = tidegate_delta::decode_sample();
    let took = begun.elapsed().as_micros().max(1);
    let kilobits = u128::from(bits) * 1000 / took;
    Abilities {
        // What the engine of this agent knows it can apply.
        encodings: Encoding::ALL.iter().map(ToString::to_string).collect(),
        memory_kib: u32::try_from(Limits::default().max_memory >> 10).unwrap_or(u32::MAX),
        kilobits: u32::try_from(kilobits).unwrap_or(u32::MAX),
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
        let abilities = measure();
        assert!(abilities.kilobits > 0);
        assert!(abilities.encodings.iter().any(|e| e == "dense"));
        assert_eq!(link(1 << 20, Duration::from_secs(2)), Some(1 << 19));
        assert_eq!(link(1000, Duration::from_millis(1)), None);
    }
}
