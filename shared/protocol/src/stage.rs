//! A release's stage and a device's channel.

use serde::{Deserialize, Serialize};

/// A word that is not one of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} {text:?}; one of: {known}")]
pub struct UnknownWord {
    /// Kind of word that was expected, for example "channel".
    pub kind: &'static str,
    /// Word that was given, cut to 64 characters.
    pub text: String,
    /// Words that are accepted.
    pub known: String,
}

/// Implements the words of an enum of unit variants: `as_str`, `ALL`, `Display` and `FromStr`.
#[macro_export]
macro_rules! words {
    ($name:ident ($kind:literal) { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The word for it, the same in code, API, database and console.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::UnknownWord;
            fn from_str(text: &str) -> Result<Self, $crate::UnknownWord> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    $crate::UnknownWord {
                        kind: $kind,
                        text: text.chars().take(64).collect(),
                        known: Self::ALL.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "),
                    }
                })
            }
        }
    };
}

/// Has serde read and write an enum by its words, of which it has many: what serde derives for each word is
/// 17 KB of the agent.
#[macro_export]
macro_rules! words_in_json {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = $crate::UnknownWord;
            fn try_from(text: String) -> Result<Self, $crate::UnknownWord> {
                text.parse()
            }
        }

        impl From<$name> for &'static str {
            fn from(word: $name) -> Self {
                word.as_str()
            }
        }
    };
}

/// Maturity of a release. Moves forward only; `Withdrawn` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Being assembled; no device sees it.
    Draft,
    /// Offered to the alpha channel.
    Alpha,
    /// Offered to the alpha and beta channels.
    Beta,
    /// Generally available: offered to every channel.
    Ga,
    /// End of life: stays where it is installed, but is no longer offered.
    Eol,
    /// Withdrawn: never offered, and no update path leads through it.
    Withdrawn,
}

words!(Stage("stage") {
    Draft = "draft",
    Alpha = "alpha",
    Beta = "beta",
    Ga = "ga",
    Eol = "eol",
    Withdrawn = "withdrawn",
});

/// Stages that a device takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Takes alpha, beta and generally available releases.
    Alpha,
    /// Takes beta and generally available releases.
    Beta,
    /// Takes generally available releases only.
    Stable,
}

words!(Channel("channel") { Alpha = "alpha", Beta = "beta", Stable = "stable" });

impl Channel {
    /// Returns whether a device on this channel takes releases of `stage`.
    pub fn takes(self, stage: Stage) -> bool {
        match stage {
            Stage::Alpha => self == Channel::Alpha,
            Stage::Beta => self <= Channel::Beta,
            Stage::Ga => true,
            Stage::Draft | Stage::Eol | Stage::Withdrawn => false,
        }
    }
}

impl Stage {
    /// The channels whose signed role must list a release before it may have this stage.
    pub fn channels(self) -> &'static [Channel] {
        match self {
            Stage::Draft | Stage::Eol | Stage::Withdrawn => &[],
            Stage::Alpha => &[Channel::Alpha],
            Stage::Beta => &[Channel::Alpha, Channel::Beta],
            Stage::Ga => &[Channel::Alpha, Channel::Beta, Channel::Stable],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_signed_for_exactly_the_channels_that_take_it() {
        for stage in Stage::ALL {
            for channel in Channel::ALL {
                assert_eq!(channel.takes(*stage), stage.channels().contains(channel));
            }
        }
    }

    #[test]
    fn an_unknown_word_names_those_that_exist() {
        let error = "gold".parse::<Channel>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown channel \"gold\"; one of: alpha, beta, stable"
        );
    }
}
