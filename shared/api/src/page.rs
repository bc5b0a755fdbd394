//! Pages of a list.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Cursor of the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// Encodes a position in a list as an opaque cursor. The list is named by its path and its filters: a
/// cursor means nothing in another one.
pub fn cursor(list: &str, position: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}\n{position}"))
}

/// Content of a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// Position in this list.
    Here(String),
    /// Position that names no list: of a client of before, which wrote the number of an event itself.
    Bare(String),
    /// Position in another list, or with other filters.
    Elsewhere,
}

/// Decodes a cursor for a list; `None` if it is not one.
pub fn position(list: &str, cursor: &str) -> Option<Position> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    Some(match text.split_once('\n') {
        Some((of, position)) if of == list => Position::Here(position.to_owned()),
        Some(_) => Position::Elsewhere,
        None => Position::Bare(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_the_list_that_gave_it_and_no_other() {
        let of_app = cursor("/api/v1/devices?product=app", "dev_1");
        let here = position("/api/v1/devices?product=app", &of_app);
        assert_eq!(here, Some(Position::Here("dev_1".into())));
        for other in ["/api/v1/devices", "/api/v1/holds?product=app", ""] {
            assert_eq!(
                position(other, &of_app),
                Some(Position::Elsewhere),
                "{other}"
            );
        }
        let bare = URL_SAFE_NO_PAD.encode("7");
        assert_eq!(position("/x", &bare), Some(Position::Bare("7".into())));
        assert_eq!(position("/x", "%"), None);
    }
}
