//! Values of options.

use std::path::{Path, PathBuf};

use tidegate_trust::CommandLine;

use crate::host::command::is_there;

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
    let Some(program) = command.first() else {
        return Err(format!("--{name} is empty").into());
    };
    // A program inside a version does not exist yet; an absolute path must exist already.
    if Path::new(program).is_absolute() && !is_there(program, Path::new("/")) {
        return Err(format!("--{name}: there is no program {program:?}").into());
    }
    Ok(CommandLine { command, timeout_s })
}
