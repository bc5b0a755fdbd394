//! Results on standard output, progress on standard error.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_protocol::{plain, plain_lines};

use crate::error::CliError;
use crate::foreign;

/// Form of results on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

/// Prints a result as JSON, or in the form for people.
pub(crate) fn show<T: Serialize + DeserializeOwned>(
    format: Format,
    value: &T,
    people: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    let text = match format {
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|e| CliError::failed("JSON", &e))?
        }
        Format::Table => {
            people(&foreign::shown(value).map_err(|e| CliError::failed("showing the answer", &e))?)
        }
    };
    line(&text)
}

/// Prints a text of one or more lines on standard output. Escape sequences in it, which always come
/// from somebody else, are shown and not obeyed.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    write(format!("{}\n", plain_lines(text.trim_end())).as_bytes())
}

/// Writes bytes to standard output as they are.
pub(crate) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Result of writing to standard output: a closed pipe (`| head`) is the reader's choice and no
/// error, a full disk is one.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(CliError::Failed(format!(
            "standard output cannot be written: {e}"
        ))),
        _ => Ok(()),
    }
}

/// Prints a text of one or more lines on standard error, like [`line()`].
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain_lines(text));
}

/// Renders a plain table. Each cell is one line, whatever its text.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    table
        .lines()
        .map(|l| l.trim_end().trim_start().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns whether to use colors and progress bars: on a terminal, unless plain text is asked for.
pub(crate) fn fancy() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var_os("CI").is_none()
}

/// Creates a progress bar over bytes; hidden where there is no terminal.
pub(crate) fn bytes_bar(total: u64, what: &str) -> ProgressBar {
    if !fancy() {
        return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    if let Ok(style) =
        ProgressStyle::with_template("{msg:12} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// First characters of a hash: enough to tell two apart by eye.
pub(crate) fn start(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// Time of day of a time that the server sent.
pub(crate) fn clock(at: &str) -> &str {
    at.get(11..19).unwrap_or(at)
}

/// Formats a byte count for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}
