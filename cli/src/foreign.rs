//! Text of somebody else, made fit for a person's terminal.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_protocol::plain;

/// Longest text of somebody else that is shown to people, in characters.
const MOST: usize = 4_000;

/// Makes every text in a value fit to be shown: one line, without anything that moves a cursor or
/// hides text, and not endless. Whatever a view contains, it cannot pass for a line of ours.
pub(crate) fn shown<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, serde_json::Error> {
    let mut value = serde_json::to_value(value)?;
    make_plain(&mut value);
    serde_json::from_value(value)
}

fn make_plain(value: &mut Value) {
    match value {
        Value::String(text) => *text = bounded(text),
        Value::Array(values) => values.iter_mut().for_each(make_plain),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut value)| {
                    make_plain(&mut value);
                    (bounded(&name), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One line of a text of somebody else, cut at [`MOST`] characters with a word on what is left out.
pub(crate) fn bounded(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        None => plain(text),
        Some((at, _)) => {
            let (start, rest) = text.split_at(at);
            format!(
                "{}... ({} more characters)",
                plain(start),
                rest.chars().count()
            )
        }
    }
}
