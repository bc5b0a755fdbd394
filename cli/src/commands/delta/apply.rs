//! `delta apply`.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tidegate_apply::{Around, Program};
use tidegate_delta::{ApplyError, Image, Kept, Limits, Manifest, ReadAt, make_raw};
use tidegate_protocol::error_chain;

use super::sparse::Sparse;
use super::{decoder, failed, head, must_be_file, output, regular_or_none};
use crate::commands::Context;
use crate::error::{CliError, at};
use crate::output::{bytes, show};

/// Result of an apply.
#[derive(Deserialize, Serialize)]
struct Applied {
    to: Image,
    resumed_at: u64,
    milliseconds: u64,
}

/// Path of the new file while it is being made.
fn part_of(new: &Path) -> PathBuf {
    let mut name = new.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Makes the new file; it appears only when it is complete and verified.
pub(super) fn apply(
    context: &Context,
    [old, delta, new]: [&PathBuf; 3],
    memory: u32,
) -> Result<(), CliError> {
    let limits = Limits {
        max_memory: decoder(memory),
        ..Limits::default()
    };
    let (mut payload, manifest) = head(delta, &limits)?;
    must_be_file(old)?;
    output(new, &[delta])?;
    let begin = payload.stream_position().map_err(at(delta))?;
    let base = File::open(old).map_err(at(old))?;
    let image = make_raw(&mut &base).map_err(|e| failed(&old.display().to_string(), &e))?;
    if let Some(from) = manifest.from
        && image.to != from
    {
        return Err(CliError::Hinted(
            format!(
                "{} is not the base of this delta: its SHA-256 is {}",
                old.display(),
                image.to.sha256
            ),
            format!(
                "it starts from a file of {} with SHA-256 {}",
                bytes(from.length),
                from.sha256
            ),
        ));
    }
    let part = part_of(new);
    regular_or_none(&part)?;
    let started = Instant::now();
    let mut length = fs::metadata(&part).map_or(0, |m| m.len().min(manifest.to.length));
    loop {
        match apply_from(&manifest, &base, &mut payload, &part, length, &limits) {
            Ok(()) => break,
            // The partial file was not ours: start over.
            Err(ApplyError::WrongImage) if length > 0 => length = 0,
            Err(error) => return Err(not_applied(&error, [old, delta], &part)),
        }
        payload
            .seek(io::SeekFrom::Start(begin))
            .map_err(at(delta))?;
    }
    fs::rename(&part, new).map_err(at(new))?;
    let applied = Applied {
        to: manifest.to,
        resumed_at: length,
        milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    show(context.format, &applied, |a| {
        let resumed = match a.resumed_at {
            0 => String::new(),
            at => format!(", {} of them from an earlier run", bytes(at)),
        };
        format!(
            "{}: {}{resumed}, in {} ms",
            new.display(),
            bytes(a.to.length),
            a.milliseconds
        )
    })
}

/// Builds the error of a failed apply, with a hint. Keeps the partial file if the next apply can
/// resume from it, deletes it otherwise.
fn not_applied(error: &ApplyError, [old, delta]: [&PathBuf; 2], part: &Path) -> CliError {
    let (what, hint) = match error {
        ApplyError::Write(_) | ApplyError::ReadKept(_) => {
            (part, "free some space, then apply again")
        }
        ApplyError::Scratch(_) => (
            part,
            "free as much space as `tidegate delta inspect` says, then apply again",
        ),
        ApplyError::NoDecoder(_) => (
            delta.as_path(),
            "free some memory, or allow more processes, then apply again",
        ),
        ApplyError::ReadOld(_) => (old.as_path(), "check the disk that it is on"),
        _ => (
            delta.as_path(),
            "the delta is damaged or incomplete: fetch it again",
        ),
    };
    let left = fs::metadata(part).map_or(0, |m| m.len());
    let keeps = matches!(
        error,
        ApplyError::Write(_) | ApplyError::Scratch(_) | ApplyError::NoDecoder(_)
    ) && left > 0;
    let mut text = format!("{}: {}", what.display(), error_chain(error));
    if keeps {
        text = format!(
            "{text}; {} are kept in {}, from which the next apply resumes",
            bytes(left),
            part.display()
        );
    } else {
        let _ = fs::remove_file(part);
    }
    CliError::Hinted(text, hint.to_owned())
}

/// Applies with the first `length` bytes of `part` already there.
fn apply_from(
    manifest: &Manifest,
    base: &File,
    payload: &mut BufReader<File>,
    part: &Path,
    length: u64,
    limits: &Limits,
) -> Result<(), ApplyError> {
    let open = || {
        let out = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(part)?;
        out.set_len(length)?;
        Ok((out.try_clone()?, out))
    };
    let (there, out) = open().map_err(ApplyError::Write)?;
    let kept = Kept {
        bytes: &there,
        length,
    };
    let sparse = Sparse::new(&out).map_err(ApplyError::Write)?;
    let writer = BufWriter::with_capacity(256 << 10, sparse);
    let base: &dyn ReadAt = base;
    // Beside the result, where there is room for images.
    let dir = part.parent().filter(|p| !p.as_os_str().is_empty());
    let scratch = match manifest.scratch {
        0 => None,
        _ => Some(
            tempfile::tempfile_in(dir.unwrap_or(Path::new("."))).map_err(ApplyError::Scratch)?,
        ),
    };
    let around = Around {
        old: Some(base),
        kept: Some(kept),
        scratch: scratch.as_ref(),
    };
    let mut applier = Program::this().applier(manifest, around, writer, limits)?;
    let mut buffer = Vec::new();
    for (index, chunk) in manifest.chunks.iter().enumerate() {
        buffer.resize(chunk.length as usize, 0);
        payload
            .read_exact(&mut buffer)
            .map_err(|_| ApplyError::ChunkCorrupt {
                index,
                what: "length",
            })?;
        applier.push_chunk(&buffer)?;
    }
    applier.finish()?.flush().map_err(ApplyError::Write)?;
    out.sync_all().map_err(ApplyError::Write)
}
