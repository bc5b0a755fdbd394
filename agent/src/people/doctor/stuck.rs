//! Check for slots that were moved aside, as something in them would not change.

use std::path::Path;

use tidegate_protocol::{Finding, Verdict};

use crate::fs;

/// Names the folders, each of which takes the room of a version.
pub(super) fn look(state: &Path) -> Option<Finding> {
    let slots = state.join("slots");
    let found = fs::system().list(&slots).ok()?;
    let names = found.iter().map(|(name, _)| name.to_string_lossy());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("stuck.")).collect();
    names.sort();
    let value = format!("{} in {}", names.join(", "), slots.display());
    (!names.is_empty()).then(|| Finding::new("stuck", value, "none", Verdict::Notice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_moved_aside_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("slots/a")).unwrap();
        assert!(look(dir.path()).is_none());
        std::fs::create_dir(dir.path().join("slots/stuck.1")).unwrap();
        let finding = look(dir.path()).unwrap();
        assert!(finding.value.starts_with("stuck.1 in "), "{finding:?}");
    }
}
