//! The `tidegate-apply` binary.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use tidegate_apply::{Around, Program, decode, is_decoder};
use tidegate_delta::Limits;
use tidegate_delta::container::read_head;

/// Memory limit for decoding a payload, in bytes: the largest class of tables, as on a desktop.
const MEMORY: u64 = 130 << 20;

fn main() -> ExitCode {
    if is_decoder(std::env::args_os().skip(1)) {
        return decode();
    }
    match apply() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn apply() -> Result<(), Box<dyn Error>> {
    let usage = "usage: tidegate-apply OLD DELTA NEW [DECODER]";
    let mut names = std::env::args().skip(1);
    let (Some(old), Some(delta), Some(new)) = (names.next(), names.next(), names.next()) else {
        return Err(usage.into());
    };
    let program = names.next().map(PathBuf::from);
    let program = program.map_or_else(Program::this, Program::at);
    if names.next().is_some() {
        return Err(usage.into());
    }
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
    let around = Around {
        old: Some(&old),
        kept: None,
        scratch: Some(&scratch),
    };
    let mut applier = program.applier(&manifest, around, out, &limits)?;
    for chunk in &manifest.chunks {
        let mut bytes = vec![0; usize::try_from(chunk.length)?];
        delta.read_exact(&mut bytes)?;
        applier.push_chunk(&bytes)?;
    }
    applier.finish()?.flush()?;
    std::fs::remove_file(name)?;
    Ok(())
}
