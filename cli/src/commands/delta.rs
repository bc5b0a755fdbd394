//! `delta`: make, apply and inspect deltas of files, without a server.

mod apply;
mod args;
mod diff;
mod sparse;
mod view;

pub(crate) use args::DeltaCommand;

use std::fs::{self, File};
use std::io::{self, BufReader, Seek as _};
use std::path::{Path, PathBuf};

use tidegate_delta::container::{ContainerError, read_head};
use tidegate_delta::{Limits, Manifest, ManifestError};
use tidegate_protocol::error_chain;

use self::apply::apply;
use self::diff::diff;
use self::view::{describe, view};
use super::Context;
use crate::error::{CliError, at};
use crate::output::{bytes, show};

pub(crate) fn run(context: &Context, command: DeltaCommand) -> Result<(), CliError> {
    match command {
        DeltaCommand::Diff {
            old,
            new,
            delta,
            encoding,
            memory,
            threads,
        } => diff(context, [&old, &new, &delta], encoding, memory, threads),
        DeltaCommand::Apply {
            old,
            delta,
            new,
            memory,
        } => apply(context, [&old, &delta, &new], memory),
        DeltaCommand::Inspect { delta } => {
            let manifest = inspect(&delta)?;
            show(context.format, &view(&manifest), describe)
        }
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> CliError {
    CliError::Failed(format!("{what}: {}", error_chain(error)))
}

/// Memory for the decoder, in bytes, out of the total that the person allows, in MiB.
fn decoder(memory: u32) -> u64 {
    (u64::from(memory) << 20) - u64::from(Limits::DELTA_CHUNK)
}

/// Limits that admit any file: nothing is applied.
fn generous() -> Limits {
    Limits {
        max_memory: u64::MAX,
        max_window_log: 31,
        ..Limits::default()
    }
}

fn head(path: &Path, limits: &Limits) -> Result<(BufReader<File>, Manifest), CliError> {
    let mut file = BufReader::new(File::open(path).map_err(at(path))?);
    let manifest = match read_head(&mut file, limits) {
        Err(ContainerError::Manifest(ManifestError::OverLimit("memory"))) => {
            let wants = inspect(path)?.memory + u64::from(Limits::DELTA_CHUNK);
            return Err(CliError::Hinted(
                format!(
                    "{}: applying it takes {} of memory",
                    path.display(),
                    bytes(wants)
                ),
                format!("allow it: --memory {}", wants.div_ceil(1 << 20)),
            ));
        }
        other => other.map_err(|e| failed(&path.display().to_string(), &e))?,
    };
    let begin = file.stream_position().map_err(at(path))?;
    let length = file.get_ref().metadata().map_err(at(path))?.len();
    let wanted = begin + manifest.payload.length;
    if length != wanted {
        return Err(CliError::Hinted(
            format!(
                "{}: the delta is damaged or incomplete: it has {length} bytes of {wanted}",
                path.display()
            ),
            "fetch it again".into(),
        ));
    }
    Ok((file, manifest))
}

fn inspect(path: &Path) -> Result<Manifest, CliError> {
    Ok(head(path, &generous())?.1)
}

/// Refuses an input that is not a plain file: the end of a device or a pipe is not known.
fn must_be_file(path: &Path) -> Result<(), CliError> {
    if fs::metadata(path).map_err(at(path))?.is_file() {
        return Ok(());
    }
    let text = format!("{}: not a regular file", path.display());
    Err(CliError::Failed(text))
}

/// Refuses an output path that holds anything but a plain file or nothing: the result would replace
/// it, or be written through it.
fn regular_or_none(path: &Path) -> Result<(), CliError> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => Err(CliError::Hinted(
            format!(
                "{}: something other than a regular file is in the way",
                path.display()
            ),
            "choose a file name that does not exist yet".into(),
        )),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(path)(e)),
        _ => Ok(()),
    }
}

/// Refuses an output path that would replace an input.
fn output(path: &Path, inputs: &[&PathBuf]) -> Result<(), CliError> {
    regular_or_none(path)?;
    let same = |input: &&&PathBuf| {
        let real = |p: &Path| fs::canonicalize(p).ok();
        real(path).is_some_and(|it| Some(it) == real(input))
    };
    match inputs.iter().find(same) {
        None => Ok(()),
        Some(input) => Err(CliError::Hinted(
            format!("{}: the result would overwrite it", input.display()),
            "name another file".into(),
        )),
    }
}
