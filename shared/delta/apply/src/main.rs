#![doc = include_str!("../README.md")]

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};

use tidegate_delta::container::read_head;
use tidegate_delta::{Applier, Limits};

/// Memory limit for decoding a payload, in bytes: the largest class of tables, as on a desktop.
const MEMORY: u64 = 130 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [old, delta, new] = &names[..] else {
        return Err("usage: tidegate-apply OLD DELTA NEW".into());
    };
    let limits = Limits {
        max_memory: MEMORY,
        ..Limits::default()
    };
    let old = File::open(old)?;
    let mut delta = BufReader::new(File::open(delta)?);
    let manifest = read_head(&mut delta, &limits)?;
    // Scratch file for unpacked archives: beside the result, where there is room for it too.
    let name = format!("{new}.scratch");
    let scratch = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&name)?;
    let out = BufWriter::new(File::create(new)?);
    let mut applier = Applier::new(&manifest, Some(&old), out, &limits)?.with_scratch(&scratch);
    for chunk in &manifest.chunks {
        let mut bytes = vec![0; usize::try_from(chunk.length)?];
        delta.read_exact(&mut bytes)?;
        applier.push_chunk(&bytes)?;
    }
    applier.finish()?.flush()?;
    std::fs::remove_file(name)?;
    Ok(())
}
