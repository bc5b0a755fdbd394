//! Values of options.

use std::path::{Path, PathBuf};

use tidegate_trust::CommandLine;

use crate::host::{health, program};

/// Makes a path absolute: commands run in other folders, where a relative one would lead elsewhere.
pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A duration as people write it, in seconds: `90`, `90s`, `30m`, `8h`, `2d`.
pub(super) struct Span(pub(super) u64);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || "expected a duration like 90s, 30m, 8h or 2d".to_owned();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(refuse()),
        };
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        number.checked_mul(seconds).map(Self).ok_or_else(refuse)
    }
}

/// Parses the value of an option; the error names the option.
pub(super) fn typed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<String>,
) -> Result<Option<T>, lexopt::Error> {
    text.map(|text| {
        text.parse::<T>()
            .map_err(|e| lexopt::Error::from(format!("--{name} {text}: {e}")))
    })
    .transpose()
}

/// Parses a command line of the owner's, split at spaces.
pub(super) fn line(name: &str, text: &str, timeout_s: u32) -> Result<CommandLine, lexopt::Error> {
    let command: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return Err(format!("--{name} is empty").into());
    }
    if timeout_s == 0 {
        return Err(format!("--{name}: a timeout of 0 s leaves it no time").into());
    }
    let line = CommandLine { command, timeout_s };
    Ok(line)
}

/// Checks that a command of the machine can be started; the error names the option. A program that a version
/// brings is not there yet.
pub(super) fn startable(
    name: &str,
    line: &CommandLine,
    from: &Path,
    brings: impl Fn(&Path) -> bool,
) -> Result<(), lexopt::Error> {
    for word in health::programs(line) {
        let path = Path::new(word);
        let inside = path.is_relative() && path.components().count() > 1;
        match program::find(word, from) {
            Err(not) if !(not.by_folder && (inside || brings(path))) => {
                return Err(format!("--{name}: {}", not.what).into());
            }
            _ => {}
        }
    }
    Ok(())
}
