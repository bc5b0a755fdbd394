//! Entity tags of conditional requests (RFC 9110 section 13).

use axum::http::{HeaderMap, HeaderName};

/// Tags that a header lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags<'a> {
    /// `*`: whatever there is.
    Any,
    /// Strong tags without their quotes, and weak ones with `true`.
    These(Vec<(&'a str, bool)>),
}

impl<'a> Tags<'a> {
    /// Reads the tags of a header, on however many lines; `None` if it is absent or is no list of tags.
    pub fn of(headers: &'a HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        let mut lines = headers.get_all(name).iter().peekable();
        lines.peek()?;
        for line in lines {
            let mut rest = line.to_str().ok()?.trim();
            if rest == "*" {
                return Some(Self::Any);
            }
            while !rest.is_empty() {
                // A recipient takes empty elements of a list (section 5.6.1).
                if let Some(next) = rest.strip_prefix([',', ' ', '\t']) {
                    rest = next;
                    continue;
                }
                let weak = rest.starts_with("W/");
                let opened = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
                let (tag, next) = opened.split_once('"')?;
                tags.push((tag, weak));
                rest = next.trim_start();
                if !rest.is_empty() && !rest.starts_with(',') {
                    return None;
                }
            }
        }
        Some(Self::These(tags))
    }

    /// Returns whether one of them is this tag. Weak ones count only where copies that are as good as each
    /// other will do: for `If-None-Match`, not for `If-Match`.
    pub fn have(&self, tag: &str, weak_will_do: bool) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags
                .iter()
                .any(|(listed, weak)| *listed == tag && (weak_will_do || !weak)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::IF_NONE_MATCH;

    use super::*;

    #[test]
    fn tags_are_read_as_lists_on_any_number_of_lines() {
        let mut headers = HeaderMap::new();
        assert_eq!(Tags::of(&headers, &IF_NONE_MATCH), None);
        for line in [r#" "a","b,c" ,, W/"d""#, r#""e""#] {
            headers.append(IF_NONE_MATCH, HeaderValue::from_static(line));
        }
        let tags = Tags::of(&headers, &IF_NONE_MATCH).unwrap();
        for strong in ["a", "b,c", "e"] {
            assert!(tags.have(strong, false), "{strong}");
        }
        assert!(tags.have("d", true) && !tags.have("d", false));
        assert!(!tags.have("c", true) && !tags.have("A", true));
        headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
        let any = Tags::of(&headers, &IF_NONE_MATCH).unwrap();
        assert!(any.have("whatever", false));
        for bad in ["a", r#""a"#, r#""a" "b""#, r#"w/"a""#] {
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(bad));
            assert_eq!(Tags::of(&headers, &IF_NONE_MATCH), None, "{bad}");
        }
    }
}
