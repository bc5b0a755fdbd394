//! A payload reproduces its image, and never anything else.

use proptest::prelude::*;
use tidegate_delta::{
    Applier, ApplyError, Limits, Manifest, ReadAt, make_bsdiff, make_full, make_raw, sha256,
};

fn chunks<'a>(manifest: &Manifest, payload: &'a [u8]) -> Vec<&'a [u8]> {
    let mut rest = payload;
    let mut out = Vec::new();
    for chunk in &manifest.chunks {
        let (head, tail) = rest.split_at(chunk.length as usize);
        out.push(head);
        rest = tail;
    }
    out
}

fn apply(manifest: &Manifest, payload: &[u8], old: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let old: &dyn ReadAt = &OldImage(old);
    let mut applier = Applier::new(manifest, Some(old), Vec::new(), &Limits::default())?;
    for chunk in chunks(manifest, payload) {
        applier.push_chunk(chunk)?;
    }
    applier.finish()
}

struct OldImage<'a>(&'a [u8]);

impl ReadAt for OldImage<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// Bytes with structure, so that a delta finds something to copy.
fn image() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
        .prop_map(|parts| parts.concat())
}

fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (
        image(),
        image(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(old, insert, at, cut)| {
            let at = if old.is_empty() {
                0
            } else {
                at.index(old.len())
            };
            let mut new = old[..at].to_vec();
            new.extend(&insert);
            let from = if old.is_empty() {
                0
            } else {
                cut.index(old.len())
            };
            new.extend(&old[from..]);
            (old, new)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_encoding_gives_the_image_back((old, new) in edited()) {
        let raw = make_raw(&mut &new[..]).unwrap();
        prop_assert_eq!(&apply(&raw, &new, &old).unwrap(), &new);

        let mut payload = Vec::new();
        let full = make_full(&mut &new[..], &mut payload, Limits::FULL_CHUNK).unwrap();
        prop_assert_eq!(&apply(&full, &payload, &old).unwrap(), &new);

        let mut payload = Vec::new();
        let delta = make_bsdiff(&old, &new, &mut payload).unwrap();
        prop_assert_eq!(&apply(&delta, &payload, &old).unwrap(), &new);
    }

    /// The applier of the `bsdiff` crate is the oracle of ours.
    #[test]
    fn our_applier_agrees_with_the_bsdiff_crate((old, new) in edited()) {
        let mut payload = Vec::new();
        let manifest = make_bsdiff(&old, &new, &mut payload).unwrap();
        let stream = zstd::stream::decode_all(&payload[..]).unwrap();
        let mut expected = Vec::new();
        bsdiff::patch(&old, &mut &stream[..], &mut expected).unwrap();
        prop_assert_eq!(apply(&manifest, &payload, &old).unwrap(), expected);
    }

    /// A control stream that an attacker wrote, correctly chunked and hashed: the decoder must
    /// refuse it or make exactly the promised image, without panic or over-long output.
    #[test]
    fn a_hostile_control_stream_never_gives_a_wrong_image(
        old in image(),
        stream in prop::collection::vec(any::<u8>(), 0..400),
        small in prop::collection::vec((0u64..64, 0u64..64, -64i64..64), 0..6),
        promise in 0u64..300,
    ) {
        let mut shaped = Vec::new();
        for (add, copy, seek) in small {
            shaped.extend(add.to_le_bytes());
            shaped.extend(copy.to_le_bytes());
            let magnitude = seek.unsigned_abs() | if seek < 0 { 1 << 63 } else { 0 };
            shaped.extend(magnitude.to_le_bytes());
            shaped.extend(vec![1; usize::try_from(add + copy).unwrap()]);
        }
        for stream in [stream, shaped] {
            let payload = zstd::stream::encode_all(&stream[..], 1).unwrap();
            let mut manifest = make_bsdiff(&old, b"", &mut Vec::new()).unwrap();
            let described = make_raw(&mut &payload[..]).unwrap();
            manifest.chunks = described.chunks;
            manifest.payload = described.payload;
            manifest.to.length = promise;
            manifest.to.sha256 = sha256(b"something else");
            prop_assert!(apply(&manifest, &payload, &old).is_err());
        }
    }
}

#[test]
fn a_changed_byte_in_a_chunk_is_refused_before_decoding() {
    let (old, new) = (vec![1; 5_000], vec![2; 6_000]);
    let mut payload = Vec::new();
    let manifest = make_bsdiff(&old, &new, &mut payload).unwrap();
    payload[10] ^= 1;
    let refused = apply(&manifest, &payload, &old);
    assert!(
        matches!(refused, Err(ApplyError::ChunkCorrupt { index: 0, .. })),
        "{refused:?}"
    );
}

#[test]
fn a_payload_that_makes_more_than_promised_is_stopped() {
    let mut payload = Vec::new();
    let mut manifest =
        make_full(&mut &vec![0; 1 << 20][..], &mut payload, Limits::FULL_CHUNK).unwrap();
    manifest.to.length = 1_000;
    let refused = apply(&manifest, &payload, b"");
    assert!(matches!(refused, Err(ApplyError::TooLong)), "{refused:?}");
}

#[test]
fn a_truncated_payload_is_refused() {
    let mut payload = Vec::new();
    let manifest = make_full(&mut &vec![3; 1 << 20][..], &mut payload, Limits::FULL_CHUNK).unwrap();
    let applier = Applier::new(&manifest, None, Vec::new(), &Limits::default()).unwrap();
    assert!(matches!(
        applier.finish(),
        Err(ApplyError::MissingChunks { got: 0, .. })
    ));
}

#[test]
fn a_window_larger_than_allowed_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.long_distance_matching(true).unwrap();
    let image = vec![9; 40 << 20];
    std::io::Write::write_all(&mut encoder, &image).unwrap();
    let payload = encoder.finish().unwrap();
    let described = make_raw(&mut &payload[..]).unwrap();
    let mut manifest = make_full(&mut &image[..], &mut Vec::new(), Limits::FULL_CHUNK).unwrap();
    manifest.chunks = described.chunks;
    manifest.payload = described.payload;
    let refused = apply(&manifest, &payload, b"");
    assert!(
        matches!(refused, Err(ApplyError::Decompress(_))),
        "{refused:?}"
    );
}

#[test]
fn a_delta_against_another_base_does_not_make_the_image() {
    let old: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
    let mut new = old.clone();
    new[100] = 0;
    let mut payload = Vec::new();
    let manifest = make_bsdiff(&old, &new, &mut payload).unwrap();
    let other: Vec<u8> = old.iter().map(|b| b ^ 0xff).collect();
    assert!(matches!(
        apply(&manifest, &payload, &other),
        Err(ApplyError::WrongImage)
    ));
}
