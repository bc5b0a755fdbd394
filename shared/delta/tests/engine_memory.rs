//! Memory that applying takes, whatever the image. One test, because the allocator counts for the
//! whole process.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::File;
use std::io::{Seek as _, Write as _};

use peak_alloc::PeakAlloc;
use tidegate_delta::{Applier, DeltaOptions, Encoding, Limits, Manifest, make_delta};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[test]
fn applying_keeps_to_the_memory_that_the_manifest_tells() {
    // 48 MiB with changes in many places, and a piece that is new.
    let mut state = 7u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let old: Vec<u8> = (0..48 << 20)
        .map(|i| if i % 64 < 40 { random() } else { 0 })
        .collect();
    let mut new = old.clone();
    for at in (0..new.len()).step_by(5_003) {
        new[at] ^= 0x55;
    }
    for at in (100_000..new.len()).step_by(400_009) {
        let piece: Vec<u8> = new[at - 90_000..at - 89_900].to_vec();
        new.splice(at..at, piece).for_each(drop);
    }
    new.extend((0..500_000).map(|_| random()));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&old).unwrap();
    for encoding in [Encoding::Quick, Encoding::Dense] {
        check(encoding, &old, &new, &file);
    }
    // A zlib stream in many parts, which is repacked.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let [old, new] =
        ["old", "new"].map(|v| std::fs::read(format!("{folder}/packed-{v}.image")).unwrap());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&old).unwrap();
    for encoding in [Encoding::Quick, Encoding::Dense] {
        let manifest = check(encoding, &old, &new, &file);
        assert!(manifest.scratch > 0);
    }
}

/// Makes a delta, applies it, and compares the memory that took with what the manifest states.
fn check(encoding: Encoding, old: &[u8], new: &[u8], file: &File) -> Manifest {
    let mut payload = tempfile::tempfile().unwrap();
    let options = DeltaOptions {
        threads: 2,
        ..DeltaOptions::new(encoding)
    };
    let manifest = make_delta(old, new, &payload, &options).unwrap();
    payload.rewind().unwrap();
    let (limits, scratch) = (Limits::default(), tempfile::tempfile().unwrap());
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let mut applier = Applier::new(&manifest, Some(file), std::io::sink(), &limits)
        .unwrap()
        .with_scratch(&scratch);
    let mut buffer = Vec::new();
    for chunk in &manifest.chunks {
        buffer.resize(chunk.length as usize, 0);
        std::io::Read::read_exact(&mut payload, &mut buffer).unwrap();
        applier.push_chunk(&buffer).unwrap();
    }
    applier.finish().unwrap();
    let peak = (MEMORY.peak_usage() - before) as u64;
    let told = manifest.memory + u64::from(Limits::DELTA_CHUNK);
    println!("{encoding}: {peak} bytes, told {told}");
    assert!(peak <= told, "{encoding}: {peak} of {told}");
    assert!(peak <= 16 << 20, "{encoding}: {peak}");
    manifest
}
