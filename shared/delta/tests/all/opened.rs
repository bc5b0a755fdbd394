//! Images that contain compressed streams: unpacked to be compared, repacked to the same bytes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use tidegate_delta::{
    Applier, ApplyError, DeltaOptions, Encoding, Kept, Limits, Manifest, ReadAt, make_delta,
};

const BOTH: [Encoding; 2] = [Encoding::Quick, Encoding::Dense];

/// Text that differs a little from one version to the next.
fn text(seed: u32, lines: u32, version: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut state = seed;
    for line in 0..lines {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let word = if line % 97 == 0 { version } else { 0 };
        writeln!(out, "key.{} = value {} of {word}", state >> 20, state >> 9).unwrap();
    }
    out
}

fn deflated(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The members of a zip; the directory at its end does not matter here.
fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in members {
        let packed = deflated(bytes, 6);
        out.extend_from_slice(b"PK\x03\x04\x14\0\0\0\x08\0");
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

fn archive(version: u32) -> Vec<u8> {
    let names: Vec<String> = (0..12).map(|i| format!("member-{i}")).collect();
    let members: Vec<(&str, Vec<u8>)> = (0..12u32)
        .zip(&names)
        // Half of them are unchanged.
        .map(|(i, name)| (name.as_str(), text(i, 900, version * (i % 2))))
        .collect();
    zip(&members)
}

fn make(old: &[u8], new: &[u8], options: &DeltaOptions<'_>) -> (Manifest, Vec<u8>) {
    let mut payload = Vec::new();
    let manifest = make_delta(old, new, &mut payload, options).unwrap();
    (manifest, payload)
}

fn apply(
    old: &[u8],
    kept: &[u8],
    manifest: &Manifest,
    payload: &[u8],
) -> Result<Vec<u8>, ApplyError> {
    let (limits, scratch) = (Limits::default(), tempfile::tempfile().unwrap());
    let there = Kept {
        bytes: &kept,
        length: kept.len() as u64,
    };
    let old = Some(&old as &dyn ReadAt);
    let mut applier =
        Applier::resuming(manifest, old, Some(there), Vec::new(), &limits)?.with_scratch(&scratch);
    let mut rest = Cursor::new(payload);
    for chunk in &manifest.chunks {
        let mut bytes = vec![0; chunk.length as usize];
        std::io::Read::read_exact(&mut rest, &mut bytes).unwrap();
        applier.push_chunk(&bytes)?;
    }
    applier.finish()
}

#[test]
fn what_is_packed_is_compared_unpacked() {
    for (old, new) in [
        (archive(1), archive(2)),
        (gzipped(&text(7, 4_000, 1)), gzipped(&text(7, 4_000, 2))),
    ] {
        for encoding in BOTH {
            let (manifest, payload) = make(&old, &new, &DeltaOptions::new(encoding));
            assert!(manifest.scratch > 0);
            assert!(manifest.memory <= Limits::MEMORY, "{}", manifest.memory);
            assert_eq!(apply(&old, &[], &manifest, &payload).unwrap(), new);
            assert!(
                payload.len() * 8 < new.len(),
                "{encoding}: {} of {}",
                payload.len(),
                new.len()
            );
        }
    }
}

#[test]
fn what_nobody_can_pack_again_stays_packed() {
    // A stream of small stored blocks: no compressor of the library does so.
    let odd = |bytes: &[u8]| {
        let mut out = b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec();
        for piece in bytes.chunks(300) {
            out.push(0);
            let length = u16::try_from(piece.len()).unwrap();
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&(!length).to_le_bytes());
            out.extend_from_slice(piece);
        }
        out.extend_from_slice(&[1, 0, 0, 0xFF, 0xFF]);
        out
    };
    let (old, new) = (odd(&text(1, 500, 1)), odd(&text(1, 500, 2)));
    for encoding in BOTH {
        let (manifest, payload) = make(&old, &new, &DeltaOptions::new(encoding));
        assert_eq!(apply(&old, &[], &manifest, &payload).unwrap(), new);
    }
    // Truncated streams, and headers with nothing after them.
    let (old, new) = (archive(1), archive(2));
    for cut in [1, 29, 31, 600, new.len() / 2, new.len() - 1] {
        let new = &new[..cut];
        let (manifest, payload) = make(&old, new, &DeltaOptions::new(Encoding::Quick));
        assert_eq!(apply(&old, &[], &manifest, &payload).unwrap(), new);
    }
}

#[test]
fn what_would_unpack_to_more_than_allowed_stays_packed() {
    // Its end unpacks to thirty times as much as everything before it.
    let bomb = |version| [archive(version), gzipped(&vec![0; 30 << 20])].concat();
    let (old, new) = (bomb(1), [bomb(2), b"and more".to_vec()].concat());
    for (unpacked, opened) in [(1000, false), (10 << 20, true), (40 << 20, true)] {
        let options = DeltaOptions {
            unpacked,
            ..DeltaOptions::new(Encoding::Quick)
        };
        let (manifest, payload) = make(&old, &new, &options);
        // The part before the bomb is unpacked if there is room for it.
        assert_eq!(manifest.scratch > 0, opened, "{unpacked}");
        assert!(manifest.scratch < 10 << 20, "{}", manifest.scratch);
        assert_eq!(apply(&old, &[], &manifest, &payload).unwrap(), new);
    }
}

#[test]
fn an_apply_that_was_cut_goes_on_behind_any_byte() {
    let (mut old, mut new) = (archive(1), archive(2));
    old.extend_from_slice(&gzipped(&text(70, 30_000, 1)));
    new.extend_from_slice(&gzipped(&text(70, 30_000, 2)));
    for encoding in BOTH {
        let options = DeltaOptions {
            frame: 1 << 16,
            ..DeltaOptions::new(encoding)
        };
        let (manifest, payload) = make(&old, &new, &options);
        let mut cut = 0;
        while cut < new.len() {
            let rest = apply(&old, &new[..cut], &manifest, &payload).unwrap();
            assert_eq!(
                [&new[..cut], &rest].concat(),
                new,
                "{encoding} cut at {cut}"
            );
            cut += 7_001;
        }
    }
}

#[test]
fn another_old_image_or_no_file_is_an_error_and_nothing_else() {
    let (old, new) = (archive(1), archive(2));
    let (manifest, payload) = make(&old, &new, &DeltaOptions::new(Encoding::Quick));
    let mut other = old.clone();
    for at in (40..other.len()).step_by(50) {
        other[at] ^= 0x55;
    }
    assert!(apply(&other, &[], &manifest, &payload).is_err());
    assert!(apply(&old[..old.len() - 100], &[], &manifest, &payload).is_err());
    let limits = Limits::default();
    let view: &[u8] = &old;
    let mut applier =
        Applier::new(&manifest, Some(&view as &dyn ReadAt), Vec::new(), &limits).unwrap();
    let pushed = applier.push_chunk(&payload);
    assert!(matches!(pushed, Err(ApplyError::NoScratch)), "{pushed:?}");
}
