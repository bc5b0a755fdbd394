//! Two versions of a small program.

use std::path::PathBuf;

use tidegate_delta::{DeltaOptions, Encoding, Manifest, archive, make_delta};
use tidegate_protocol::Image;

use super::device::Sort;

/// Two versions of a program, and the delta between them.
pub(super) struct Versions {
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
    /// Previous contents of the other slot.
    pub(super) older: Vec<u8>,
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// Contents of their trees; empty for backends without trees.
    pub(super) trees: [Vec<(PathBuf, Vec<u8>)>; 2],
}

pub(super) fn image_of(bytes: &[u8]) -> Image {
    Image {
        sha256: tidegate_delta::sha256(bytes),
        length: bytes.len() as u64,
    }
}

fn text(seed: u32) -> String {
    let line = |i: u32| format!("{:x}\n", i.wrapping_mul(seed) >> 7);
    (0..60).map(line).collect()
}

impl Versions {
    pub(super) fn new(sort: Sort) -> Self {
        let make = |seed| match sort {
            Sort::Directory => {
                let dir = tempfile::tempdir().unwrap();
                std::fs::create_dir(dir.path().join("bin")).unwrap();
                std::fs::write(dir.path().join("bin/app"), text(seed)).unwrap();
                std::fs::write(dir.path().join("VERSION"), seed.to_string()).unwrap();
                #[cfg(unix)]
                std::os::unix::fs::symlink("bin/app", dir.path().join("app")).unwrap();
                archive::pack(dir.path(), Vec::new()).unwrap()
            }
            _ => text(seed).into_bytes(),
        };
        let (old, new) = (make(2_654_435_761), make(2_246_822_519));
        let options = DeltaOptions {
            chunk: 256,
            frame: 4_096,
            ..DeltaOptions::new(Encoding::Quick)
        };
        let mut payload = Vec::new();
        let manifest = make_delta(&old, &new, &mut payload, &options).unwrap();
        Self {
            trees: [&old, &new].map(|bytes| match sort {
                Sort::Directory => entries_of(bytes),
                _ => Vec::new(),
            }),
            older: make(3_266_489_917),
            old,
            new,
            manifest_bytes: manifest.to_bytes().unwrap(),
            manifest,
            payload,
        }
    }
}

/// The files and links of a test archive.
fn entries_of(bytes: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    archive::unpack(bytes, dir.path()).unwrap();
    let app = std::fs::read(dir.path().join("bin/app")).unwrap();
    let version = std::fs::read(dir.path().join("VERSION")).unwrap();
    vec![
        ("VERSION".into(), version),
        ("app".into(), b"bin/app".to_vec()),
        ("bin/app".into(), app),
    ]
}

impl Versions {
    pub(super) fn chunks(&self) -> usize {
        self.manifest.chunks.len()
    }
}
