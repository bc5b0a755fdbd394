#![cfg(feature = "make")]

use std::io::{PipeReader, PipeWriter, pipe};

use super::*;
use crate::make::make_full;
use crate::{Applier, Decoder, DeltaOptions, Kept, Limits, Manifest, ReadAt, make_delta, sha256};

type Talk<'a> = Conversation<'a, PipeReader, PipeWriter>;

/// Applies a payload with a decoder in another thread; returns the decoder's own verdict too.
fn apply(
    manifest: &Manifest,
    old: &[u8],
    kept: &[u8],
    payload: &[u8],
) -> (Result<Vec<u8>, ApplyError>, io::Result<()>) {
    let limits = Limits::default();
    let work = Task::new(manifest, &limits).unwrap();
    let ((child_from, to), (from, child_to)) = (pipe().unwrap(), pipe().unwrap());
    let file = tempfile::tempfile().unwrap();
    std::thread::scope(|scope| {
        let child = scope.spawn(|| serve(child_from, child_to, Some(&file), |_| Ok(())));
        let there = Kept {
            bytes: &kept,
            length: kept.len() as u64,
        };
        let old: &dyn ReadAt = &old;
        let talk = Talk::begin(from, to, &work, Some(old)).unwrap();
        let mut applier = Applier::apart(manifest, Some(there), Vec::new(), Box::new(talk));
        let mut rest = payload;
        let made = manifest.chunks.iter().try_for_each(|chunk| {
            let (bytes, after) = rest.split_at(chunk.length as usize);
            rest = after;
            applier.push_chunk(bytes)
        });
        let made = made.and_then(|()| applier.finish());
        (made, child.join().unwrap())
    })
}

fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

#[test]
fn a_full_image_is_decoded_apart() {
    let new = noise(300_000, 7);
    let mut payload = Vec::new();
    let manifest = make_full(&mut &new[..], &mut payload, 70_000).unwrap();
    let (made, child) = apply(&manifest, &[], &[], &payload);
    assert_eq!(made.unwrap(), new);
    child.unwrap();
}

#[test]
fn a_delta_is_decoded_apart_and_resumes() {
    let old = noise(2_000_000, 7);
    let mut new = old.clone();
    new.splice(700_000..700_010, noise(90_000, 9));
    for encoding in [Encoding::Quick, Encoding::Dense] {
        let mut payload = Vec::new();
        let options = DeltaOptions::new(encoding);
        let manifest = make_delta(&old, &new, &mut payload, &options).unwrap();
        for kept in [0, 1, 700_005, new.len()] {
            let (made, child) = apply(&manifest, &old, &new[..kept], &payload);
            assert_eq!(made.unwrap(), new[kept..], "{encoding}, {kept}");
            child.unwrap();
        }
    }
}

#[test]
fn a_payload_that_cannot_be_decoded_says_why() {
    let (old, new) = (noise(50_000, 7), noise(50_000, 8));
    let mut payload = Vec::new();
    let options = DeltaOptions::new(Encoding::Quick);
    let mut manifest = make_delta(&old, &new, &mut payload, &options).unwrap();
    payload[0] ^= 1;
    manifest.chunks[0].sha256 = sha256(&payload[..manifest.chunks[0].length as usize]);
    let (made, child) = apply(&manifest, &old, &[], &payload);
    let here = Decoder::new(
        &Task::new(&manifest, &Limits::default()).unwrap(),
        Some(&&old[..]),
        Nothing,
    )
    .unwrap()
    .push(&payload);
    assert_eq!(made.unwrap_err().to_string(), here.unwrap_err().to_string());
    child.unwrap();
}

struct Nothing;

impl Sink for Nothing {
    fn bytes(&mut self, _: &[u8]) -> Result<(), ApplyError> {
        Ok(())
    }
    fn kept(&mut self, _: u64) -> Result<bool, ApplyError> {
        Ok(false)
    }
    fn frame_done(&mut self) -> Result<(), ApplyError> {
        Ok(())
    }
}

/// A decoder that answers with these bytes, whatever it is given.
fn answered(said: &[u8], sink: &mut dyn Sink) -> Result<(), ApplyError> {
    let work = Task {
        encoding: Encoding::Quick,
        old_length: 4,
        new_length: 4,
        scratch: 0,
        max_window_log: 23,
        max_memory: 1 << 20,
    };
    let old: &dyn ReadAt = &&b"1234"[..];
    let mut talk = Conversation::begin(said, Vec::new(), &work, Some(old)).unwrap();
    talk.push(b"x", sink).and_then(|()| talk.finish(sink))
}

#[test]
fn a_decoder_that_was_taken_over_gets_nothing_but_the_old_image() {
    let ask = |kind, a, b| request(kind, a, b).to_vec();
    let cases = [
        ("nothing", Vec::new()),
        ("half a request", vec![INPUT, 0, 0]),
        ("an unknown request", ask(9, 0, 0)),
        ("a piece that is too large", ask(BYTES, 0, PIECE + 1)),
        (
            "fewer bytes than it says",
            [ask(BYTES, 0, 4), b"12".to_vec()].concat(),
        ),
        ("an end before the payload's", ask(DONE, 0, 0)),
        (
            "more input than there is",
            [ask(INPUT, 0, 0), ask(INPUT, 0, 0), ask(INPUT, 0, 0)].concat(),
        ),
    ];
    for (what, said) in cases {
        let error = answered(&said, &mut Nothing).unwrap_err();
        assert!(
            matches!(error, ApplyError::NoDecoder(_)),
            "{what}: {error:?}"
        );
    }
    // Outside of the old image.
    for (a, b) in [(0, 5), (4, 1), (u64::MAX, 2)] {
        let error = answered(&ask(READ, a, b), &mut Nothing).unwrap_err();
        assert!(matches!(error, ApplyError::ReadOld(_)), "{error:?}");
    }
    // What it says of itself is shown as one line.
    let said = [ask(FAILED, code::DECODE, 9), b"a\n\x1b[31mb\0\0".to_vec()].concat();
    let error = answered(&said, &mut Nothing).unwrap_err().to_string();
    assert!(!error.contains('\x1b') && !error.contains('\n'), "{error}");
}
