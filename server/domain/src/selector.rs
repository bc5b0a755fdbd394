//! Selectors: conditions that pick devices.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tidegate_protocol::{Label, Platform, Region, Version};

/// A conjunction of conditions, written `region=EU,canary=true,model!=x2`; empty selects all.
/// `region`, `platform` and `release` (what runs on the device) are facts, every other key is a
/// label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    label: Label,
    equal: bool,
}

/// The text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a selector: {what}; write conditions like region=EU,canary=true,model!=x2")]
pub struct SelectorError {
    what: String,
}

/// Facts about a device that a selector tests.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The device's region.
    pub region: &'a Region,
    /// The device's platform.
    pub platform: &'a Platform,
    /// The device's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The release that the device runs, if any.
    pub release: Option<&'a Version>,
}

impl Selector {
    /// Maximum number of conditions in one selector.
    pub const MAX_CONDITIONS: usize = 16;

    /// Selects the devices of one region.
    pub fn region(region: &Region) -> Self {
        let label = Label {
            key: "region".into(),
            value: region.as_str().into(),
        };
        Self {
            conditions: vec![Condition { label, equal: true }],
        }
    }

    /// Returns whether it selects a device. A device without the label does not have the value, so it
    /// fails `=` and passes `!=`.
    pub fn matches(&self, facts: Facts<'_>) -> bool {
        self.conditions.iter().all(|condition| {
            let value = condition.label.value.as_str();
            let has = match condition.label.key.as_str() {
                "region" => facts.region.as_str() == value,
                "platform" => facts.platform.as_str() == value,
                "release" => facts.release.is_some_and(|r| r.to_string() == value),
                key => facts.labels.get(key).is_some_and(|v| v == value),
            };
            has == condition.equal
        })
    }

    /// Region of every selected device, if the selector pins one.
    pub fn pinned_region(&self) -> Option<Region> {
        self.conditions
            .iter()
            .find(|c| c.equal && c.label.key == "region")
            .and_then(|c| c.label.value.parse().ok())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Condition { label, equal }) in self.conditions.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let sign = if *equal { "=" } else { "!=" };
            write!(f, "{comma}{}{sign}{}", label.key, label.value)?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut conditions = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (text, equal) = match part.split_once("!=") {
                Some((key, value)) => (format!("{key}={value}"), false),
                None => (part.to_owned(), true),
            };
            let label = text.parse().map_err(|e| SelectorError {
                what: format!("{e}"),
            })?;
            conditions.push(Condition { label, equal });
        }
        if conditions.len() > Self::MAX_CONDITIONS {
            return Err(SelectorError {
                what: format!("more than {} conditions", Self::MAX_CONDITIONS),
            });
        }
        Ok(Self { conditions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str) -> bool {
        let labels = BTreeMap::from([("canary".to_owned(), "true".to_owned())]);
        selector.parse::<Selector>().unwrap().matches(Facts {
            region: &"EU".parse().unwrap(),
            platform: &"linux-x86_64".parse().unwrap(),
            labels: &labels,
            release: Some(&Version::new(1, 2, 3)),
        })
    }

    #[test]
    fn every_condition_must_hold() {
        assert!(matches(""));
        assert!(matches("region=EU"));
        assert!(matches("region=EU,canary=true"));
        assert!(!matches("region=EU,canary=false"));
        assert!(!matches("region=NA,canary=true"));
        assert!(matches("platform=linux-x86_64"));
        assert!(matches("release=1.2.3"));
        assert!(!matches("release!=1.2.3"));
    }

    #[test]
    fn a_missing_label_differs_from_every_value() {
        assert!(matches("model!=x2"));
        assert!(!matches("model=x2"));
        assert!(!matches("canary!=true"));
    }

    #[test]
    fn a_selector_survives_being_written_and_read() {
        let text = "region=EU,canary=true,model!=x2";
        assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
    }

    #[test]
    fn rubbish_is_refused_with_an_example() {
        for bad in ["region", "=x", "a=b=c", "a b=c"] {
            let error = bad.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains("region=EU"), "{error}");
        }
        let many = vec!["a=b"; 17].join(",");
        assert!(many.parse::<Selector>().is_err());
    }
}
