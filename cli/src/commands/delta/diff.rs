//! `delta diff`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _};
use std::path::{Path, PathBuf};

use tidegate_delta::container::write_head;
use tidegate_delta::{DeltaOptions, Encoding, Limits, make_bsdiff, make_delta, make_full};

use super::{decoder, describe, failed, must_be_file, output, view};
use crate::commands::Context;
use crate::error::{CliError, at};
use crate::output::{bytes_bar, show};

/// Makes a delta between two files.
pub(super) fn diff(
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
