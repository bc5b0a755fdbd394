//! Choice of the payload to fetch for an image: the one with the shortest total wait.

use tidegate_protocol::{Abilities, Encoding, Sha256};

/// Payloads that a rollout may fetch over links that cost by the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metered {
    /// Anything.
    Allow,
    /// Deltas only.
    DeltasOnly,
    /// Nothing.
    Never,
}

tidegate_protocol::words!(Metered("metered policy") {
    Allow = "allow",
    DeltasOnly = "deltas_only",
    Never = "never",
});

/// One way to fetch an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Encoding of the payload.
    pub encoding: Encoding,
    /// The image that it starts from; `None` for a full payload.
    pub from: Option<Sha256>,
    /// Bytes to fetch.
    pub bytes: u64,
    /// Memory needed to decode it, in bytes.
    pub memory: u64,
    /// Bits that the decoder's models have to decode.
    pub work: u64,
}

/// Reason a device cannot use a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It starts from an image other than the installed one.
    OtherImage,
    /// The device does not know the encoding.
    UnknownEncoding,
    /// It needs more memory than the device has for it.
    Memory,
    /// The device may fetch deltas only.
    DeltasOnly,
}

/// Memory assumed when a device reports none, in bytes.
const MEMORY: u64 = 12 << 20;
/// Link speed assumed when none is known, in bytes per second: slow, so that size counts.
const LINK: u64 = 250_000;
/// Decoding speed assumed when a device reports none, in bits per second: a small processor.
const BITS: u64 = 1_000_000;

/// Checks whether a device that runs the image `installed` can use a way.
pub fn is_open(
    way: &Way,
    abilities: &Abilities,
    installed: Option<Sha256>,
    deltas_only: bool,
) -> Result<(), Closed> {
    if way.from.is_none() && deltas_only {
        return Err(Closed::DeltasOnly);
    }
    if way.from.is_some() && way.from != installed {
        return Err(Closed::OtherImage);
    }
    let known = if abilities.encodings.is_empty() {
        matches!(
            way.encoding,
            Encoding::Raw | Encoding::Full | Encoding::Bsdiff
        )
    } else {
        abilities
            .encodings
            .iter()
            .any(|name| name == way.encoding.as_str())
    };
    if !known {
        return Err(Closed::UnknownEncoding);
    }
    let memory = match abilities.memory_kib {
        0 => MEMORY,
        kib => u64::from(kib) << 10,
    };
    if way.memory > memory {
        return Err(Closed::Memory);
    }
    Ok(())
}

/// Cost of a way for a device: milliseconds to fetch its bytes over the link and then to decode its
/// bits. On a metered link the cost is the bytes alone.
pub fn cost(way: &Way, abilities: &Abilities, metered: bool) -> u64 {
    let link = match abilities.link {
        0 => LINK,
        link => link,
    };
    if metered {
        return way.bytes;
    }
    let bits = match abilities.kilobits {
        0 => BITS,
        kilobits => u64::from(kilobits) * 1000,
    };
    let fetching = u128::from(way.bytes) * 1000 / u128::from(link);
    let decoding = u128::from(way.work) * 1000 / u128::from(bits);
    u64::try_from(fetching + decoding).unwrap_or(u64::MAX)
}

/// Returns the ways that a device can use, in the order to try them: shortest wait first, then
/// fewest bytes. After the first full payload, which needs no old image, only full ones follow, in
/// case that one is damaged.
pub fn order<T>(
    ways: impl IntoIterator<Item = (Way, T)>,
    abilities: &Abilities,
    installed: Option<Sha256>,
    metered: bool,
    deltas_only: bool,
) -> Vec<T> {
    let mut open: Vec<(u64, u64, bool, T)> = ways
        .into_iter()
        .filter(|(way, _)| is_open(way, abilities, installed, deltas_only).is_ok())
        .map(|(way, what)| {
            let wait = cost(&way, abilities, metered);
            (wait, way.bytes, way.from.is_none(), what)
        })
        .collect();
    open.sort_by_key(|(wait, bytes, ..)| (*wait, *bytes));
    let mut seen_full = false;
    open.retain(|(_, _, full, _)| {
        let keep = *full || !seen_full;
        seen_full |= *full;
        keep
    });
    open.into_iter().map(|(_, _, _, what)| what).collect()
}

/// Returns whether a delta may still be used: a device runs its source image, or one may yet come to run it
/// and the target is still offered. `living` tells whether an image belongs to a release that is
/// neither at its end of life nor withdrawn. A device on the source is enough by itself: a target
/// at its end of life may still be a stepping stone for it.
pub fn is_of_use(
    from: Sha256,
    to: Sha256,
    running: impl Fn(Sha256) -> bool,
    living: impl Fn(Sha256) -> bool,
) -> bool {
    running(from) || living(from) && living(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_of_use_while_someone_runs_its_start_or_both_ends_live() {
        let (old, new) = (image(1), image(2));
        let of_use = |runs: bool, lives: [bool; 2]| {
            is_of_use(old, new, |_| runs, |i| lives[usize::from(i == new)])
        };
        assert!(of_use(false, [true, true]));
        assert!(of_use(true, [false, false]));
        assert!(!of_use(false, [false, true]));
        assert!(!of_use(false, [true, false]));
    }

    fn image(byte: u8) -> Sha256 {
        Sha256::from_bytes([byte; 32])
    }

    fn way(encoding: Encoding, bytes: u64, memory: u64, work: u64) -> Way {
        Way {
            encoding,
            from: encoding.is_delta().then(|| image(1)),
            bytes,
            memory,
            work,
        }
    }

    fn ways() -> Vec<(Way, Encoding)> {
        [
            way(Encoding::Full, 8_000_000, 10 << 20, 0),
            way(Encoding::Quick, 2_700_000, 7 << 20, 500_000),
            way(Encoding::Dense, 2_000_000, 14 << 20, 44_000_000),
            way(Encoding::Raw, 24_000_000, 0, 0),
        ]
        .into_iter()
        .map(|way| (way, way.encoding))
        .collect()
    }

    fn able(memory_kib: u32, kilobits: u32, link: u64) -> Abilities {
        Abilities {
            encodings: ["raw", "full", "quick", "dense", "sparkling"]
                .map(str::to_owned)
                .to_vec(),
            memory_kib,
            kilobits,
            link,
        }
    }

    fn choice(abilities: &Abilities, metered: bool) -> Vec<Encoding> {
        order(ways(), abilities, Some(image(1)), metered, false)
    }

    #[test]
    fn a_slow_link_wants_the_smallest_and_a_fast_one_the_quickest() {
        use Encoding::{Dense, Full, Quick, Raw};
        let slow = able(15 << 10, 5_000, 20_000);
        assert_eq!(choice(&slow, false), [Dense, Quick, Full, Raw]);
        let fast = able(15 << 10, 5_000, 12_000_000);
        assert_eq!(choice(&fast, false), [Quick, Full, Raw]);
        // On a metered link bytes cost money.
        assert_eq!(choice(&able(15 << 10, 5_000, 12_000_000), true)[0], Dense);
    }

    #[test]
    fn what_the_device_cannot_do_is_not_told() {
        use Encoding::{Dense, Full, Quick, Raw};
        assert_eq!(choice(&able(8 << 10, 5_000, 20_000), false), [Quick, Raw]);
        let old = Abilities::default();
        assert_eq!(choice(&old, false), [Full, Raw]);
        let other = order(ways(), &able(15 << 10, 1, 1), Some(image(2)), false, false);
        assert_eq!(other, [Full, Raw]);
        let deltas = order(
            ways(),
            &able(15 << 10, 5_000, 20_000),
            Some(image(1)),
            false,
            true,
        );
        assert_eq!(deltas, [Dense, Quick]);
    }

    #[test]
    fn each_closed_way_has_its_reason() {
        let dense = way(Encoding::Dense, 1, 14 << 20, 1);
        let full = way(Encoding::Full, 1, 0, 0);
        let able = able(8 << 10, 1, 1);
        let installed = Some(image(1));
        assert_eq!(
            is_open(&dense, &able, installed, false),
            Err(Closed::Memory)
        );
        assert_eq!(is_open(&dense, &able, None, false), Err(Closed::OtherImage));
        assert_eq!(is_open(&full, &able, None, true), Err(Closed::DeltasOnly));
        let old = Abilities::default();
        assert_eq!(
            is_open(&dense, &old, installed, false),
            Err(Closed::UnknownEncoding)
        );
    }
}
