//! The decoder's process: what a hostile payload does to it stays there.

use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tidegate_apply::{Around, Program};
use tidegate_delta::{
    ApplyError, Chunk, DeltaOptions, Encoding, Limits, Manifest, ReadAt, make_delta, sha256,
};
use tidegate_tests::binary;

/// A delta between two small packed texts, which are unpacked to be compared.
struct Packed {
    old: Vec<u8>,
    new: Vec<u8>,
    manifest: Manifest,
    payload: Vec<u8>,
}

impl Packed {
    fn make() -> Self {
        let [old, new] = [1, 0].map(|version| {
            let mut packed = GzEncoder::new(Vec::new(), Compression::new(6));
            for line in 0..90u32 {
                let value = line.wrapping_mul(0x9E37_79B9) >> 9;
                let word = if line % 37 == 0 { version } else { 0 };
                writeln!(packed, "key.{line} = value {value} of {word}").unwrap();
            }
            packed.finish().unwrap()
        });
        let mut payload = Vec::new();
        let options = DeltaOptions::new(Encoding::Quick);
        let manifest = make_delta(&old, &new, &mut payload, &options).unwrap();
        Self {
            old,
            new,
            manifest,
            payload,
        }
    }

    /// Length of the coded recipe, and the recipe itself.
    fn recipe(&self) -> (usize, Vec<u8>) {
        let number = |at: usize| u32::from_le_bytes(self.payload[at..at + 4].try_into().unwrap());
        let (coded, length) = (number(4) as usize, number(8) as usize);
        let recipe = zstd::bulk::decompress(&self.payload[12..12 + coded], length);
        (coded, recipe.unwrap())
    }

    /// The payload with another recipe, signed for as if people had made it.
    fn with_recipe(&self, recipe: &[u8], scratch: u64) -> (Manifest, Vec<u8>) {
        let packed = zstd::bulk::compress(recipe, 1).unwrap();
        let mut payload = b"TGo1".to_vec();
        for number in [packed.len(), recipe.len()] {
            payload.extend(u32::try_from(number).unwrap().to_le_bytes());
        }
        payload.extend(&packed);
        payload.extend(&self.payload[12 + self.recipe().0..]);
        let mut manifest = self.manifest.clone();
        manifest.scratch = scratch;
        manifest.payload.length = payload.len() as u64;
        manifest.chunks = vec![Chunk {
            length: u32::try_from(payload.len()).unwrap(),
            sha256: sha256(&payload),
        }];
        (manifest, payload)
    }

    fn apply(
        &self,
        program: &Program,
        manifest: &Manifest,
        payload: &[u8],
    ) -> Result<Vec<u8>, ApplyError> {
        let scratch = tempfile::tempfile().unwrap();
        let old: &[u8] = &self.old;
        let around = Around {
            old: Some(&old as &dyn ReadAt),
            kept: None,
            scratch: Some(&scratch),
        };
        let mut applier = program.applier(manifest, around, Vec::new(), &Limits::default())?;
        let mut rest = payload;
        for chunk in &manifest.chunks {
            let (bytes, after) = rest.split_at(chunk.length as usize);
            applier.push_chunk(bytes)?;
            rest = after;
        }
        applier.finish()
    }
}

/// Required size of the file for a recipe, computed here as docs/reference/delta-format.md describes it.
fn scratch(recipe: &[u8], old: usize, new: usize) -> Option<u64> {
    let mut rest = recipe;
    let mut number = || -> Option<i128> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, behind) = rest.split_first()?;
            rest = behind;
            value |= i128::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(value)
    };
    let _tokens = number()?;
    let mut lengths = [old as i128, new as i128];
    for (image, length) in lengths.iter_mut().enumerate() {
        for _ in 0..number()?.min(1 << 17) {
            let _gap = number()?;
            if image == 1 {
                let _continues = number()?;
            }
            let (packed, unpacked) = (number()?, number()?);
            if image == 1 {
                let _corrections = number()?;
            }
            *length += unpacked - packed;
        }
    }
    u64::try_from(lengths[0] + lengths[1].min(65 << 20)).ok()
}

#[test]
fn a_damaged_recipe_is_refused_or_makes_another_image_and_harms_nothing() {
    let packed = Packed::make();
    let program = Program::at(binary("tidegate-agent"));
    let whole = packed.apply(&program, &packed.manifest, &packed.payload);
    assert!(whole.unwrap() == packed.new);
    let (_, recipe) = packed.recipe();
    let sizes = (packed.old.len(), packed.new.len());
    let needed = scratch(&recipe, sizes.0, sizes.1);
    assert_eq!(needed, Some(packed.manifest.scratch));
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mutations = std::env::var("TIDEGATE_MUTATIONS").ok();
    let rounds: u32 = mutations.and_then(|n| n.parse().ok()).unwrap_or(300);
    let (mut repacked, mut ended) = (0, 0);
    for round in 0..rounds {
        let mut bad = recipe.clone();
        for _ in 0..=random(3) {
            let at = random(bad.len());
            match random(4) {
                0 => bad[at] ^= 1 << random(8),
                1 => bad[at] = u8::try_from(random(256)).unwrap(),
                2 => bad.truncate(at.max(1)),
                _ => bad.insert(at, u8::try_from(random(256)).unwrap()),
            }
        }
        let scratch = scratch(&bad, sizes.0, sizes.1);
        let scratch = scratch.map_or(packed.manifest.scratch, |n| n.max(1));
        let (manifest, payload) = packed.with_recipe(&bad, scratch);
        match packed.apply(&program, &manifest, &payload) {
            Ok(made) => assert!(made == packed.new, "round {round}"),
            Err(ApplyError::Decode(what)) => {
                repacked += u32::from(what.contains("repacked"));
                ended += u32::from(what.contains("its decoder ended"));
            }
            Err(ApplyError::WrongImage | ApplyError::TooLong | ApplyError::Manifest(_)) => {}
            Err(other) => panic!("round {round}: {other:?}"),
        }
    }
    println!("{rounds} recipes: {repacked} refused by the packer, {ended} ended their decoder");
    // The damage reaches the code that packs the streams, not only the recipe's lengths.
    assert!(repacked + ended > rounds / 50, "{repacked} of {rounds}");
}

/// Corrections that make the packer add blocks without end.
const ENDLESS: [u8; 66] = [
    0x00, 0x00, 0x04, 0x0C, 0x00, 0x02, 0x02, 0x01, 0x02, 0x0D, 0x00, 0xFF, 0x03, 0x01, 0x02, 0x7A,
    0x08, 0x00, 0x04, 0x48, 0x04, 0x03, 0x01, 0xFF, 0x7F, 0x04, 0x05, 0x00, 0x24, 0x00, 0xD7, 0xD4,
    0xED, 0x13, 0x7B, 0x92, 0x92, 0x45, 0xCB, 0x2E, 0x54, 0xDB, 0xBD, 0xE8, 0x2F, 0xD1, 0x09, 0xB5,
    0x88, 0x29, 0x87, 0x90, 0x94, 0xF6, 0xC3, 0x5D, 0xF3, 0xC1, 0x4E, 0xD7, 0xA9, 0x51, 0xAD, 0xCC,
    0xB0, 0xA0,
];

#[test]
fn corrections_without_an_end_end_their_decoder_and_nothing_else() {
    let packed = Packed::make();
    let (_, mut recipe) = packed.recipe();
    let at = recipe.len() - ENDLESS.len();
    recipe[at..].copy_from_slice(&ENDLESS);
    let (manifest, payload) = packed.with_recipe(&recipe, packed.manifest.scratch);
    let program = Program::at(binary("tidegate-agent"));
    let error = packed.apply(&program, &manifest, &payload).unwrap_err();
    let ApplyError::Decode(what) = &error else {
        panic!("{error:?}");
    };
    assert!(what.contains("its decoder"), "{what}");
}

/// On kernels from 3.17 on, seccomp alone refuses all three.
#[cfg(target_os = "linux")]
#[test]
fn a124_a_decoder_that_was_taken_over_opens_and_starts_nothing() {
    for program in ["tidegate-agent", "tidegate"] {
        let left = Program::at(binary(program)).left().unwrap();
        assert_eq!(left, [], "{program}");
    }
    let nobody = Program::at("/bin/true".into()).left();
    assert!(nobody.unwrap_err().to_string().contains("no answer"));
}

/// The limits of a decoder that waits for its payload, as the kernel tells them.
#[cfg(target_os = "linux")]
#[test]
fn a125_a_decoder_cannot_fill_the_disk_with_its_scratch_file() {
    let packed = Packed::make();
    let program = Program::at(binary("tidegate-agent"));
    let scratch = tempfile::tempfile().unwrap();
    let old: &[u8] = &packed.old;
    let around = Around {
        old: Some(&old as &dyn ReadAt),
        kept: None,
        scratch: Some(&scratch),
    };
    let limits = Limits::default();
    let mut applier = program
        .applier(&packed.manifest, around, Vec::new(), &limits)
        .unwrap();
    // It has begun once it has taken a chunk.
    let first = packed.manifest.chunks[0].length as usize;
    applier.push_chunk(&packed.payload[..first]).unwrap();
    let me = std::process::id();
    let children = format!("/proc/{me}/task");
    let child = std::fs::read_dir(children).unwrap().find_map(|task| {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).ok()?;
        children.split_whitespace().find_map(|child| {
            let named = std::fs::read(format!("/proc/{child}/cmdline")).ok()?;
            let decodes = named.windows(14).any(|part| part == b"decode-payload");
            let limits = std::fs::read_to_string(format!("/proc/{child}/limits")).ok()?;
            let file = limits
                .lines()
                .find(|line| line.starts_with("Max file size"))?;
            // Decoders of other tests have other payloads.
            let mine = file.contains(&format!(" {} ", packed.manifest.scratch));
            (decodes && mine).then(|| child.to_owned())
        })
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.unwrap())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
}

#[test]
fn a_program_that_is_no_decoder_is_not_blamed_on_the_payload() {
    let packed = Packed::make();
    let apply = |program: PathBuf| {
        let applied = packed.apply(&Program::at(program), &packed.manifest, &packed.payload);
        applied.unwrap_err()
    };
    for program in ["/no/such/program", "/bin/false", "/bin/true"] {
        let error = apply(program.into());
        assert!(
            matches!(error, ApplyError::NoDecoder(_)),
            "{program}: {error:?}"
        );
    }
}
