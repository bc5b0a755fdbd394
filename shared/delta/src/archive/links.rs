//! Symbolic links of an archive, resolved through each other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::{ArchiveError, refused};

/// Links by path, with their targets.
pub(super) type Links = BTreeMap<PathBuf, PathBuf>;

/// Links that are followed on the way to one target. Systems follow 32 to 63: what is longer leads
/// nowhere.
const HOPS: usize = 256;

/// One step of a target.
enum Step {
    Up,
    Down(OsString),
}

/// Checks that every link leads below the folder, whichever other links it goes through: names
/// alone do not tell where `link/..` is.
pub(super) fn check_links(links: &Links) -> Result<(), ArchiveError> {
    let inside = |(path, to): (&PathBuf, &PathBuf)| {
        if stays_inside(links, path, to) {
            Ok(())
        } else {
            Err(refused(path, "the link points outside the folder"))
        }
    };
    links.iter().try_for_each(inside)
}

fn stays_inside(links: &Links, path: &Path, to: &Path) -> bool {
    let mut at = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut todo = Vec::new();
    if !push(&mut todo, to) {
        return false;
    }
    let mut hops = 0;
    while let Some(step) = todo.pop() {
        match step {
            Step::Up => {
                if !at.pop() {
                    return false;
                }
            }
            Step::Down(name) => {
                at.push(name);
                if let Some(next) = links.get(&at) {
                    hops += 1;
                    if hops > HOPS {
                        return true;
                    }
                    at.pop();
                    if !push(&mut todo, next) {
                        return false;
                    }
                }
            }
        }
    }
    true
}

/// Puts the steps of a target before those that are left; false if it starts elsewhere than at its
/// folder.
fn push(todo: &mut Vec<Step>, to: &Path) -> bool {
    for part in to.components().rev() {
        match part {
            Component::Normal(name) => todo.push(Step::Down(name.to_owned())),
            Component::ParentDir => todo.push(Step::Up),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}
