//! Holds: devices kept from a release for a reason, while the rest goes on.

use tidegate_protocol::{Explained, HoldId, Reason, Version};

use crate::selector::{Facts, Selector};

/// A hold as admission sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// Release that the devices are kept from; `None` for every release.
    pub release: Option<Version>,
    /// Devices that it keeps back.
    pub selector: Selector,
    /// The reason.
    pub reason: String,
    /// Link to further reading; may be empty.
    pub link: String,
}

impl Hold {
    /// Returns whether it keeps a device from a release.
    pub fn blocks(&self, release: &Version, device: Facts<'_>) -> bool {
        self.release.as_ref().is_none_or(|r| r == release) && self.selector.matches(device)
    }

    /// Explanation shown to a person.
    pub fn explained(&self) -> Explained {
        let link = if self.link.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.link)
        };
        Explained::new(Reason::Held, format!("{}{link}, {}", self.reason, self.id))
    }
}

/// The first hold that keeps a device from a release.
pub fn find<'a>(holds: &'a [Hold], release: &Version, device: Facts<'_>) -> Option<&'a Hold> {
    holds.iter().find(|hold| hold.blocks(release, device))
}
