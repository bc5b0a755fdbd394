//! Bound on a list that a server sends page by page.

use std::collections::HashSet;

use crate::error::CliError;

/// Most pages of one list: two million items.
const MOST_PAGES: usize = 10_000;
/// Longest cursor, in bytes.
const MOST_CURSOR: usize = 1_000;

/// Pages of a list read so far.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    seen: HashSet<String>,
}

impl Pages {
    /// Notes the cursor that follows a page of `items` items; refuses one that leads nowhere new, so that
    /// a server cannot keep a command reading for ever.
    pub(crate) fn follow(&mut self, items: usize, cursor: &str) -> Result<(), CliError> {
        let why = if items == 0 {
            "it sent an empty page and says that more follow".to_owned()
        } else if cursor.len() > MOST_CURSOR {
            format!("its cursor is longer than {MOST_CURSOR} bytes")
        } else if !self.seen.insert(cursor.to_owned()) {
            "it names a page that was read already as the next one".to_owned()
        } else if self.seen.len() >= MOST_PAGES {
            format!("{MOST_PAGES} pages were read and more follow")
        } else {
            return Ok(());
        };
        Err(CliError::Hinted(
            format!("the server's list does not end: {why}"),
            "list less, for example one product; else look at the server, or at what stands in front of it".into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_lead_on_are_read_up_to_a_bound_and_others_are_refused() {
        let mut pages = Pages::default();
        for page in 1..MOST_PAGES {
            pages.follow(1, &page.to_string()).unwrap();
        }
        let text = pages.follow(1, "another").unwrap_err().to_string();
        assert!(text.contains("10000 pages were read"), "{text}");
        let mut pages = Pages::default();
        pages.follow(1, "a").unwrap();
        pages.follow(1, "b").unwrap();
        for (items, cursor) in [(1, "a"), (0, "c"), (1, &*"x".repeat(2_000))] {
            let text = pages.follow(items, cursor).unwrap_err().to_string();
            assert!(text.starts_with("the server's list does not end"), "{text}");
        }
    }
}
