//! Text of somebody else, made fit for a person's terminal.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_api::EventView;
use tidegate_protocol::{Speaker, bounded, said};

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

/// Text of an event: what a device reports is marked as its word, in its actor's name or another's.
pub(crate) fn spoken(event: &EventView) -> String {
    if event.actor_kind == "device" {
        said(Speaker::Device, &event.text)
    } else {
        bounded(&event.text)
    }
}
