//! Check of what an artifact unpacks to, before a release has it.
//!
//! Whoever publishes with this project's own tool is told by it. An artifact may have been made and
//! uploaded by anything else, and devices would fail on it one by one.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tidegate_delta::archive::names::{System, unfit};
use tidegate_delta::archive::{ArchiveError, Examined, examine};
use tidegate_protocol::{Image, error_chain};
use tidegate_store::artifacts::Artifact;
use tidegate_trust::ImageFacts;
use tokio::runtime::Handle;

use crate::CoreError;
use crate::app::App;
use crate::blob::{BlobError, Blobs};

use super::facts_of;

/// Bytes fetched at a time: headers of small files lie close together, and a request to a store far away
/// costs as much as this.
const WINDOW: u64 = 4 << 20;

impl App {
    /// Checks that devices of its platform can have what an artifact unpacks to, and that they lose
    /// nothing of it. An artifact that is not signed as an archive of files has no names.
    pub(super) async fn check_tree(&self, artifact: &Artifact) -> Result<(), CoreError> {
        let plan = self.fleet.plan();
        let mut signed = facts_of(&plan, artifact);
        if !signed.any(|(_, facts)| facts.format == ImageFacts::TAR) {
            return Ok(());
        }
        let mut stored = Stored {
            blobs: self.blobs.clone(),
            runtime: Handle::current(),
            image: artifact.image,
            at: 0,
            window: (0, Bytes::new()),
            failed: None,
        };
        let examining = tokio::task::spawn_blocking(move || {
            let examined = examine(&mut stored);
            (examined, stored.failed)
        });
        let (examined, failed) = examining
            .await
            .map_err(|error| CoreError::Blob(BlobError::Read(error.into())))?;
        if let Some(error) = failed {
            return Err(CoreError::Blob(error));
        }
        judge(examined, artifact)
    }
}

fn judge(examined: Result<Examined, ArchiveError>, artifact: &Artifact) -> Result<(), CoreError> {
    let Artifact {
        version, platform, ..
    } = artifact;
    let refused = |what: &str, ways: &str| {
        CoreError::invalid(format!(
            "{version} for {platform} cannot be installed as it is: {what}; {ways}"
        ))
    };
    let Examined { entries, losses } =
        examined.map_err(|error| refused(&error_chain(&error), PACK))?;
    if entries.is_empty() {
        return Err(refused("it is an archive without files", PACK));
    }
    if !losses.is_empty() {
        let text = format!("a version does not carry {}", losses.join(", "));
        return Err(refused(&text, PACK));
    }
    // Whether the software can open long paths is its publisher's to know.
    let unfit = unfit(System::of(platform), &entries, true);
    if !unfit.is_empty() {
        let ways = "rename them, or leave them out of what is published for this platform";
        return Err(refused(&unfit.join(", "), ways));
    }
    Ok(())
}

const PACK: &str = "pack it with `tidegate release publish`, which says what to do with each";

/// A stored blob, read by one thread a window at a time.
struct Stored {
    blobs: Blobs,
    runtime: Handle,
    image: Image,
    at: u64,
    /// The bytes fetched last, and their offset.
    window: (u64, Bytes),
    /// The store's error: it is none of the archive.
    failed: Option<BlobError>,
}

impl Read for Stored {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let end = self.window.0 + self.window.1.len() as u64;
        if !(self.window.0..end).contains(&self.at) && self.at < self.image.length {
            let range = self.at..self.image.length.min(self.at.saturating_add(WINDOW));
            let read = self.blobs.read(self.image.sha256, range);
            match self.runtime.block_on(read) {
                Ok(bytes) => self.window = (self.at, bytes),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("the blob store failed"));
                }
            }
        }
        let skip = usize::try_from(self.at - self.window.0.min(self.at)).unwrap_or(usize::MAX);
        let there = self.window.1.get(skip..).unwrap_or_default();
        let take = there.len().min(buf.len());
        buf[..take].copy_from_slice(&there[..take]);
        self.at += take as u64;
        Ok(take)
    }
}

impl Seek for Stored {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.image.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
