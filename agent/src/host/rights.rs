//! Rights of others to what this process makes.

use std::fs::DirBuilder;
use std::io;
use std::path::Path;

/// Makes a folder and those above it that are missing, in which nobody else writes: where the folder above
/// has a default access list, the umask is not asked.
pub(crate) fn make_dirs(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.recursive(true).create(path)
}

/// Has nobody else write to what this process and its commands make, whatever umask it was started
/// with: whoever may replace a version or a blob decides what runs.
pub fn keep_others_from_writing() {
    #[cfg(unix)]
    {
        use rustix::fs::Mode;
        // It can only be read by setting it.
        let given = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        rustix::process::umask(given | Mode::WGRP | Mode::WOTH);
    }
}
