//! Payloads that were made once: every processor and every later version must make the same images
//! from them. `TIDEGATE_BLESS=1` makes them anew, which breaks payloads already in use.

#![expect(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "small made-up images, and helpers of tests"
)]

use tidegate_delta::{Applier, Limits, Manifest, ReadAt, sha256};

/// Returns a number that is the same on every machine.
fn noise(index: u32, seed: u32) -> u32 {
    let mixed = (index ^ seed.rotate_left(7)).wrapping_mul(0x9E37_79B1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA6B) >> 3
}

/// Text, tables of numbers and machine code, some of it changed.
fn image(new: bool) -> Vec<u8> {
    let mut image = Vec::new();
    for line in 0..700u32 {
        if new && line % 97 == 5 {
            continue;
        }
        let edit = u32::from(new && line % 7 == 3);
        image.extend(format!("setting {} = {}\n", line, noise(line + edit, 1) % 9973).bytes());
    }
    for index in 0..3000u32 {
        let shift = if new { 24 } else { 0 };
        image.extend((0x0800_0000 + 16 * index + shift).to_le_bytes());
        image.extend(noise(index / 3, 2).to_le_bytes());
    }
    for index in 0..4000u32 {
        if new && index % 499 == 7 {
            image.extend([0x90; 12]);
        }
        image.extend(
            (noise(index % 600 + 7000 * u32::from(new && index % 11 == 3), 3) & 0x00FF_FFFF
                | 0xE500_0000)
                .to_le_bytes(),
        );
    }
    image
}

/// A Cortex-M image with calls and pointers; `more` bytes are inserted before every eighth
/// function.
fn firmware(more: usize) -> Vec<u8> {
    const BASE: u32 = 0x0800_8000;
    let mut starts = Vec::new();
    let mut at = 256;
    for index in 0..300 {
        if index % 8 == 7 {
            at += more;
        }
        starts.push(at);
        at += 40 + (noise(index, 4) % 24) as usize * 4;
    }
    let mut image = vec![0u8; at];
    let word = |image: &mut Vec<u8>, at: usize, value: u32| {
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    word(&mut image, 0, 0x2000_4000);
    for (index, &start) in starts.iter().enumerate().take(64).skip(1) {
        word(&mut image, 4 * index, BASE + start as u32 + 1);
    }
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(image.len());
        image[start..start + 2].copy_from_slice(&0xB510u16.to_le_bytes());
        for place in (start + 2..end - 8).step_by(2) {
            let half =
                0x4600 | (noise(index as u32 * 64 + (place - start) as u32, 5) & 0x3F) as u16;
            image[place..place + 2].copy_from_slice(&half.to_le_bytes());
        }
        let called = starts[noise(index as u32, 6) as usize % starts.len()];
        let distance = (called as u32).wrapping_sub(start as u32 + 12);
        let s = distance >> 24 & 1;
        let (j1, j2) = (1 ^ (distance >> 23 & 1) ^ s, 1 ^ (distance >> 22 & 1) ^ s);
        let first = 0xF000 | s << 10 | distance >> 12 & 0x3FF;
        let second = 0xD000 | j1 << 13 | j2 << 11 | distance >> 1 & 0x7FF;
        word(&mut image, start + 8, first | second << 16);
        word(&mut image, end - 4, BASE + called as u32 + 1);
    }
    image
}

/// Functions laid out as by a compiler; the new version has more, and some differ. `word` makes an
/// instruction from its offset, a number and a function's offset.
fn functions(new: bool, at: usize, word: &dyn Fn(usize, u32, usize) -> Vec<u8>) -> Vec<u8> {
    let count = 400;
    let there = |index: usize| new || index % 37 != 11;
    let length = |index: usize| 8 + (noise(index as u32, 7) % 24) as usize;
    let mut starts = Vec::new();
    let mut end = at;
    for index in 0..count {
        starts.push(end);
        if there(index) {
            end += 6 * length(index);
        }
    }
    let mut code = Vec::new();
    for index in (0..count).filter(|&index| there(index)) {
        let begin = code.len();
        for place in 0..length(index) {
            // A few differ.
            let edit = u32::from(new && noise(place as u32, index as u32).is_multiple_of(53));
            let number = noise(index as u32 * 64 + place as u32, 8 + edit);
            let called = starts[noise(number, 9) as usize % count];
            code.extend(word(at + code.len(), number, called));
        }
        code.resize(begin + 6 * length(index), 0);
    }
    code
}

/// An ARM64 kernel image.
fn kernel(new: bool) -> Vec<u8> {
    let mut image = vec![0; 64];
    image[56..60].copy_from_slice(b"ARM\x64");
    let code = functions(new, 64, &|at, number, called| {
        let distance = (called as u32).wrapping_sub(at as u32) / 4;
        let word = match number % 8 {
            0 | 1 => 0x9400_0000 | distance & 0x03FF_FFFF,
            2 => 0x9000_0000 | number & 31,
            3 => 0x9100_0000 | number & 0x3FFF,
            4 => 0x5400_0000 | (distance & 0x7_FFFF) << 5 | number >> 8 & 15,
            _ => 0xAA00_03E0 | (number >> 4 & 31) << 16 | number >> 9 & 31,
        };
        word.to_le_bytes().to_vec()
    });
    image.extend(code);
    image
}

/// An ELF file for x86-64 that contains only code.
fn elf(new: bool) -> Vec<u8> {
    let code = functions(new, 0x1000, &|at, number, called| {
        let relative = |length: usize| (called as u32).wrapping_sub((at + length) as u32);
        match number % 5 {
            0 => [&[0xE8][..], &relative(5).to_le_bytes()].concat(),
            1 => vec![0x48, 0x89, 0xC0 | (number >> 5) as u8 & 0x3F],
            2 => vec![0x8B, 0x44, 0x24, (number >> 6) as u8 & 0x78],
            3 => vec![0x83, 0xC0 | (number >> 7) as u8 & 7, (number >> 9) as u8],
            _ => vec![0x0F, 0xB6, 0xC0 | (number >> 4) as u8 & 0x3F],
        }
    });
    let names = b"\0.text\0.names\0";
    let (text_at, names_at) = (0x1000u64, 0x1000 + code.len() as u64);
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut image = vec![0u8; 64];
    image[..8].copy_from_slice(b"\x7FELF\x02\x01\x01\x00");
    let put = |image: &mut [u8], at: usize, width: usize, value: u64| {
        image[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    for (at, width, value) in [
        (0x10, 2, 3),
        (0x12, 2, 0x3E),
        (0x14, 4, 1),
        (0x20, 8, 64),
        (0x28, 8, sections_at),
        (0x34, 2, 64),
        (0x36, 2, 56),
        (0x38, 2, 1),
        (0x3A, 2, 64),
        (0x3C, 2, 3),
        (0x3E, 2, 2),
    ] {
        put(&mut image, at, width, value);
    }
    // One segment: the code, at an address equal to its offset.
    let mut segment = [0u8; 56];
    for (at, width, value) in [
        (0, 4, 1),
        (4, 4, 5),
        (8, 8, text_at),
        (16, 8, text_at),
        (24, 8, text_at),
        (32, 8, code.len() as u64),
        (40, 8, code.len() as u64),
    ] {
        put(&mut segment, at, width, value);
    }
    image.extend(segment);
    image.resize(0x1000, 0);
    image.extend(&code);
    image.extend(names);
    image.resize(sections_at as usize + 64, 0);
    // Name, type, flags, address, offset, length.
    for header in [
        [1, 1, 6, text_at, text_at, code.len() as u64],
        [7, 3, 0, 0, names_at, names.len() as u64],
    ] {
        let mut section = [0u8; 64];
        put(&mut section, 0, 4, header[0]);
        put(&mut section, 4, 4, header[1]);
        for (index, &value) in header[2..].iter().enumerate() {
            put(&mut section, 8 + 8 * index, 8, value);
        }
        image.extend(section);
    }
    image
}

fn folder() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors").to_owned()
}

/// Reads an image that is stored, because no library makes it the same everywhere.
fn stored(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/{name}.image", folder())).unwrap()
}

/// Name and images of each vector.
fn vectors() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let pairs = [
        ("mixed", image(false), image(true)),
        ("firmware", firmware(0), firmware(12)),
        ("kernel", kernel(false), kernel(true)),
        ("elf", elf(false), elf(true)),
        // Made by zlib, level 6, of `image`: two members of a zip and one gzip file.
        ("packed", stored("packed-old"), stored("packed-new")),
    ];
    let mut vectors = Vec::new();
    for (name, old, new) in pairs {
        for encoding in ["quick", "dense", "large"] {
            vectors.push((format!("{name}-{encoding}"), old.clone(), new.clone()));
        }
    }
    vectors
}

#[cfg(feature = "make")]
fn bless(name: &str, old: &[u8], new: &[u8]) {
    use tidegate_delta::{DeltaOptions, Encoding, make_delta};
    let encoding = if name.ends_with("quick") {
        Encoding::Quick
    } else {
        Encoding::Dense
    };
    let mut options = DeltaOptions::new(encoding);
    if name.ends_with("large") {
        options.memory = 130 << 20;
    }
    let mut payload = Vec::new();
    let manifest = make_delta(old, new, &mut payload, &options).unwrap();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    std::fs::write(
        format!("{folder}/{name}.json"),
        manifest.to_bytes().unwrap(),
    )
    .unwrap();
    std::fs::write(format!("{folder}/{name}.payload"), payload).unwrap();
}

#[cfg(not(feature = "make"))]
fn bless(_: &str, _: &[u8], _: &[u8]) {}

/// Appliers of other machines, started here by an emulator: `TIDEGATE_APPLIERS` lists them as
/// `platform=program`, separated by spaces. `.ci/foreign-agents` builds them.
#[test]
fn payloads_made_once_make_the_same_images_on_other_machines() {
    let Ok(appliers) = std::env::var("TIDEGATE_APPLIERS") else {
        eprintln!("SKIPPED: TIDEGATE_APPLIERS names no applier of another machine");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut applied = 0;
    for applier in appliers.split_whitespace() {
        let (platform, program) = applier.split_once('=').unwrap();
        for (name, old, new) in vectors() {
            let read = |end: &str| std::fs::read(format!("{}/{name}.{end}", folder())).unwrap();
            let manifest = read("json");
            let limits = Limits {
                max_memory: 130 << 20,
                ..Limits::default()
            };
            let manifest = Manifest::from_bytes(&manifest, sha256(&manifest), &limits).unwrap();
            let mut delta = Vec::new();
            tidegate_delta::container::write_head(&manifest, &mut delta).unwrap();
            delta.extend(read("payload"));
            std::fs::write(path("old"), &old).unwrap();
            std::fs::write(path("delta"), delta).unwrap();
            let output = std::process::Command::new(program)
                .args(["old", "delta", "new"])
                // An emulated program cannot start itself: its decoder needs the emulator too.
                .args((!platform.starts_with("windows")).then_some(program))
                .current_dir(dir.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{platform} {name}: {said}");
            assert!(
                std::fs::read(path("new")).unwrap() == new,
                "{platform} {name}"
            );
            applied += 1;
        }
    }
    println!("{applied} payloads applied on other machines");
    assert!(applied > 0);
}

#[test]
fn payloads_made_once_make_the_same_images_here() {
    let folder = folder();
    for (name, old, new) in vectors() {
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            bless(&name, &old, &new);
        }
        let read = |end: &str| std::fs::read(format!("{folder}/{name}.{end}")).unwrap();
        let (manifest, payload) = (read("json"), read("payload"));
        let limits = Limits {
            max_memory: 130 << 20,
            ..Limits::default()
        };
        let manifest = Manifest::from_bytes(&manifest, sha256(&manifest), &limits).unwrap();
        let view: &[u8] = &old;
        let scratch = tempfile::tempfile().unwrap();
        let mut applier = Applier::new(&manifest, Some(&view as &dyn ReadAt), Vec::new(), &limits)
            .unwrap()
            .with_scratch(&scratch);
        assert_eq!(manifest.scratch > 0, name.starts_with("packed"), "{name}");
        let mut rest = payload.as_slice();
        for chunk in &manifest.chunks {
            let (bytes, behind) = rest.split_at(chunk.length as usize);
            applier.push_chunk(bytes).unwrap();
            rest = behind;
        }
        assert!(applier.finish().unwrap() == new, "{name}");
        assert!(payload.len() < new.len() / 2, "{name}: {}", payload.len());
    }
}
