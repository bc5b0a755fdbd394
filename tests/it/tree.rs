//! The tree of this repository, for the tests that read it.

use std::path::{Path, PathBuf};

/// Root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Name of a file from the root.
pub(crate) fn name(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().display().to_string()
}

/// Files below a folder of the root with one of these extensions, without what is built and what
/// fuzzing keeps, which is made of bytes.
pub(crate) fn files(folder: &str, kinds: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["corpus", "target", ".git"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if kinds
                .iter()
                .any(|kind| path.extension().is_some_and(|e| e == *kind))
            {
                found.push(path);
            }
        }
    }
    found
}
