//! Taking out of a tree what is not its archive's.

use std::io::{self, Read};
use std::path::Path;

use tidegate_delta::archive::Tree;

use super::{Kind, Mended, Open};

/// Moves whatever an archive does not have, or has otherwise, out of a tree; leaves the rest alone.
/// Idempotent.
pub(crate) struct Aside<'a>(Mended<'a>);

impl<'a> Aside<'a> {
    pub(crate) fn new(tree: Mended<'a>) -> Self {
        Self(tree)
    }

    /// Moves an entry, unless it is the archive's own, or none.
    fn unless(&self, own: bool, path: &Path) -> io::Result<()> {
        if own { Ok(()) } else { self.0.put_aside(path) }
    }
}

impl Tree for Aside<'_> {
    fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        let (_, kind) = self.0.look(path)?;
        self.unless(kind.is_none_or(|kind| kind == Kind::Dir), path)
    }

    fn make_file(&mut self, path: &Path, _: u32, contents: &mut dyn Read) -> io::Result<()> {
        let (full, kind) = self.0.look(path)?;
        let own = match kind {
            None => true,
            Some(Kind::File) => match self.0.fs.open(&full, Open::Kept) {
                Ok(there) => Mended::difference(&*there, contents, &mut Vec::new())?.is_none(),
                // Kept to be on the safe side: a name can be moved that cannot be read.
                Err(_) => false,
            },
            Some(_) => false,
        };
        self.unless(own, path)
    }

    fn make_link(&mut self, path: &Path, to: &Path) -> io::Result<()> {
        let (full, kind) = self.0.look(path)?;
        let own = match kind {
            None => true,
            Some(Kind::Link) => self.0.fs.read_link(&full)? == to,
            Some(_) => false,
        };
        self.unless(own, path)
    }

    fn close_dir(&mut self, path: &Path, _: u32) -> io::Result<()> {
        let known = self.0.names.remove(path).unwrap_or_default();
        let full = self.0.root.join(path);
        if self.0.fs.kind(&full)? != Some(Kind::Dir) {
            return Ok(());
        }
        for (name, _) in self.0.fs.list(&full)? {
            self.unless(known.contains(&name), &path.join(name))?;
        }
        Ok(())
    }
}
