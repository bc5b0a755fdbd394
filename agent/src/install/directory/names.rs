//! Names of an archive, checked before the first of them is made.

use std::io::{self, Read, Seek, SeekFrom};

use tidegate_delta::archive::names::{System, unfit};
use tidegate_delta::archive::{ArchiveError, examine};

use crate::fs::{FsFile, Sequential};
use crate::install::SlotError;

/// Refuses an archive with a name that this system changes, merges with another one or keeps for
/// itself: half of a tree would stand there before it failed, or a file would be lost without a word.
pub(super) fn check(file: &dyn FsFile, system: System) -> Result<(), SlotError> {
    let refused = |error| SlotError::Archive(error);
    let length = file
        .length()
        .map_err(|e| refused(ArchiveError::Malformed(e.to_string())))?;
    let examined = examine(Seeking(Sequential::whole(file, length))).map_err(refused)?;
    let unfit = unfit(system, &examined.entries, true);
    if unfit.is_empty() {
        return Ok(());
    }
    Err(refused(ArchiveError::Names(unfit)))
}

/// Reader of a file that skips what is not asked for.
struct Seeking<'a>(Sequential<'a>);

impl Read for Seeking<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Seek for Seeking<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.0.end.checked_add_signed(by),
            SeekFrom::Current(by) => self.0.at.checked_add_signed(by),
        };
        self.0.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.0.at)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tidegate_delta::archive::pack;

    use super::*;
    use crate::fs::{Fs as _, Open, Real};

    #[test]
    fn a134_names_that_a_system_cannot_hold_are_refused_by_name_before_one_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let packed = |names: &[&str]| {
            let tree = tempfile::tempdir_in(dir.path()).unwrap();
            for name in names {
                let path = tree.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            let path = dir.path().join("artifact");
            fs::write(&path, pack(tree.path(), Vec::new()).unwrap()).unwrap();
            Real.open(&path, Open::Read).unwrap()
        };
        let told = |names: &[&str], system| check(&*packed(names), system);
        let bad = [
            "src/aux.c",
            "Nul.txt",
            "trail.",
            "space ",
            "app.exe:stream",
            "back\\slash",
        ];
        for name in bad {
            let refused = told(&["fine", name], System::Windows).unwrap_err();
            let SlotError::Archive(ArchiveError::Names(names)) = &refused else {
                panic!("{refused:?}");
            };
            let path = tidegate_protocol::plain(name);
            assert!(names[0].starts_with(&format!("{path}: ")), "{names:?}");
            told(&["fine", name], System::Unix).unwrap();
        }
        let case = ["Lib/a", "lib/b"];
        let forms = ["caf\u{e9}", "cafe\u{301}"];
        assert!(told(&case, System::Windows).is_err());
        assert!(told(&case, System::MacOs).is_err());
        assert!(told(&forms, System::MacOs).is_err());
        told(&forms, System::Windows).unwrap();
        for names in [case, forms] {
            told(&names, System::Unix).unwrap();
        }
    }
}
