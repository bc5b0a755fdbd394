//! Reconstruction of artifacts, shared by all backends.

use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tidegate_apply::Around;
use tidegate_delta::{Applier, ApplyError, Hasher, Kept, Limits, Manifest, ReadAt};
use tidegate_protocol::Image;

use super::{Order, Payload, SlotError, at};
use crate::fs::{Appending, Fs, FsFile, Mode, Open, Sequential};

/// Files for building an artifact, and for resuming an interrupted attempt.
pub(super) struct Workshop<'a> {
    pub(super) fs: &'a dyn Fs,
    /// Folder of temporary files: `made`, `unpacked`.
    pub(super) dir: &'a Path,
    /// File that becomes the artifact, and its path for errors.
    pub(super) file: &'a dyn FsFile,
    pub(super) path: &'a Path,
}

impl Workshop<'_> {
    fn made(&self) -> PathBuf {
        self.dir.join("made")
    }

    /// Builds the artifact from a payload and, for a delta, the old one. Resumes an interrupted
    /// attempt; whatever that left, the result is the ordered image, or an error.
    pub(super) fn make(&self, order: Order<'_>, old: Option<&dyn ReadAt>) -> Result<(), SlotError> {
        if order.manifest.to != order.image {
            return Err(SlotError::WrongImage);
        }
        let unpacked = self.dir.join("unpacked");
        let scratch = match order.manifest.scratch {
            0 => None,
            _ => Some(
                self.fs
                    .open(&unpacked, Open::Update(Mode::Private))
                    .map_err(at(&unpacked))?,
            ),
        };
        let around = Around {
            old,
            kept: None,
            scratch: scratch.as_ref().and_then(|file| file.as_file()),
        };
        let there = self.kept(order.image)?;
        match self.apply(order, around, there) {
            // The resumed bytes were wrong, whatever the storage said: start over.
            Err(SlotError::Apply(ApplyError::WrongImage)) if there > 0 => {
                self.apply(order, around, 0)?;
            }
            other => other?,
        }
        // Closed here: an open file keeps its space, which the next steps may need.
        drop(scratch);
        self.fs.remove_if_there(&unpacked).map_err(at(&unpacked))
    }

    /// Bytes of the image that are durable, according to the last attempt's note.
    fn kept(&self, image: Image) -> Result<u64, SlotError> {
        let path = self.made();
        let note = self.fs.read(&path, 256).map_err(at(&path))?;
        let text = String::from_utf8(note.unwrap_or_default()).unwrap_or_default();
        let mut words = text.split_whitespace();
        let of = words.next() == Some(image.sha256.to_string().as_str());
        let bytes = words.next().and_then(|word| word.parse::<u64>().ok());
        let whole = self.file.length().map_err(at(self.path))?;
        Ok(bytes.filter(|bytes| of && *bytes <= whole).unwrap_or(0))
    }

    /// Applies the chunks of the payload, each verified before it is decoded.
    fn apply(&self, order: Order<'_>, around: Around<'_>, there: u64) -> Result<(), SlotError> {
        let limits = Limits::default();
        let failed = |e| SlotError::Apply(ApplyError::Write(e));
        let length = there.min(order.image.length);
        self.file.set_length(length).map_err(failed)?;
        let kept = Kept {
            bytes: self.file,
            length,
        };
        let noting = Noting {
            shop: self,
            image: order.image,
            noted: length,
            out: Appending {
                file: self.file,
                at: length,
            },
        };
        let writer = BufWriter::with_capacity(256 << 10, noting);
        let around = Around {
            kept: Some(kept),
            ..around
        };
        let mut applier = match order.decoder {
            Some(program) => program.applier(order.manifest, around, writer, &limits),
            None => around.applier(order.manifest, writer, &limits),
        }
        .map_err(SlotError::Apply)?;
        feed(order.manifest, order.payload, &mut applier)?;
        let mut writer = applier.finish().map_err(SlotError::Apply)?;
        writer.flush().map_err(failed)
    }

    /// Removes the note of progress: the artifact is in its place.
    pub(super) fn close(&self) -> Result<(), SlotError> {
        let path = self.made();
        self.fs.remove_if_there(&path).map_err(at(&path))
    }
}

fn feed<W: Write>(
    manifest: &Manifest,
    payload: &dyn Payload,
    applier: &mut Applier<'_, W>,
) -> Result<(), SlotError> {
    let mut buffer = Vec::new();
    for (index, chunk) in manifest.chunks.iter().enumerate() {
        buffer.resize(chunk.length as usize, 0);
        // A chunk lost by the storage does not fail the update: it is fetched again.
        payload.chunk(index, &mut buffer).map_err(|error| {
            if crate::fs::is_momentary(&error) {
                return SlotError::Apply(ApplyError::Write(error));
            }
            crate::log::line(&format!("chunk {index} of the payload: {error}"));
            let what = "it cannot be read from the disk";
            SlotError::Apply(ApplyError::ChunkCorrupt { index, what })
        })?;
        applier.push_chunk(&buffer).map_err(SlotError::Apply)?;
    }
    Ok(())
}

/// Writer that makes its data durable on each flush, at the end of each frame, and then notes it:
/// the note is never ahead of the data.
struct Noting<'a> {
    shop: &'a Workshop<'a>,
    image: Image,
    noted: u64,
    out: Appending<'a>,
}

/// Interval between syncs of data without frames, in bytes.
const SYNC_EVERY: u64 = 16 << 20;

impl Write for Noting<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buf)?;
        if self.out.at - self.noted >= SYNC_EVERY {
            self.flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.out.at == self.noted {
            return Ok(());
        }
        self.out.flush()?;
        self.noted = self.out.at;
        let note = format!("{} {}\n", self.image.sha256, self.out.at);
        self.shop
            .fs
            .replace(&self.shop.made(), note.as_bytes(), Mode::Private)
    }
}

/// Reader that hashes what it reads.
pub(super) struct Hashing<R> {
    pub(super) inner: R,
    pub(super) hasher: Hasher,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    /// Reads to the end and returns the image of everything that was read.
    pub(super) fn rest(mut self) -> io::Result<Image> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.hasher.update(&buf[..read]);
        Ok(read)
    }
}

/// Hashes the first `length` bytes of a file, read from the medium where the system allows it.
pub(super) fn image_of(file: &dyn FsFile, length: u64) -> io::Result<Image> {
    file.forget();
    let whole = Sequential::whole(file, length);
    Hashing::new(io::BufReader::with_capacity(256 << 10, whole)).rest()
}

/// Copies a file's bytes into a new file and makes them durable. With `like`, nobody else can read the copy
/// until it has what that file has beside its bytes.
pub(super) fn copy_file(
    fs: &dyn Fs,
    from: &dyn FsFile,
    length: u64,
    to: &Path,
    mode: Mode,
    like: Option<&Path>,
) -> io::Result<()> {
    let mode = like.map_or(mode, |_| Mode::Private);
    let file = fs.open(to, Open::New(mode))?;
    let out = Appending {
        file: &*file,
        at: 0,
    };
    let mut out = BufWriter::with_capacity(256 << 10, out);
    io::copy(&mut Sequential::whole(from, length), &mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(like) = like {
        // By the open file: its name may lead elsewhere, in a folder that others may write to.
        fs.take_attributes(&*file, like)?;
    }
    file.sync()
}
