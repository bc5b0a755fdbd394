//! Minimal boot loader, for images and for hooks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_machine::fsm::SlotId;

use crate::fs::{Fs, Mode};
use crate::install::{SlotError, Verbs};

/// Boot attempts that the boot loader gives a slot on trial. With fewer than there may be power
/// cuts in a trial, a good version would be taken for one that does not start.
const STARTS: usize = 3;

/// The boot loader: the running slot, the next one, and the starts left of its trial.
pub(super) struct Boot {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) env: PathBuf,
}

/// Reads `running good trial`, where trial is the slot, once per start it has left, or `-`.
pub(super) fn env_of(fs: &dyn Fs, env: &Path) -> [String; 3] {
    read(fs, env).unwrap()
}

fn read(fs: &dyn Fs, env: &Path) -> Result<[String; 3], SlotError> {
    let bytes = fs.read(env, 64).map_err(at(env))?.unwrap_or_default();
    let text = String::from_utf8(bytes).unwrap();
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    // A lost environment starts nothing.
    Ok(words
        .try_into()
        .unwrap_or_else(|_| ["-", "-", "-"].map(str::to_owned)))
}

fn at(env: &Path) -> impl FnOnce(io::Error) -> SlotError + '_ {
    move |source| SlotError::Io {
        path: env.to_owned(),
        source,
    }
}

impl Boot {
    pub(super) fn write(&self, [running, good, trial]: [&str; 3]) -> Result<(), SlotError> {
        if read(&*self.fs, &self.env)? == [running, good, trial] {
            return Ok(());
        }
        let text = format!("{running} {good} {trial}");
        self.fs
            .replace(&self.env, text.as_bytes(), Mode::Plain)
            .map_err(at(&self.env))
    }
}

impl Verbs for Boot {
    /// Serves as an image's boot switch and as a hook that manages versions.
    fn call(&self, verb: &str, wanted: Option<SlotId>, _: &Path) -> Result<String, SlotError> {
        let [running, good, trial] = read(&*self.fs, &self.env)?;
        let wanted = wanted.map_or("-", SlotId::name);
        match verb {
            "booted" => Ok(running),
            "next" => Ok(if trial == "-" {
                good
            } else {
                trial[..1].to_owned()
            }),
            "current" => Ok(running),
            "set" if good == wanted => self.write([&running, &good, "-"]).map(|()| String::new()),
            "set" => self
                .write([&running, &good, &wanted.repeat(STARTS)])
                .map(|()| String::new()),
            "activate" => self.write([wanted, wanted, "-"]).map(|()| String::new()),
            "confirm" => self.write([&running, wanted, "-"]).map(|()| String::new()),
            "install" => Ok(String::new()),
            other => panic!("{other}"),
        }
    }
}
