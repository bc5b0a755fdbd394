//! `quick` and `dense`: a delta makes exactly the new image, whatever the images; an interrupted
//! apply resumes; forged bytes do no harm.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "small made-up images, and helpers of tests"
)]

use proptest::prelude::*;
use tidegate_delta::{
    Applier, ApplyError, Chunk, DeltaOptions, Encoding, Image, Kept, Limits, Manifest, ReadAt,
    make_bsdiff, make_delta, sha256,
};

const BOTH: [Encoding; 2] = [Encoding::Quick, Encoding::Dense];

fn make(old: &[u8], new: &[u8], options: &DeltaOptions<'_>) -> (Manifest, Vec<u8>) {
    let mut payload = Vec::new();
    let manifest = make_delta(old, new, &mut payload, options).unwrap();
    (manifest, payload)
}

fn push(
    applier: &mut Applier<'_, impl std::io::Write>,
    manifest: &Manifest,
    payload: &[u8],
) -> Result<(), ApplyError> {
    let mut rest = payload;
    for chunk in &manifest.chunks {
        let (bytes, behind) = rest.split_at(chunk.length as usize);
        applier.push_chunk(bytes)?;
        rest = behind;
    }
    Ok(())
}

fn apply(old: &[u8], manifest: &Manifest, payload: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let limits = Limits::default();
    let mut applier = Applier::new(manifest, Some(&old as &dyn ReadAt), Vec::new(), &limits)?;
    push(&mut applier, manifest, payload)?;
    applier.finish()
}

fn round_trip(old: &[u8], new: &[u8]) {
    for encoding in BOTH {
        let (manifest, payload) = make(old, new, &DeltaOptions::new(encoding));
        assert_eq!(apply(old, &manifest, &payload).unwrap(), new, "{encoding}");
    }
}

/// A Cortex-M image: a vector table, functions that call each other, pointers between them. `more`
/// bytes are inserted before every eighth function.
fn firmware(functions: usize, more: usize) -> Vec<u8> {
    const BASE: u32 = 0x0800_8000;
    let mut starts = Vec::new();
    let mut at = 64 * 4;
    for index in 0..functions {
        if index % 8 == 3 {
            at += more;
        }
        starts.push(at);
        at += 64;
    }
    let mut image = vec![0u8; at];
    let pointer = |index: usize| ((BASE + starts[index % functions] as u32) | 1).to_le_bytes();
    image[..4].copy_from_slice(&0x2000_8000u32.to_le_bytes());
    for vector in 1..64 {
        image[4 * vector..4 * vector + 4].copy_from_slice(&pointer(vector % 5));
    }
    let mut noise = 12_345u32;
    let mut random = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise >> 16
    };
    for (index, &start) in starts.iter().enumerate() {
        let code = &mut image[start..start + 64];
        code[..2].copy_from_slice(&[0x10, 0xB5]);
        for half in 1..16 {
            // Moves and additions of small registers.
            let word = 0x1C00 | (random() & 0x03FF) as u16;
            code[2 * half..2 * half + 2].copy_from_slice(&word.to_le_bytes());
        }
        for call in 0..4 {
            let place = 32 + 4 * call;
            let to = starts[(index * 7 + call * 31 + 1) % functions] as i64;
            let distance = (to - (start + place) as i64 - 4) as u32;
            let s = (distance >> 24) & 1;
            let j = |bit: u32| 1 ^ ((distance >> bit) & 1) ^ s;
            let first = 0xF000 | s << 10 | (distance >> 12) & 0x3FF;
            let second = 0xD000 | j(23) << 13 | j(22) << 11 | (distance >> 1) & 0x7FF;
            code[place..place + 2].copy_from_slice(&(first as u16).to_le_bytes());
            code[place + 2..place + 4].copy_from_slice(&(second as u16).to_le_bytes());
        }
        code[48..50].copy_from_slice(&[0x10, 0xBD]);
        for slot in 0..3 {
            code[52 + 4 * slot..56 + 4 * slot].copy_from_slice(&pointer(index * 3 + slot * 17));
        }
    }
    image
}

#[test]
fn references_of_code_that_moved_cost_next_to_nothing() {
    let (old, new) = (firmware(2000, 0), firmware(2000, 24));
    let mut plain = Vec::new();
    make_bsdiff(&old, &new, &mut plain).unwrap();
    for (encoding, part) in [(Encoding::Quick, 5), (Encoding::Dense, 20)] {
        let (manifest, payload) = make(&old, &new, &DeltaOptions::new(encoding));
        assert_eq!(apply(&old, &manifest, &payload).unwrap(), new);
        assert!(
            payload.len() * part < plain.len(),
            "{encoding}: {} bytes, bsdiff: {}",
            payload.len(),
            plain.len()
        );
    }
}

#[test]
fn large_tables_and_many_threads_make_the_same_image() {
    let (old, new) = (firmware(3000, 0), firmware(3000, 10));
    let mut options = DeltaOptions::new(Encoding::Dense);
    options.memory = 140 << 20;
    options.threads = 3;
    options.frame = 1 << 16;
    let (manifest, payload) = make(&old, &new, &options);
    assert!(manifest.memory > Limits::MEMORY);
    let refused = apply(&old, &manifest, &payload);
    assert!(
        matches!(refused, Err(ApplyError::Manifest(_))),
        "{refused:?}"
    );
    let limits = Limits {
        max_memory: options.memory,
        ..Limits::default()
    };
    let view: &[u8] = &old;
    let mut applier = Applier::new(&manifest, Some(&view), Vec::new(), &limits).unwrap();
    push(&mut applier, &manifest, &payload).unwrap();
    assert_eq!(applier.finish().unwrap(), new);
}

#[test]
fn the_same_images_make_the_same_payload_on_any_number_of_threads() {
    let (old, new) = (firmware(3000, 0), firmware(3000, 10));
    for encoding in BOTH {
        let mut options = DeltaOptions::new(encoding);
        options.frame = 1 << 16;
        let one = make(&old, &new, &options);
        options.threads = 4;
        assert_eq!(make(&old, &new, &options), one);
    }
}

#[test]
fn what_has_no_likeness_still_applies() {
    let noise = |seed: u32, length: usize| -> Vec<u8> {
        let mut state = seed;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    };
    round_trip(b"", b"");
    round_trip(b"", b"something");
    round_trip(b"something", b"");
    round_trip(&noise(1, 70_000), &noise(2, 90_000));
    round_trip(&vec![0; 300_000], &vec![0; 290_000]);
    let text = "fn main() { println!(\"hello\"); }\n".repeat(3000);
    round_trip(
        text.as_bytes(),
        text.replace("hello", "good bye").as_bytes(),
    );
}

#[test]
fn an_apply_that_was_cut_goes_on_where_it_was() {
    let (old, new) = (firmware(6000, 0), firmware(6000, 20));
    for encoding in BOTH {
        let mut options = DeltaOptions::new(encoding);
        options.frame = 1 << 17;
        let (manifest, payload) = make(&old, &new, &options);
        let view: &[u8] = &old;
        for length in [0, 1, 99_999, new.len() / 2, new.len() - 1, new.len()] {
            let there: &[u8] = &new[..length];
            let kept = Kept {
                bytes: &there,
                length: length as u64,
            };
            let limits = Limits::default();
            let mut applier =
                Applier::resuming(&manifest, Some(&view), Some(kept), Vec::new(), &limits).unwrap();
            push(&mut applier, &manifest, &payload).unwrap();
            assert_eq!(
                applier.finish().unwrap(),
                new[length..],
                "{encoding}, {length}"
            );
        }
        // Wrong kept bytes are detected: in a frame that is kept whole and in one that is decoded
        // again.
        for (length, at) in [
            (new.len() / 2, 5),
            (14, 3),
            (new.len() / 2, new.len() / 2 - 1),
        ] {
            let mut wrong = new[..length].to_vec();
            wrong[at] ^= 1;
            let there: &[u8] = &wrong;
            let kept = Kept {
                bytes: &there,
                length: wrong.len() as u64,
            };
            let limits = Limits::default();
            let mut applier =
                Applier::resuming(&manifest, Some(&view), Some(kept), Vec::new(), &limits).unwrap();
            let end = push(&mut applier, &manifest, &payload).and_then(|()| applier.finish());
            assert!(
                matches!(end, Err(ApplyError::WrongImage)),
                "{encoding} {length}"
            );
        }
    }
}

/// Skipping kept frames costs no decoding, which shows in the bytes read from the old image.
#[test]
fn frames_that_are_kept_are_not_decoded_again() {
    struct Counted<'a>(&'a [u8], std::cell::Cell<u64>);
    impl ReadAt for Counted<'_> {
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            self.1.set(self.1.get() + buf.len() as u64);
            self.0.read_exact_at(buf, offset)
        }
    }
    let (old, new) = (firmware(6000, 0), firmware(6000, 20));
    let mut options = DeltaOptions::new(Encoding::Dense);
    options.frame = 1 << 16;
    let (manifest, payload) = make(&old, &new, &options);
    let read = |length: usize| {
        let counted = Counted(&old, std::cell::Cell::new(0));
        let there: &[u8] = &new[..length];
        let kept = Kept {
            bytes: &there,
            length: length as u64,
        };
        let limits = Limits::default();
        let mut applier =
            Applier::resuming(&manifest, Some(&counted), Some(kept), Vec::new(), &limits).unwrap();
        push(&mut applier, &manifest, &payload).unwrap();
        applier.finish().unwrap();
        counted.1.get()
    };
    assert!(read(new.len() * 9 / 10) * 3 < read(0));
    assert_eq!(read(new.len()), 0);
}

#[test]
fn chunks_are_as_small_as_asked_for() {
    let (old, new) = (firmware(2000, 0), firmware(2600, 40));
    for encoding in BOTH {
        let options = DeltaOptions {
            chunk: 1024,
            ..DeltaOptions::new(encoding)
        };
        let (manifest, payload) = make(&old, &new, &options);
        assert!(manifest.chunks.len() > 2, "{encoding}");
        assert!(manifest.chunks.iter().all(|c| c.length <= 1024));
        assert_eq!(apply(&old, &manifest, &payload).unwrap(), new);
    }
}

#[test]
fn a_maker_that_is_told_to_stop_stops() {
    let stop = std::sync::atomic::AtomicBool::new(true);
    let mut options = DeltaOptions::new(Encoding::Dense);
    options.cancel = Some(&stop);
    let made = make_delta(b"old", b"new", Vec::new(), &options);
    assert!(matches!(made, Err(tidegate_delta::MakeError::Cancelled)));
}

/// A manifest that promises exactly these bytes, so that they reach the decoder.
fn promising(manifest: &Manifest, payload: &[u8]) -> Manifest {
    let whole = Image {
        sha256: sha256(payload),
        length: payload.len() as u64,
    };
    Manifest {
        payload: whole,
        chunks: payload
            .chunks(1 << 20)
            .map(|c| Chunk {
                length: c.len() as u32,
                sha256: sha256(c),
            })
            .collect(),
        ..manifest.clone()
    }
}

#[test]
fn padding_that_only_the_new_image_has_costs_next_to_nothing() {
    // The old image has a short run of padding, which is of no use to copy over and over.
    let mut old = firmware(300, 0);
    old.extend([0xFF; 200]);
    old.extend(b"the end");
    let mut new = firmware(300, 4);
    new.resize(new.len() + (2 << 20), 0xFF);
    let mut plain = Vec::new();
    make_bsdiff(&old, &new, &mut plain).unwrap();
    for encoding in BOTH {
        let (manifest, payload) = make(&old, &new, &DeltaOptions::new(encoding));
        assert_eq!(apply(&old, &manifest, &payload).unwrap(), new);
        assert!(
            payload.len() < plain.len(),
            "{encoding}: {} of {}",
            payload.len(),
            plain.len()
        );
    }
}

/// Number of damaged payloads that are tried; `TIDEGATE_MUTATIONS` asks for more.
fn rounds() -> u32 {
    std::env::var("TIDEGATE_MUTATIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2_000)
}

#[test]
fn damaged_payloads_are_refused_or_make_another_image_and_harm_nothing() {
    let (old, new) = (firmware(120, 0), firmware(120, 6));
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for encoding in BOTH {
        let mut options = DeltaOptions::new(encoding);
        options.frame = 1 << 16;
        let (manifest, payload) = make(&old, &new, &options);
        for _ in 0..rounds() {
            let mut bad = payload.clone();
            for _ in 0..=random() % 3 {
                let at = (random() % bad.len() as u64) as usize;
                match random() % 4 {
                    0 => bad[at] ^= 1 << (random() % 8),
                    1 => bad[at] = random() as u8,
                    2 => bad.truncate(at.max(1)),
                    _ => bad.insert(at, random() as u8),
                }
            }
            match apply(&old, &promising(&manifest, &bad), &bad) {
                Ok(made) => assert_eq!(made, new),
                Err(
                    ApplyError::Decode(_)
                    | ApplyError::WrongImage
                    | ApplyError::TooLong
                    | ApplyError::Decompress(_),
                ) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_two_images_round_trip(
        old in proptest::collection::vec(any::<u8>(), 0..3000),
        cuts in proptest::collection::vec((0usize..3000, 0usize..400, any::<u8>()), 0..12),
    ) {
        let mut new = old.clone();
        for (at, length, byte) in cuts {
            let at = at.min(new.len());
            match byte % 4 {
                0 => new.splice(at..at, std::iter::repeat_n(byte, length)).for_each(drop),
                1 => new.drain(at..(at + length).min(new.len())).for_each(drop),
                2 => {
                    let piece: Vec<u8> = old.iter().skip(length).take(200).copied().collect();
                    new.splice(at..at, piece).for_each(drop);
                }
                _ => new.iter_mut().skip(at).take(length).step_by(7).for_each(|b| *b ^= byte),
            }
        }
        round_trip(&old, &new);
    }

    #[test]
    fn firmware_of_any_shape_round_trips(functions in 20usize..200, more in 0usize..60) {
        let (old, new) = (firmware(functions, 0), firmware(functions, more * 2));
        round_trip(&old, &new);
        round_trip(&new, &old);
    }
}
