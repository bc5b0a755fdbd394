//! The server's log: one line an event, whatever its fields say.
//!
//! Fields may quote devices, publishers, operators and strangers. Each goes through one function before it
//! is written: nothing in a log moves a cursor, hides text, is endless, or passes for a line or a field of
//! the server's own.

use std::fmt::{self, Debug};

use serde_json::{Map, Value};
use tidegate_protocol::{bounded, cut, plain};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// For people: time, level, target, message, fields.
    Text,
    /// One JSON object a line.
    Json,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let meta = event.metadata();
        let line = match self {
            Self::Text => fields.text(&time, meta.level().as_str(), meta.target()),
            Self::Json => fields.json(&time, meta.level().as_str(), meta.target()),
        };
        writeln!(out, "{line}")
    }
}

/// Fields of one event, in order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), cut(value).into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }
}

impl Fields {
    fn text(self, time: &str, level: &str, target: &str) -> String {
        let mut message = String::new();
        let mut rest = String::new();
        for (name, value) in self.0 {
            match value {
                Value::String(text) if name == "message" => message = bounded(&text),
                // Quoted, so that no text passes for a field beside it.
                Value::String(text) if text.contains([' ', '=', '"']) => {
                    rest += &format!(" {name}={}", plain(&Value::from(text).to_string()));
                }
                Value::String(text) => rest += &format!(" {name}={}", bounded(&text)),
                value => rest += &format!(" {name}={value}"),
            }
        }
        format!("{time} {level:>5} {target}: {message}{rest}")
    }

    fn json(self, time: &str, level: &str, target: &str) -> String {
        let fields: Map<String, Value> = self
            .0
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let line = serde_json::json!({
            "timestamp": time, "level": level, "fields": fields, "target": target,
        });
        // JSON escapes line breaks itself; the form of these escapes keeps it JSON.
        plain(&line.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const HOSTILE: &str =
        "x\nFORGED INFO\r\u{1b}[2J\u{9b}8m\u{202e}\u{200b}\u{2028}\u{e0041} level=ERROR \"why";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(lines: Lines) -> String {
        let kept = Kept::default();
        let out = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || out.clone())
            .event_format(lines)
            .boxed();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let long = "a".repeat(100_000);
            tracing::warn!(why = HOSTILE, shown = %HOSTILE, long, n = 7, "said {HOSTILE}");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn whatever_a_field_or_message_says_a_log_entry_is_one_bounded_line_of_ours() {
        for lines in [Lines::Text, Lines::Json] {
            let text = logged(lines);
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(text.ends_with('\n') && text.len() < 10_000, "{text}");
            for c in text.trim_end().chars() {
                let hidden = matches!(c, '\u{200b}'..='\u{202e}' | '\u{e0000}'..='\u{e007f}');
                assert!(!c.is_control() && !hidden, "{c:?} in {text}");
            }
            assert!(text.contains("FORGED"), "the test can fail");
        }
        // Quoted as a whole: no field of its own.
        assert!(logged(Lines::Text).contains("level=ERROR \\\"why\" shown="));
        let value: Value = serde_json::from_str(&logged(Lines::Json)).unwrap();
        assert_eq!(
            (&value["level"], &value["fields"]["n"]),
            (&"WARN".into(), &7.into())
        );
        assert_eq!(value["fields"]["why"], HOSTILE);
    }
}
