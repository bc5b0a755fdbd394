//! Space on the disk of a server's data folder.

use std::path::Path;

use tidegate_server::room::{NEXT_PARTS, Space, ballast_of};

use super::{Finding, Level};

/// Checks the room where a server keeps its data; `None` where this cannot be found out.
pub(super) fn check(data: &Path) -> Option<Finding> {
    let database = data.join("tidegate.db");
    let ballast = database
        .is_file()
        .then(|| std::fs::metadata(ballast_of(&database)).map_or(0, |meta| meta.len()));
    Some(judge(Space::at(data)?, ballast))
}

/// Judges the room on a disk, with the ballast that it has if a database lies there.
fn judge(space: Space, ballast: Option<u64>) -> Finding {
    let (kept, whole) = (space.kept(), space.ballast());
    let short = ballast.is_some_and(|have| have < whole);
    let mut found = format!(
        "{} MiB free, of which uploads leave {}",
        space.free >> 20,
        kept >> 20
    );
    if let Some(have) = ballast {
        found += &format!("; ballast {} of {} MiB", have >> 20, whole >> 20);
    }
    let (level, next) = if space.read_only {
        found = "it can only be read: no order can be written, not even a halt".into();
        (
            Level::Critical,
            "mount it writable again; see what the kernel's log says of it",
        )
    } else if short && space.free < kept {
        (
            Level::Critical,
            "make room on it: orders such as a halt are written by the last of the ballast, which is made again by \
             itself",
        )
    } else if space.free < kept.saturating_add(NEXT_PARTS) {
        (
            Level::Warning,
            "uploads are refused: make room on it, or keep the blobs elsewhere (serve --blobs)",
        )
    } else if short {
        (
            Level::Warning,
            "the running server makes the ballast within seconds: is it running?",
        )
    } else {
        (Level::Ok, "")
    };
    Finding {
        level,
        check: "disk of the data".into(),
        found,
        next: next.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_or_can_only_be_read_is_told_with_its_reserve_and_a_remedy() {
        let mib = |n: u64| n << 20;
        let space = |free| Space {
            free: mib(free),
            total: mib(1024),
            read_only: false,
        };
        let whole = Some(mib(16));
        let said = judge(space(500), whole);
        assert_eq!(said.level, Level::Ok);
        assert_eq!(
            said.found,
            "500 MiB free, of which uploads leave 64; ballast 16 of 16 MiB"
        );
        assert_eq!(
            judge(space(500), None).level,
            Level::Ok,
            "PostgreSQL elsewhere"
        );
        assert_eq!(judge(space(500), Some(0)).level, Level::Warning);
        let uploads = judge(space(70), whole);
        assert_eq!(uploads.level, Level::Warning);
        assert!(uploads.next.contains("--blobs"), "{}", uploads.next);
        let full = judge(space(0), Some(mib(8)));
        assert_eq!(full.level, Level::Critical);
        assert!(full.found.contains("ballast 8 of 16 MiB"), "{}", full.found);
        assert!(full.next.contains("make room"), "{}", full.next);
        let read_only = Space {
            read_only: true,
            ..space(500)
        };
        let said = judge(read_only, whole);
        assert_eq!(said.level, Level::Critical);
        assert!(said.found.contains("only be read"), "{}", said.found);
    }
}
