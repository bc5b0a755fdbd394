//! `delta`: make, apply and inspect deltas of files, without a server.

mod args;

pub(crate) use args::DeltaCommand;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use tidegate_delta::container::{ContainerError, read_head, write_head};
use tidegate_delta::{
    Applier, ApplyError, DeltaOptions, Encoding, Image, Kept, Limits, Manifest, ManifestError,
    ReadAt, make_bsdiff, make_delta, make_full, make_raw,
};
use tidegate_protocol::error_chain;

use super::Context;
use crate::error::CliError;
use crate::output::{bytes, bytes_bar, show};

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

fn at(path: &Path) -> impl Fn(io::Error) -> CliError + '_ {
    move |e| CliError::Failed(format!("{}: {e}", path.display()))
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

/// Facts about a delta, as shown.
#[derive(Debug, Serialize)]
struct View {
    encoding: Encoding,
    from: Option<Image>,
    to: Image,
    payload: Image,
    chunks: usize,
    memory: u64,
    work: u64,
    scratch: u64,
}

fn view(manifest: &Manifest) -> View {
    View {
        encoding: manifest.encoding,
        from: manifest.from,
        to: manifest.to,
        payload: manifest.payload,
        chunks: manifest.chunks.len(),
        memory: manifest.memory,
        work: manifest.work,
        scratch: manifest.scratch,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number for people")]
fn millions(number: u64) -> f64 {
    number as f64 / 1e6
}

fn describe(view: &View) -> String {
    let image = |image: &Image| format!("{} {}", image.sha256, bytes(image.length));
    let from = view.from.as_ref().map_or("nothing".into(), image);
    let part = if view.to.length == 0 {
        0.0
    } else {
        // For people: two digits are enough.
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let part = view.payload.length as f64 * 100.0 / view.to.length as f64;
        part
    };
    let scratch = match view.scratch {
        0 => String::new(),
        file => format!(", and a file of {} for unpacked images", bytes(file)),
    };
    format!(
        "encoding  {}\nfrom      {from}\nto        {}\npayload   {} in {}, {part:.2} % of the image\nmemory    {} to apply{scratch}\nwork      {:.1} million model-coded bits",
        view.encoding,
        image(&view.to),
        bytes(view.payload.length),
        match view.chunks {
            1 => "1 chunk".to_owned(),
            chunks => format!("{chunks} chunks"),
        },
        bytes(view.memory + u64::from(Limits::DELTA_CHUNK)),
        millions(view.work),
    )
}

fn diff(
    context: &Context,
    [old, new, delta]: [&PathBuf; 3],
    encoding: Encoding,
    memory: u32,
    threads: Option<u16>,
) -> Result<(), CliError> {
    for input in [old, new] {
        must_be_file(input)?;
    }
    output(delta, &[old, new])?;
    let read = |path: &PathBuf| fs::read(path).map_err(at(path));
    let dir = delta.parent().filter(|p| !p.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let mut payload = tempfile::tempfile_in(dir).map_err(at(dir))?;
    let writer = BufWriter::new(payload.try_clone().map_err(at(delta))?);
    let made = match encoding {
        Encoding::Full | Encoding::Raw => make_full(
            &mut File::open(new).map_err(at(new))?,
            writer,
            Limits::FULL_CHUNK,
        ),
        Encoding::Bsdiff => make_bsdiff(&read(old)?, &read(new)?, writer),
        Encoding::Quick | Encoding::Dense => {
            let (old, new) = (read(old)?, read(new)?);
            let bar = bytes_bar(new.len() as u64, "coding");
            let progress = |done: u64| bar.set_position(done);
            let mut options = DeltaOptions::new(encoding);
            options.memory = decoder(memory);
            options.threads = threads.map_or_else(
                || std::thread::available_parallelism().map_or(1, usize::from),
                usize::from,
            );
            options.progress = Some(&progress);
            let made = aside(|| make_delta(&old, &new, writer, &options));
            bar.finish_and_clear();
            made
        }
    };
    let manifest = made.map_err(|e| failed("no delta was made", &e))?;
    payload.rewind().map_err(at(delta))?;
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(at(dir))?;
    write_head(&manifest, &mut file).map_err(|e| failed("no delta was written", &e))?;
    io::copy(&mut payload, &mut file).map_err(at(delta))?;
    file.as_file().sync_all().map_err(at(delta))?;
    file.persist(delta).map_err(|e| at(delta)(e.error))?;
    show(context.format, &view(&manifest), describe)
}

/// Runs `work` with standard output redirected to standard error: standard output is for results,
/// and the library that reads packed streams prints lines of its own there.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        let kept = rustix::io::dup(rustix::stdio::stdout());
        if let Ok(kept) = &kept {
            // If this fails, the lines stay on standard output; nothing else is wrong.
            let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
            let done = work();
            let _ = rustix::stdio::dup2_stdout(kept);
            return done;
        }
    }
    work()
}

/// Result of an apply.
#[derive(Serialize)]
struct Applied {
    to: Image,
    resumed_at: u64,
    milliseconds: u128,
}

/// Path of the new file while it is being made.
fn part_of(new: &Path) -> PathBuf {
    let mut name = new.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn apply(context: &Context, [old, delta, new]: [&PathBuf; 3], memory: u32) -> Result<(), CliError> {
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
        milliseconds: started.elapsed().as_millis(),
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
        ApplyError::ReadOld(_) => (old.as_path(), "check the disk that it is on"),
        _ => (
            delta.as_path(),
            "the delta is damaged or incomplete: fetch it again",
        ),
    };
    let left = fs::metadata(part).map_or(0, |m| m.len());
    let keeps = matches!(error, ApplyError::Write(_) | ApplyError::Scratch(_)) && left > 0;
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
        let mut out = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(part)?;
        out.set_len(length)?;
        out.seek(io::SeekFrom::End(0))?;
        Ok((out.try_clone()?, out))
    };
    let (there, out) = open().map_err(ApplyError::Write)?;
    let kept = Kept {
        bytes: &there,
        length,
    };
    let writer = BufWriter::with_capacity(256 << 10, &out);
    let base: &dyn ReadAt = base;
    // Beside the result, where there is room for images.
    let dir = part.parent().filter(|p| !p.as_os_str().is_empty());
    let scratch = match manifest.scratch {
        0 => None,
        _ => Some(
            tempfile::tempfile_in(dir.unwrap_or(Path::new("."))).map_err(ApplyError::Scratch)?,
        ),
    };
    let mut applier = Applier::resuming(manifest, Some(base), Some(kept), writer, limits)?;
    if let Some(scratch) = &scratch {
        applier = applier.with_scratch(scratch);
    }
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
