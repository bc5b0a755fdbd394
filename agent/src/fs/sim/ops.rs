//! The operations of the simulated file system.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tidegate_delta::ReadAt;

use super::{Change, Folder, Node, Sim, missing};
use crate::fs::{Fs, FsFile, Kind, Open};

struct SimFile {
    sim: Sim,
    id: usize,
    name: String,
}

impl SimFile {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        match &mut self.sim.state().nodes[self.id] {
            Node::File { now, .. } => act(now),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }
}

impl ReadAt for SimFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|bytes| ReadAt::read_exact_at(bytes.as_slice(), buf, offset))
    }
}

impl FsFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        self.with(|bytes| Ok(bytes.len() as u64))
    }

    fn write_all_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        self.with(|bytes| {
            let offset = usize::try_from(offset).unwrap();
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(new);
            Ok(())
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(|bytes| {
            bytes.resize(usize::try_from(length).unwrap(), 0);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let id = self.id;
        self.sim
            .state()
            .sync(format!("file {}", self.name), |state| {
                if let Node::File { synced, now } = &mut state.nodes[id] {
                    synced.clone_from(now);
                }
            });
        Ok(())
    }
}

impl Fs for Sim {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn FsFile>> {
        let mut state = self.state();
        let found = state.find(path, how != Open::Kept);
        let id = match (found, how) {
            (Ok(_), Open::New(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(id), _) => id,
            (Err(error), Open::Read | Open::Kept | Open::Existing | Open::Sole) => {
                return Err(error);
            }
            (Err(_), _) => {
                let (dir, name) = state.parent(path)?;
                state.nodes.push(Node::File {
                    synced: Vec::new(),
                    now: Vec::new(),
                });
                let id = state.nodes.len() - 1;
                state.folder(dir)?.change(Change::Set(name, id));
                id
            }
        };
        drop(state);
        Ok(Box::new(SimFile {
            sim: self.clone(),
            id,
            name: path.display().to_string(),
        }))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        let state = self.state();
        Ok(match state.find(path, false) {
            Ok(id) => Some(match &state.nodes[id] {
                Node::File { .. } => Kind::File,
                Node::Dir(_) => Kind::Dir,
                Node::Link(_) => Kind::Link,
            }),
            Err(_) => None,
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let names: Vec<OsString> = {
            let mut state = self.state();
            let id = state.find(dir, true)?;
            state.folder(id)?.now.keys().cloned().collect()
        };
        names
            .into_iter()
            .map(|name| {
                let kind = self.kind(&dir.join(&name))?.ok_or_else(missing)?;
                Ok((name, kind))
            })
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.make(dir, Node::Dir(Folder::default()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(from, false)?;
        let ((old_dir, old), (new_dir, new)) = (state.parent(from)?, state.parent(to)?);
        if old_dir == new_dir {
            state
                .folder(old_dir)?
                .change(Change::Rename(old, new, node));
        } else {
            state.folder(new_dir)?.change(Change::Set(new, node));
            state.folder(old_dir)?.change(Change::Remove(old));
        }
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(from, false)?;
        let (dir, name) = state.parent(to)?;
        if state.folder(dir)?.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.folder(dir)?.change(Change::Set(name, node));
        Ok(())
    }

    fn symlink(&self, to: &Path, path: &Path) -> io::Result<()> {
        self.make(path, Node::Link(to.to_owned()))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let state = self.state();
        match &state.nodes[state.find(path, false)?] {
            Node::Link(to) => Ok(to.clone()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path, false)?;
        if matches!(state.nodes[id], Node::Dir(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (dir, name) = state.parent(path)?;
        state.folder(dir)?.change(Change::Remove(name));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path, false)?;
        if !state.folder(id)?.now.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = state.parent(path)?;
        state.folder(dir)?.change(Change::Remove(name));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(dir, true)?;
        state.sync(format!("folder {}", dir.display()), |state| {
            if let Node::Dir(folder) = &mut state.nodes[id] {
                folder.synced.clone_from(&folder.now);
                folder.pending.clear();
            }
        });
        Ok(())
    }
}

impl Sim {
    fn make(&self, path: &Path, node: Node) -> io::Result<()> {
        let mut state = self.state();
        let (dir, name) = state.parent(path)?;
        if state.folder(dir)?.now.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.nodes.push(node);
        let id = state.nodes.len() - 1;
        state.folder(dir)?.change(Change::Set(name, id));
        Ok(())
    }
}
