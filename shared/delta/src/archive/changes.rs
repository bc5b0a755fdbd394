//! Changes that packing makes: told to whoever signs, as nothing is changed without a word.

use std::collections::BTreeMap;
use std::path::Path;

use tidegate_protocol::{cut, plain};

/// Kind of a change, most serious first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(
    not(unix),
    expect(dead_code, reason = "other systems have no such bits")
)]
pub(super) enum Change {
    /// Private, and readable by everybody in the version.
    Public,
    /// Others may not enter the folder that is packed.
    Opened,
    /// Dropped, as the options say.
    Dropped,
    /// Writable by everybody.
    EverybodyWrites,
    /// Writable by its group.
    GroupWrites,
    /// Not writable by its owner.
    OwnerWrites,
    /// Somebody else's.
    Owner,
    /// A group's that may do more than others.
    Group,
    /// Beside the bytes of a raw artifact.
    Beside,
}

impl Change {
    fn text(self) -> &'static str {
        match self {
            Self::Public => "readable by everybody on devices, as --allow-public says",
            Self::Opened => "open to everybody on devices, though others may not enter it here",
            Self::Dropped => "dropped, as --drop-attributes says",
            Self::EverybodyWrites => "loses write permission for group and others",
            Self::GroupWrites => "loses write permission for its group",
            Self::OwnerWrites => "gains write permission for its owner",
            Self::Owner => "loses its owner: on devices all belongs to the agent's user",
            Self::Group => "loses its group, which may do more than others",
            Self::Beside => "not carried, a raw artifact is bytes alone",
        }
    }
}

/// Changes that packing has made, each kind with the number of its entries and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<Change, (usize, String)>);

impl Changes {
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "other systems have no such bits")
    )]
    pub(super) fn add(&mut self, change: Change, path: &Path, what: &str) {
        let first = || {
            let path = path.display();
            if what.is_empty() {
                path.to_string()
            } else {
                format!("{path} ({what})")
            }
        };
        self.0.entry(change).or_insert_with(|| (0, first())).0 += 1;
    }

    /// A sentence for each kind, on one line and bounded: names are not ours.
    pub fn sentences(&self) -> Vec<String> {
        let each = |(change, (count, first)): (&Change, &(usize, String))| {
            let entries = if *count == 1 { "entry" } else { "entries" };
            let first = plain(&cut(first));
            format!("{}: {count} {entries}, first {first}", change.text())
        };
        self.0.iter().map(each).collect()
    }
}
