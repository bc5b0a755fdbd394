//! Names that people choose: products, regions, platforms, labels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Error for a text that is not a usable name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: expected {rule}")]
pub struct NameError {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident($kind:literal, $check:ident, $rule:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError {
                        kind: $kind,
                        text: text.chars().take(64).collect(),
                        rule: $rule,
                    })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    )*};
}

names! {
    /// A product. It becomes part of role and file names, so its alphabet is small.
    ProductName("product name", slug,
        "1 to 40 of a-z, 0-9 and '-', beginning with a letter, not ending in '-'");
    /// A region of the fleet, for example `NA`, `eu-west` or `plant-7`.
    Region("region", word,
        "1 to 40 of letters, digits, '-', '_' and '.', beginning with a letter or digit");
    /// Platform that an artifact runs on, for example `linux-x86_64`.
    Platform("platform", word,
        "1 to 40 of letters, digits, '-', '_' and '.', beginning with a letter or digit");
}

fn slug(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn word(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A `key=value` fact that an administrator gives a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// The key: same alphabet as a region.
    pub key: String,
    /// The value: same alphabet as a region.
    pub value: String,
}

impl FromStr for Label {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('=') {
            Some((key, value)) if word(key) && word(value) => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(NameError {
                kind: "label",
                text: text.chars().take(64).collect(),
                rule: "key=value, each 1 to 40 of letters, digits, '-', '_' and '.'",
            }),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_name_can_never_leave_its_directory() {
        for bad in [
            "",
            "..",
            "a/b",
            "A",
            "a_b",
            "-a",
            "a-",
            "1a",
            &"a".repeat(41),
        ] {
            assert!(bad.parse::<ProductName>().is_err(), "{bad}");
        }
        assert!("terminal-2".parse::<ProductName>().is_ok());
    }

    #[test]
    fn a_region_may_not_be_a_path() {
        assert!("..".parse::<Region>().is_err());
        assert!("eu/west".parse::<Region>().is_err());
        assert!("eu-west.1".parse::<Region>().is_ok());
    }

    #[test]
    fn a_label_needs_both_halves() {
        assert!("canary".parse::<Label>().is_err());
        assert!("canary=".parse::<Label>().is_err());
        assert_eq!(
            "canary=true".parse::<Label>().unwrap().to_string(),
            "canary=true"
        );
    }
}
