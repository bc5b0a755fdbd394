//! Escaping of foreign text (from devices, servers, publishers) before it reaches a terminal or a
//! log.

use std::borrow::Cow;

/// Escapes everything that could move the cursor, or reorder or hide text, line breaks included:
/// the result is one line. Uses JSON's form `\u001b`, so that JSON text stays JSON.
pub fn plain(text: &str) -> String {
    escape(text, false)
}

/// Escapes like [`plain`] but keeps line breaks and tabs, for text whose lines are our own.
pub fn plain_lines(text: &str) -> String {
    escape(text, true)
}

/// Longest text of somebody else that is shown or logged, in characters.
const MOST: usize = 4_000;

/// Cuts a text of somebody else that is too long, with a word on what is left out.
pub fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MOST) {
        None => Cow::Borrowed(text),
        Some((at, _)) => {
            let (start, rest) = text.split_at(at);
            Cow::Owned(format!(
                "{start}... ({} more characters)",
                rest.chars().count()
            ))
        }
    }
}

/// One line of a text of somebody else, escaped like [`plain`] and cut where it is too long. Each such text
/// goes through here before it reaches a person or a log.
pub fn bounded(text: &str) -> String {
    plain(&cut(text))
}

/// Whoever a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A device, or a program on it.
    Device,
    /// Whoever signs releases.
    Publisher,
    /// A person or pipeline with a token.
    Operator,
    /// The server, to its devices.
    Server,
}

/// Marks a text of somebody else as theirs, on one line: a reader must not take it for the word of whoever
/// shows it.
pub fn said(by: Speaker, text: &str) -> String {
    let who = match by {
        Speaker::Device => "device",
        Speaker::Publisher => "publisher",
        Speaker::Operator => "operator",
        Speaker::Server => "server",
    };
    format!("{who} says: {}", bounded(text))
}

fn escape(text: &str, lines: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' if lines => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || is_invisible(c) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// Returns whether a character shows nothing, or not what it is: Unicode's default-ignorable code points
/// (direction marks, zero-width characters, fillers, variation selectors, tags), separators of lines,
/// blanks that are no space, and what each font draws as it likes (private use).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{17b4}'
        | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
        | '\u{205f}'..='\u{206f}' | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_moves_no_cursor_and_is_one_line() {
        let text = "\u{1b}]0;PWNED\u{7}\u{1b}[2J\u{9b}31mok\r\nforged\tline\u{2028}x";
        let plain = plain(text);
        assert_eq!(
            plain,
            "\\u001b]0;PWNED\\u0007\\u001b[2J\\u009b31mok\\r\\nforged\\tline\\u2028x"
        );
    }

    #[test]
    fn direction_and_zero_width_are_shown_and_letters_are_left() {
        assert_eq!(
            plain("a\u{202e}b\u{200b}c\u{feff}"),
            "a\\u202eb\\u200bc\\ufeff"
        );
        assert_eq!(plain("\u{e0041}"), "\\udb40\\udc41");
        // Fillers, blanks that are no space, variation selectors, private use.
        for c in "\u{115f}\u{3164}\u{ffa0}\u{34f}\u{fe0f}\u{2800}\u{a0}\u{3000}\u{2003}\u{e000}\u{10ffff}".chars() {
            assert_ne!(plain(&format!("a{c}b")), format!("a{c}b"), "{c:?}");
        }
        for text in ["Jürgen Öztürk 日本 עברית", "résumé ✓ 🚀", ""] {
            assert_eq!(plain(text), text);
        }
    }

    #[test]
    fn a_text_of_others_is_marked_as_theirs_on_one_bounded_line() {
        assert_eq!(
            said(Speaker::Device, "all good\nOK"),
            "device says: all good\\nOK"
        );
        let long = bounded(&"\n".repeat(5_000));
        assert!(long.ends_with("... (1000 more characters)"), "{long}");
        assert_eq!(long.lines().count(), 1);
    }

    #[test]
    fn our_own_lines_stay_lines_and_json_stays_json() {
        assert_eq!(plain_lines("a\n\tb\u{1b}"), "a\n\tb\\u001b");
        let value = serde_json::json!({ "name": "x\u{202e}y\u{1b}" });
        let text = plain_lines(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
