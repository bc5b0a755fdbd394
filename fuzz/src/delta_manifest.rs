//! Manifests and payloads. Input: a byte of flags; then either a manifest's JSON, or (with
//! `PAYLOAD`) two bytes of the image's length, one of the chunks' length, and a payload, for
//! which an honest manifest is made, so that the decoders see it.

use std::io::{self, Write};

use tidegate_delta::{
    Applier, ApplyError, ChunkWriter, Encoding, FORMAT, Image, Limits, Manifest, ReadAt,
    make_bsdiff, make_full, make_raw, sha256,
};
use tidegate_protocol::Sha256;

use crate::Seed;

/// The rest is a payload, not a manifest.
const PAYLOAD: u8 = 0x80;
/// The payload is a delta.
const DELTA: u8 = 0x40;
/// The payload is the image itself.
const RAW: u8 = 0x20;
/// The payload is compressed here: the input is what comes out of the decompressor.
const COMPRESS: u8 = 0x10;
/// The old image is said to be longer than it is.
const LONGER: u8 = 0x08;

/// Less than an agent's, so that going over them is cheap.
const LIMITS: Limits = Limits {
    max_image: 64 << 10,
    max_chunk: 4 << 10,
    max_window_log: 17,
    max_chunks: 8_192,
    max_manifest: 64 << 10,
    max_memory: 16 << 20,
    raw_only: false,
};

/// The old image.
const OLD: &[u8] = &{
    let (mut bytes, mut at) = ([0; 3_000], 0);
    while at < bytes.len() {
        bytes[at] = ((at * at) >> 4).to_le_bytes()[0];
        at += 1;
    }
    bytes
};

/// One input.
pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((flags, rest)) if flags & PAYLOAD != 0 => payload(*flags, rest),
        Some((_, rest)) => manifest(rest),
        None => {}
    }
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(bytes, sha256(bytes), &LIMITS) else {
        return;
    };
    let written = manifest.to_bytes().expect("it can be written");
    let read = Manifest::from_bytes(&written, sha256(&written), &LIMITS);
    assert_eq!(read.as_ref(), Ok(&manifest), "it survives being written");
    assert_eq!(
        manifest.offset(manifest.chunks.len()),
        manifest.payload.length
    );
    let (result, out) = apply(&manifest, bytes);
    if result.is_ok() {
        assert_eq!(sha256(&out), manifest.to.sha256);
    }
}

fn payload(flags: u8, rest: &[u8]) {
    let has = |flag| flags & flag != 0;
    let Some((&[low, high, chunk], bytes)) = rest.split_first_chunk() else {
        return;
    };
    let compressed = has(COMPRESS).then(|| zstd::bulk::compress(bytes, 1).expect("it compresses"));
    let bytes = compressed.as_deref().unwrap_or(bytes);
    let mut writer = ChunkWriter::new(io::sink(), 16 + 16 * u32::from(chunk));
    writer.write_all(bytes).expect("a sink takes everything");
    let (_, blob, chunks) = writer.finish();
    let from = Image {
        sha256: sha256(OLD),
        length: if has(LONGER) {
            u64::MAX
        } else {
            OLD.len() as u64
        },
    };
    let encoding = match (has(RAW), has(DELTA)) {
        (true, _) => Encoding::Raw,
        (false, true) => Encoding::Bsdiff,
        (false, false) => Encoding::Full,
    };
    let unknown = Image {
        sha256: Sha256::from_bytes([0; 32]),
        length: u64::from(u16::from_le_bytes([low, high])),
    };
    let mut manifest = Manifest {
        format: FORMAT,
        encoding,
        from: encoding.is_delta().then_some(from),
        to: if has(RAW) { blob } else { unknown },
        payload: blob,
        window_log: 0,
        memory: 0,
        work: 0,
        scratch: 0,
        chunks,
    };
    let (result, out) = apply(&manifest, bytes);
    if has(RAW) {
        assert!(
            matches!(result, Ok(()) | Err(ApplyError::Manifest(_))),
            "{result:?}"
        );
        return;
    }
    // Nobody knows the image's digest before: a second time it is promised.
    assert!(result.is_err(), "no image has this digest");
    if matches!(result, Err(ApplyError::WrongImage)) && out.len() as u64 == manifest.to.length {
        manifest.to.sha256 = sha256(&out);
        let (result, again) = apply(&manifest, bytes);
        assert!(result.is_ok(), "{result:?}");
        assert!(out == again, "it is the same each time");
    }
}

/// Applies a payload chunk by chunk; the output is bounded whatever comes.
fn apply(manifest: &Manifest, mut payload: &[u8]) -> (Result<(), ApplyError>, Vec<u8>) {
    let mut out = Bounded {
        bytes: Vec::new(),
        room: usize::try_from(manifest.to.length.min(LIMITS.max_image)).unwrap_or(usize::MAX),
    };
    let result = (|| {
        let mut applier = Applier::new(manifest, Some(&Old), &mut out, &LIMITS)?;
        for chunk in &manifest.chunks {
            let length = payload.len().min(chunk.length as usize);
            let (now, later) = payload.split_at(length);
            applier.push_chunk(now)?;
            payload = later;
        }
        applier.finish().map(|_| ())
    })();
    (result, out.bytes)
}

struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(bytes.len() <= self.room, "more than was promised");
        self.room -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Old;

impl ReadAt for Old {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        OLD.read_exact_at(buf, offset)
    }
}

/// Manifests as the makers write them, and payloads before and after compression.
pub fn seeds() -> Vec<Seed> {
    let old = b"an old image";
    let new = [&OLD[..1_500], b"a change", &OLD[1_600..2_500]].concat();
    let mut delta = Vec::new();
    let manifests = [
        ("raw", make_raw(&mut &old[..]).expect("it is read")),
        (
            "full",
            make_full(&mut &old[..], io::sink(), Limits::FULL_CHUNK).expect("it is compressed"),
        ),
        (
            "delta",
            make_bsdiff(OLD, &new, &mut delta).expect("it is compared"),
        ),
    ];
    let mut seeds: Vec<Seed> = manifests
        .into_iter()
        .map(|(name, mut manifest)| {
            // As the makers would within these limits.
            manifest.window_log = manifest.window_log.min(LIMITS.max_window_log);
            (
                format!("manifest-{name}"),
                [vec![0], manifest.to_bytes().expect("it can be written")].concat(),
            )
        })
        .collect();
    let control = zstd::stream::decode_all(&delta[..]).expect("it was compressed");
    let squeeze = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).expect("it compresses");
    for (name, flags, payload) in [
        ("raw", RAW, new.clone()),
        ("full", 0, squeeze(&new)),
        ("full-inside", COMPRESS, new.clone()),
        ("delta", DELTA, squeeze(&control)),
        ("delta-inside", DELTA | COMPRESS, control.clone()),
        ("delta-longer", DELTA | COMPRESS | LONGER, control),
    ] {
        let [low, high] = u16::try_from(new.len()).expect("it is small").to_le_bytes();
        let head = vec![PAYLOAD | flags, low, high, 16];
        seeds.push((format!("payload-{name}"), [head, payload].concat()));
    }
    seeds
}
