//! Payloads of `quick` and `dense`. Input: a byte of flags and two of the image's length; then
//! either a whole payload, or (with `PARTS`) what its elements decode to, which are put together
//! here so that damage reaches the decoders behind the compression.

use std::io::{self, Write};

use tidegate_delta::{
    Applier, ApplyError, ChunkWriter, DeltaOptions, Encoding, FORMAT, Image, Limits, Manifest,
    ReadAt, make_delta, sha256,
};
use tidegate_protocol::Sha256;

use crate::Seed;

/// The rest is the parts of a payload.
const PARTS: u8 = 0x80;
/// The payload is `dense`, else `quick`.
const DENSE: u8 = 0x40;

const LIMITS: Limits = Limits {
    max_image: 64 << 10,
    max_chunk: 1 << 20,
    max_window_log: 19,
    max_chunks: 64,
    max_manifest: 64 << 10,
    max_memory: 15 << 20,
    raw_only: false,
};

/// Something like instructions that refer to each other, at an address.
fn image(shift: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..96u32 {
        if index % 16 == 5 {
            bytes.extend(std::iter::repeat_n(0x90, shift));
        }
        // A call to some other of them, a load relative to itself, moves.
        let distance = ((index * 37) % 96).wrapping_sub(index).wrapping_mul(24);
        bytes.push(0xE8);
        bytes.extend(distance.to_le_bytes());
        bytes.extend([0x48, 0x8B, 0x05]);
        bytes.extend((distance / 2).to_le_bytes());
        bytes.extend([0x48, 0x89, 0xD0, 0xC3]);
        bytes.extend((index * 0x0101_0101).to_le_bytes());
        bytes.extend((0x0800_8000 + (index % 50) * 8).to_le_bytes());
    }
    bytes
}

fn old() -> Vec<u8> {
    image(0)
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((&[flags, low, high], rest)) = data.split_first_chunk() else {
        return;
    };
    let encoding = if flags & DENSE == 0 {
        Encoding::Quick
    } else {
        Encoding::Dense
    };
    let length = u16::from_le_bytes([low, high]);
    if flags & PARTS == 0 {
        check(encoding, length, rest);
    } else if let Some(payload) = assemble(encoding, length, rest) {
        check(encoding, length, &payload);
    }
}

/// Puts a payload together: the layout, the covers and the frame as their decoders see them, each
/// after two bytes that say how long it is.
fn assemble(encoding: Encoding, length: u16, rest: &[u8]) -> Option<Vec<u8>> {
    let (covers, rest) = rest.split_first()?;
    let mut parts = Parts(rest);
    let (layout, table) = (parts.next(), parts.next());
    let (covers_made, covers_coded, frame);
    if encoding == Encoding::Dense {
        (covers_made, covers_coded, frame) = (0, table.to_vec(), parts.0.to_vec());
    } else {
        covers_made = table.len();
        covers_coded = squeeze(table);
        let streams = [parts.next(), parts.next(), parts.next(), parts.0].map(squeeze);
        let mut body = Vec::new();
        for stream in &streams[..3] {
            body.extend(u32::try_from(stream.len()).ok()?.to_le_bytes());
        }
        frame = [body, streams.concat()].concat();
    }
    let mut payload = b"TGd2".to_vec();
    payload.extend(if encoding == Encoding::Dense {
        // The smallest tables: they are made anew for each input.
        [1, 8, 16, 8]
    } else {
        [0, 0, 0, 8]
    });
    payload.extend(u32::from(*covers).to_le_bytes());
    payload.extend(1u32.to_le_bytes());
    for (coded, made) in [
        (squeeze(layout), layout.len()),
        (covers_coded, covers_made),
        (frame, usize::from(length)),
    ] {
        payload.extend(u32::try_from(coded.len()).ok()?.to_le_bytes());
        payload.extend(u32::try_from(made).ok()?.to_le_bytes());
        payload.extend(coded);
    }
    Some(payload)
}

struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn next(&mut self) -> &'a [u8] {
        let Some((&[low, high], rest)) = self.0.split_first_chunk() else {
            return &[];
        };
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (part, rest) = rest.split_at(length);
        self.0 = rest;
        part
    }
}

fn squeeze(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).expect("it compresses")
}

fn check(encoding: Encoding, length: u16, payload: &[u8]) {
    let old = old();
    let mut writer = ChunkWriter::new(io::sink(), 1 << 20);
    writer.write_all(payload).expect("a sink takes everything");
    let (_, blob, chunks) = writer.finish();
    let mut manifest = Manifest {
        format: FORMAT,
        encoding,
        from: Some(Image {
            sha256: sha256(&old),
            length: old.len() as u64,
        }),
        to: Image {
            sha256: Sha256::from_bytes([0; 32]),
            length: length.into(),
        },
        payload: blob,
        window_log: 0,
        memory: 0,
        work: 0,
        scratch: 0,
        chunks,
    };
    let (result, out) = apply(&manifest, &old, payload);
    assert!(result.is_err(), "no image has this digest");
    if matches!(result, Err(ApplyError::WrongImage)) {
        manifest.to.sha256 = sha256(&out);
        let (result, again) = apply(&manifest, &old, payload);
        assert!(result.is_ok(), "{result:?}");
        assert!(out == again, "it is the same each time");
    }
}

fn apply(manifest: &Manifest, old: &[u8], mut payload: &[u8]) -> (Result<(), ApplyError>, Vec<u8>) {
    let mut out = Vec::new();
    let result = (|| {
        let mut applier = Applier::new(manifest, Some(&old as &dyn ReadAt), &mut out, &LIMITS)?;
        for chunk in &manifest.chunks {
            let (now, later) = payload.split_at(payload.len().min(chunk.length as usize));
            applier.push_chunk(now)?;
            payload = later;
        }
        applier.finish().map(|_| ())
    })();
    assert!(
        out.len() as u64 <= manifest.to.length,
        "more than was promised"
    );
    (result, out)
}

/// Payloads as the maker makes them, whole and in parts.
pub fn seeds() -> Vec<Seed> {
    let old = old();
    let new = [image(3), b"and an end that is new".to_vec()].concat();
    let [low, high] = u16::try_from(new.len()).expect("it is small").to_le_bytes();
    let mut seeds = Vec::new();
    for (encoding, flag) in [(Encoding::Quick, 0), (Encoding::Dense, DENSE)] {
        let mut payload = Vec::new();
        make_delta(&old, &new, &mut payload, &DeltaOptions::new(encoding)).expect("it is compared");
        seeds.push((
            format!("payload-{encoding}"),
            [vec![flag, low, high], payload].concat(),
        ));
        // One space of one segment, a region of x86-64, a copy that is all of the old image.
        let layout = layout(old.len(), new.len());
        let covers = [
            0,
            0,
            u8::try_from((old.len() - 1) & 0x7F | 0x80).expect("it is masked"),
            u8::try_from((old.len() - 1) >> 7).expect("it is small"),
        ];
        let part = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).expect("it is small");
            [&length.to_le_bytes()[..], bytes].concat()
        };
        let table = if encoding == Encoding::Quick {
            &covers[..]
        } else {
            &[0; 8]
        };
        let mut rest = [vec![1], part(&layout), part(table)].concat();
        if encoding == Encoding::Quick {
            rest.extend(
                [
                    part(&[9, 20, 100, 255, 1]),
                    part(&[1, 2, 3]),
                    part(&[7; 90]),
                ]
                .concat(),
            );
        }
        rest.extend([5; 64]);
        seeds.push((
            format!("parts-{encoding}"),
            [vec![PARTS | flag, low, high], rest].concat(),
        ));
    }
    seeds
}

/// A layout as docs/reference/delta-format.md has it.
fn layout(old: usize, new: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for length in [old, new] {
        for number in [1, 0, length, 1, 0, length, 0x1000] {
            put(&mut out, number);
        }
    }
    // No records; the rest is plain; one region of x86-64; nothing beyond.
    for number in [0, 0, 1, 0, old, 2, 0] {
        put(&mut out, number);
    }
    out
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
