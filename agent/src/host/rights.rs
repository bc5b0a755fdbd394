//! Rights of others to what this process makes.

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
