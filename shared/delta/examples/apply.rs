//! Applies a delta file with the applier alone, in the way that small builds have it: `apply OLD DELTA
//! NEW`. What makes deltas is not in it.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};

use tidegate_delta::container::read_head;
use tidegate_delta::{Applier, Limits};

fn main() -> Result<(), Box<dyn Error>> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let [old, delta, new] = &names[..] else {
        return Err("usage: apply OLD DELTA NEW".into());
    };
    let limits = Limits::default();
    let old = File::open(old)?;
    let mut delta = BufReader::new(File::open(delta)?);
    let manifest = read_head(&mut delta, &limits)?;
    let scratch = tempfile::tempfile()?;
    let out = BufWriter::new(File::create(new)?);
    let mut applier = Applier::new(&manifest, Some(&old), out, &limits)?.with_scratch(&scratch);
    for chunk in &manifest.chunks {
        let mut bytes = vec![0; chunk.length as usize];
        delta.read_exact(&mut bytes)?;
        applier.push_chunk(&bytes)?;
    }
    applier.finish()?.flush()?;
    Ok(())
}
