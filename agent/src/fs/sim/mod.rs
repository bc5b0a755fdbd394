//! Simulated file system that models what a power cut may leave.
//!
//! Until a folder is synced, the changes of its names reach the medium in order: none, some or all
//! of them; a rename within a folder is one change. Unsynced bytes of a file are the old ones, the
//! new ones, zeros, new ones followed by zeros, or old ones followed by new ones; bytes that were
//! synced and not overwritten stay. That is less than the worst a disk can do (it never lies about
//! a sync, never rots) and more than ext4 and xfs do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

mod ops;

/// A simulated file system; clones share it.
#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<State>>);

struct State {
    nodes: Vec<Node>,
    /// Number of syncs so far, and the one that is ignored.
    syncs: usize,
    deaf: Option<usize>,
    /// Log of the syncs, in order, for failure messages.
    log: Vec<String>,
}

enum Node {
    File { synced: Vec<u8>, now: Vec<u8> },
    Dir(Folder),
    Link(PathBuf),
}

#[derive(Default)]
struct Folder {
    synced: BTreeMap<OsString, usize>,
    now: BTreeMap<OsString, usize>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Set(OsString, usize),
    Remove(OsString),
    Rename(OsString, OsString, usize),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<OsString, usize>) {
        match self {
            Self::Set(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Folder {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }
}

/// An entry of a medium.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Thing {
    File(Vec<u8>),
    Dir,
    Link(PathBuf),
}

/// Contents of a medium: each path below the root.
pub(crate) type Medium = BTreeMap<PathBuf, Thing>;

/// Outcome of a power cut for the bytes of one unsynced file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Old,
    New,
    Torn,
    /// The last bytes written are there, the first ones are not.
    Late,
    Zeros,
}

const FATES: [Fate; 5] = [Fate::Old, Fate::New, Fate::Torn, Fate::Late, Fate::Zeros];
/// Above this many combinations only each folder alone, and all together, are tried.
const COMBINATIONS: usize = 48;

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Sim {
    /// Returns an empty file system.
    pub(crate) fn new() -> Self {
        Self::from_medium(&Medium::new())
    }

    /// Makes the `deaf`-th sync, from 1, do nothing and report success.
    pub(crate) fn ignore_sync(&self, deaf: usize) {
        self.state().deaf = Some(deaf);
    }

    /// Returns the log of syncs so far.
    pub(crate) fn sync_log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Returns a freshly mounted file system with these contents.
    pub(crate) fn from_medium(medium: &Medium) -> Self {
        let sim = Self(Arc::new(Mutex::new(State {
            nodes: vec![Node::Dir(Folder::default())],
            syncs: 0,
            deaf: None,
            log: Vec::new(),
        })));
        let mut state = sim.state();
        for (path, thing) in medium {
            let node = match thing {
                Thing::File(bytes) => Node::File {
                    synced: bytes.clone(),
                    now: bytes.clone(),
                },
                Thing::Dir => Node::Dir(Folder::default()),
                Thing::Link(to) => Node::Link(to.clone()),
            };
            let (dir, name) = state.parent(path).unwrap();
            state.nodes.push(node);
            let id = state.nodes.len() - 1;
            let folder = state.folder(dir).unwrap();
            folder.now.insert(name.clone(), id);
            folder.synced.insert(name, id);
        }
        drop(state);
        sim
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Returns every medium that a power cut may leave now.
    pub(crate) fn after_power_cut(&self) -> Vec<Medium> {
        let state = self.state();
        let folders: Vec<(usize, usize)> = state
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(id, node)| match node {
                Node::Dir(folder) if !folder.pending.is_empty() => Some((id, folder.pending.len())),
                _ => None,
            })
            .collect();
        let files: Vec<usize> = state
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| matches!(node, Node::File { synced, now } if synced != now))
            .map(|(id, _)| id)
            .collect();
        let mut media = std::collections::BTreeSet::new();
        for prefixes in choices(&folders) {
            for fate in FATES {
                // All files share a fate, and each one alone has another fate than the rest.
                media.insert(state.medium(&prefixes, |_| fate));
                if files.len() > 1 {
                    for file in &files {
                        let rest = if fate == Fate::New {
                            Fate::Old
                        } else {
                            Fate::New
                        };
                        let fates = |id| if id == *file { fate } else { rest };
                        media.insert(state.medium(&prefixes, fates));
                    }
                }
            }
        }
        media.into_iter().collect()
    }

    /// Returns the contents as seen while the power stays on.
    pub(crate) fn medium(&self) -> Medium {
        let all = BTreeMap::new();
        self.state().medium(&all, |_| Fate::New)
    }
}

/// Choices of how many pending changes of each folder are on the medium.
fn choices(folders: &[(usize, usize)]) -> Vec<BTreeMap<usize, usize>> {
    let combinations: usize = folders.iter().map(|(_, pending)| pending + 1).product();
    if combinations <= COMBINATIONS {
        let mut all = vec![BTreeMap::new()];
        for (id, pending) in folders {
            all = all
                .into_iter()
                .flat_map(|chosen: BTreeMap<usize, usize>| {
                    (0..=*pending).map(move |count| {
                        let mut chosen = chosen.clone();
                        chosen.insert(*id, count);
                        chosen
                    })
                })
                .collect();
        }
        return all;
    }
    let none: BTreeMap<usize, usize> = folders.iter().map(|(id, _)| (*id, 0)).collect();
    let whole: BTreeMap<usize, usize> = folders.iter().copied().collect();
    let mut thinned = vec![none.clone(), whole.clone()];
    for (id, pending) in folders {
        for count in 0..=*pending {
            for base in [&none, &whole] {
                let mut chosen = base.clone();
                chosen.insert(*id, count);
                thinned.push(chosen);
            }
        }
    }
    thinned
}

/// Range that covers all bytes changed since the last sync.
fn changed(synced: &[u8], now: &[u8]) -> Range<usize> {
    let same = |(a, b): &(&u8, &u8)| a == b;
    let begin = synced.iter().zip(now).take_while(same).count();
    let behind = if synced.len() < now.len() {
        0
    } else {
        let backwards = synced[..now.len()].iter().rev().zip(now.iter().rev());
        backwards.take_while(same).count().min(now.len() - begin)
    };
    begin..now.len() - behind
}

fn zeroed(now: &[u8], range: Range<usize>) -> Vec<u8> {
    let mut bytes = now.to_vec();
    bytes[range].fill(0);
    bytes
}

impl State {
    fn medium(&self, prefixes: &BTreeMap<usize, usize>, fate: impl Fn(usize) -> Fate) -> Medium {
        let mut medium = Medium::new();
        let mut open = vec![(PathBuf::new(), 0)];
        while let Some((path, id)) = open.pop() {
            let thing = match &self.nodes[id] {
                Node::Dir(folder) => {
                    let mut names = folder.synced.clone();
                    let count = prefixes.get(&id).copied().unwrap_or(folder.pending.len());
                    for change in &folder.pending[..count] {
                        change.apply(&mut names);
                    }
                    open.extend(names.into_iter().map(|(name, id)| (path.join(name), id)));
                    Thing::Dir
                }
                Node::Link(to) => Thing::Link(to.clone()),
                Node::File { synced, now } => Thing::File(match fate(id) {
                    Fate::New => now.clone(),
                    Fate::Old => synced.clone(),
                    Fate::Zeros if synced == now => now.clone(),
                    Fate::Torn | Fate::Late if synced == now => now.clone(),
                    Fate::Late => {
                        let changed = changed(synced, now);
                        let middle = usize::midpoint(changed.start, changed.end);
                        let mut bytes = zeroed(now, changed.start..middle);
                        let old = synced.len().min(middle);
                        if changed.start < old {
                            bytes[changed.start..old].copy_from_slice(&synced[changed.start..old]);
                        }
                        bytes
                    }
                    Fate::Zeros => zeroed(now, changed(synced, now)),
                    Fate::Torn => {
                        let changed = changed(synced, now);
                        zeroed(
                            now,
                            usize::midpoint(changed.start, changed.end)..changed.end,
                        )
                    }
                }),
            };
            if !path.as_os_str().is_empty() {
                medium.insert(path, thing);
            }
        }
        medium
    }

    fn folder(&mut self, id: usize) -> io::Result<&mut Folder> {
        match &mut self.nodes[id] {
            Node::Dir(folder) => Ok(folder),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Finds the node at a path. Links on the way are followed; the last one only if `follow` is
    /// set.
    fn find(&self, path: &Path, follow: bool) -> io::Result<usize> {
        let mut at = 0;
        let parts: Vec<OsString> = names(path);
        for (index, name) in parts.iter().enumerate() {
            let Node::Dir(folder) = &self.nodes[at] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            let id = *folder.now.get(name).ok_or_else(missing)?;
            at = match &self.nodes[id] {
                Node::Link(to) if follow || index + 1 < parts.len() => {
                    let base: PathBuf = parts[..index].iter().collect();
                    self.find(&base.join(to), true)?
                }
                _ => id,
            };
        }
        Ok(at)
    }

    fn parent(&self, path: &Path) -> io::Result<(usize, OsString)> {
        let name = path.file_name().ok_or_else(missing)?.to_owned();
        let dir = self.find(path.parent().unwrap_or(Path::new("")), true)?;
        Ok((dir, name))
    }

    fn sync(&mut self, what: String, act: impl FnOnce(&mut Self)) {
        self.syncs += 1;
        self.log.push(what);
        if self.deaf != Some(self.syncs) {
            act(self);
        }
    }
}

fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect()
}
