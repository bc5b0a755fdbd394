//! Packing of a file or a folder into the bytes of an artifact.

use std::io::Write;
use std::path::Path;

use tidegate_delta::Hasher;
use tidegate_delta::archive::{Changes, PackOptions, check_raw, pack_with};
use tidegate_protocol::Image;
use tidegate_trust::ImageFacts;

use crate::error::CliError;
use crate::output::bytes_bar;

/// Writer that hashes the bytes it passes on and advances the bar.
struct Counting<W> {
    inner: W,
    hasher: Hasher,
    bar: indicatif::ProgressBar,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.bar.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Packs into a temporary file; returns it with its hash and length, and what packing has changed.
pub(crate) fn pack_artifact(
    path: &Path,
    format: &str,
    options: PackOptions,
) -> Result<(std::fs::File, Image, Changes), CliError> {
    let file = tempfile::tempfile()?;
    let bar = bytes_bar(0, "packing");
    let writer = std::io::BufWriter::with_capacity(1 << 20, file.try_clone()?);
    let counting = Counting {
        inner: writer,
        hasher: Hasher::new(),
        bar: bar.clone(),
    };
    let failed = |e| CliError::failed("packing", &e);
    let (mut counting, changes) = if format == ImageFacts::RAW {
        let counting = copy_raw(path, counting)?;
        (counting, check_raw(path, options).map_err(failed)?)
    } else {
        pack_with(path, counting, options).map_err(failed)?
    };
    counting.flush()?;
    bar.finish_and_clear();
    Ok((file, counting.hasher.finish(), changes))
}

/// Copies a file as it is.
fn copy_raw<W: Write>(path: &Path, mut out: W) -> Result<W, CliError> {
    let meta = std::fs::metadata(path)
        .map_err(|e| CliError::failed(&format!("{}", path.display()), &e))?;
    if !meta.is_file() || meta.len() == 0 {
        let what = "--format raw takes a single non-empty file";
        return Err(CliError::Failed(format!("{}: {what}", path.display())));
    }
    let mut file = std::fs::File::open(path)?;
    let copied = std::io::copy(&mut file, &mut out)?;
    let after = file.metadata()?;
    if copied != meta.len() || after.len() != meta.len() || after.modified()? != meta.modified()? {
        return Err(CliError::Hinted(
            format!("{}: it was changed while it was packed", path.display()),
            "stop what writes to it, then try again".into(),
        ));
    }
    Ok(out)
}
