//! Verifying a slot's tree, and mending it from its artifact.

use std::path::Path;

use tidegate_delta::archive::ArchiveError;
use tidegate_machine::fsm::SlotId;
use tidegate_protocol::Image;

use super::Directory;
use crate::fs::{Compared, FsFile, Kind, Mended, Mode, is_held, is_momentary};
use crate::install::artifact::copy_file;
use crate::install::slots::is_stuck;
use crate::install::{SlotError, at};

impl Directory {
    /// Compares the tree of a slot with its artifact, and mends what differs: beside what is there,
    /// or `in_place` where there is no room for that.
    pub(super) fn verify_or_mend(
        &self,
        slot: SlotId,
        image: Image,
        in_place: bool,
    ) -> Result<(), SlotError> {
        match self.verify_or_mend_there(slot, image, in_place) {
            // What will not change need not: the version can be made anew beside it.
            Err(
                SlotError::Archive(ArchiveError::Io { path, source })
                | SlotError::Io { path, source },
            ) if is_stuck(&source) => {
                crate::log::line(&format!(
                    "{}: {source}; building the version anew beside it",
                    path.display()
                ));
                self.build_beside(slot, image)
            }
            other => other,
        }
    }

    /// Builds a slot's artifact and tree anew beside the slot, and puts them in its place.
    fn build_beside(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        let file = self.slots.verify(slot, image)?;
        let [new, whole] = self.slots.beside(slot);
        let (tree, artifact) = (new.join("tree"), new.join("artifact"));
        for left in [&new, &whole] {
            self.fs.remove_tree(left).map_err(at(left))?;
        }
        self.fs.create_dir(&new).map_err(at(&new))?;
        let built = self
            .unpack_at(&tree, slot, &*file, image)
            .and_then(|()| self.give_artifact(slot, &*file, image, &artifact))
            .and_then(|()| self.fs.sync_dir(&new).map_err(at(&new)))
            .and_then(|()| self.slots.exchange(slot).map_err(at(&new)));
        if built.is_err() {
            // Half a slot would only take the room that the next attempt needs.
            let _ = self.fs.remove_tree(&new);
        }
        built
    }

    /// Gives a new place the artifact of a slot: under a second name, or as a copy where it may have none.
    fn give_artifact(
        &self,
        slot: SlotId,
        file: &dyn FsFile,
        image: Image,
        to: &Path,
    ) -> Result<(), SlotError> {
        if self.fs.hard_link(&self.slots.artifact(slot), to).is_ok() {
            return Ok(());
        }
        copy_file(&*self.fs, file, image.length, to, Mode::Private, None).map_err(at(to))
    }

    fn verify_or_mend_there(
        &self,
        slot: SlotId,
        image: Image,
        in_place: bool,
    ) -> Result<(), SlotError> {
        let root = self.tree(slot);
        // A link would lead to a tree of somebody else's, which need not stay as it is.
        if self.fs.kind(&root).map_err(at(&root))? != Some(Kind::Dir) {
            crate::log::line(&format!("{}: missing; unpacking it again", root.display()));
            return self.unpack_again(slot, image);
        }
        let path = self.slots.artifact(slot);
        let file = self.slots.open_artifact(slot, image)?;
        let mut tree = Compared::new(&*self.fs, &root);
        match self.walk(slot, &*file, Some(image), &mut tree) {
            Ok(()) => Ok(()),
            Err(SlotError::WrongImage) => Err(SlotError::Damaged(path)),
            // The machine lacks something just now: that says nothing about the tree.
            Err(SlotError::Archive(ArchiveError::Io { path, source }))
                if (is_momentary(&source) || is_held(&source)) && !is_stuck(&source) =>
            {
                Err(SlotError::Archive(ArchiveError::Io { path, source }))
            }
            Err(SlotError::Archive(error)) => {
                let what = crate::log::chain(&error);
                crate::log::line(&format!("{}: {what}; mending it", root.display()));
                self.mend(slot, image, &root, in_place)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes over what differs from the artifact. What somebody changed or added is kept as
    /// `tree.was` until the slot is used again, if there is room.
    fn mend(
        &self,
        slot: SlotId,
        image: Image,
        root: &Path,
        in_place: bool,
    ) -> Result<(), SlotError> {
        // Before the first byte: a damaged artifact must not spoil a tree.
        let file = self.slots.verify(slot, image)?;
        let dir = self.slots.dir(slot);
        let [was, new] = ["tree.was", "file.new"].map(|name| dir.join(name));
        self.fs.remove_tree(&new).map_err(at(&new))?;
        if self.fs.kind(&was).map_err(at(&was))? != Some(Kind::Dir) {
            self.fs.remove_if_there(&was).map_err(at(&was))?;
        }
        let file_new = new.join("file");
        let mut tree = Mended::new(&*self.fs, root, [&was, &file_new], in_place);
        let mended = self.walk(slot, &*file, Some(image), &mut tree);
        self.fs.remove_tree(&new).map_err(at(&new))?;
        mended?;
        self.slots.sync(slot)
    }

    /// Unpacks the tree of a slot that has none. Something else in its place is kept as `tree.was`
    /// until the slot is used again.
    fn unpack_again(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        let file = self.slots.verify(slot, image)?;
        let (dir, root) = (self.slots.dir(slot), self.tree(slot));
        let [new, was] = ["tree.new", "tree.was"].map(|name| dir.join(name));
        self.fs.remove_tree(&new).map_err(at(&new))?;
        if let Err(error) = self.unpack_at(&new, slot, &*file, image) {
            // Half a tree would only take the room that the next attempt needs.
            let _ = self.fs.remove_tree(&new);
            return Err(error);
        }
        if self.fs.kind(&root).map_err(at(&root))?.is_some() {
            self.fs.remove_tree(&was).map_err(at(&was))?;
            self.fs.rename(&root, &was).map_err(at(&was))?;
        }
        self.fs.rename(&new, &root).map_err(at(&root))?;
        self.slots.sync(slot)
    }
}
