use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tidegate_delta::archive::PackOptions;
use tidegate_machine::fsm::{Installed, Record};

use super::*;
use crate::fs::{Crashing, Real};
use crate::install::Directory;

/// A device in a folder: 1.0.0 is kept in slot a, 1.1.0 runs in slot b and has failed.
struct Machine {
    dir: tempfile::TempDir,
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let slots = Directory::open(Arc::new(Real), dir.path()).unwrap();
        let mut images = Vec::new();
        for (slot, text) in [(SlotId::A, "1.0.0"), (SlotId::B, "1.1.0")] {
            let tree = dir.path().join(text);
            fs::create_dir_all(tree.join("conf.d")).unwrap();
            fs::write(tree.join("VERSION"), text).unwrap();
            fs::write(tree.join("conf.d/table"), vec![b'x'; 300_000]).unwrap();
            fs::write(tree.join("key.pem"), "secret").unwrap();
            fs::write(tree.join("run.sh"), "#!/bin/sh\n").unwrap();
            symlink("VERSION", tree.join("link")).unwrap();
            for (name, bits) in [("run.sh", 0o755), ("key.pem", 0o600)] {
                fs::set_permissions(tree.join(name), fs::Permissions::from_mode(bits)).unwrap();
            }
            images.push(slots.adopt(slot, &tree, PackOptions::default()).unwrap());
        }
        let installed = |image, release: &str| {
            Some(Installed {
                release: release.parse().unwrap(),
                image,
                format: "tar".into(),
                health: None,
            })
        };
        let record = Record {
            active: Some(SlotId::B),
            a: installed(images[0], "1.0.0"),
            b: installed(images[1], "1.1.0"),
            ..Record::new()
        };
        let mut journal = journal::open(Arc::new(Real), dir.path()).unwrap();
        journal.write(record).unwrap();
        slots.activate(Some(SlotId::B)).unwrap();
        // As staging makes it, while there is room.
        symlink("slots/a", dir.path().join(".current.back")).unwrap();
        Self { dir }
    }

    fn slot(&self, name: &str) -> PathBuf {
        self.dir.path().join("slots").join(name)
    }

    fn tree(&self) -> PathBuf {
        self.slot("a/tree")
    }

    /// Goes back to slot a with a file system that is asked before each operation.
    fn go_back(
        &self,
        hook: impl Fn(u64, &str, &Path) -> io::Result<bool> + Send + Sync + 'static,
    ) -> Result<Activation, NotBack> {
        let fs: Arc<dyn Fs> = Arc::new(Crashing::new(Real, hook));
        let backend = Arc::new(Directory::open(fs.clone(), self.dir.path()).unwrap());
        let core = Core::open(fs, self.dir.path(), backend).unwrap();
        core.way_back(Some(SlotId::A)).run()
    }

    /// Asserts that 1.0.0 runs, as it was published.
    fn is_back(&self) {
        let current = fs::read_link(self.dir.path().join("current")).unwrap();
        assert_eq!(current, Path::new("slots/a"));
        let published = self.dir.path().join("1.0.0");
        let packed = |tree: &Path| tidegate_delta::archive::pack(tree, Vec::new()).unwrap();
        assert!(packed(&self.tree()) == packed(&published));
        assert_eq!(mode(&self.tree()), 0o755);
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// A disk without a free block or name: what exists can be written over and renamed.
fn is_full(_: u64, what: &str, path: &Path) -> io::Result<bool> {
    let there = fs::symlink_metadata(path).is_ok();
    match what {
        "open" | "create folder" | "link" | "hard link" if !there => Err(full()),
        "write" if path.ends_with("file.new/file") => Err(full()),
        _ => Ok(true),
    }
}

#[test]
fn a_changed_kept_folder_is_mended_in_place_on_a_disk_without_room_and_without_names() {
    let machine = Machine::new();
    fs::write(
        machine.tree().join("VERSION"),
        "1.0.0, and what the application wrote",
    )
    .unwrap();
    let mut table = fs::read(machine.tree().join("conf.d/table")).unwrap();
    table[200_000] = b'y';
    fs::write(machine.tree().join("conf.d/table"), table).unwrap();
    assert!(matches!(machine.go_back(is_full), Ok(Activation::Live)));
    machine.is_back();
    // What the way back does not need was given up first.
    assert!(!machine.slot("b/artifact").exists());
    assert!(machine.slot("a/artifact").exists());
}

#[test]
fn a_cut_at_any_step_of_a_mend_in_place_leads_to_a_mend_and_never_to_a_mixed_tree() {
    for last in 1.. {
        let machine = Machine::new();
        fs::write(machine.tree().join("VERSION"), "longer than it was").unwrap();
        fs::write(machine.tree().join("run.sh"), "").unwrap();
        let reached = Arc::new(Mutex::new(false));
        let cut = reached.clone();
        let ended = machine.go_back(move |number, what, path| {
            if number >= last {
                *cut.lock().unwrap() = true;
                return Err(io::Error::other("the power is cut"));
            }
            is_full(number, what, path)
        });
        if !*reached.lock().unwrap() {
            assert!(ended.is_ok());
            machine.is_back();
            assert!(last > 10, "{last}");
            return;
        }
        let pointer = fs::read_link(machine.dir.path().join("current")).unwrap();
        if pointer == Path::new("slots/a") {
            machine.is_back();
        }
        assert!(
            matches!(machine.go_back(is_full), Ok(Activation::Live)),
            "{last}"
        );
        machine.is_back();
    }
}

#[test]
fn what_is_kept_is_compared_whole_and_each_difference_is_mended() {
    let machine = Machine::new();
    let tree = machine.tree();
    let bits = |name: &str, bits| {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(bits)).unwrap();
    };
    bits("run.sh", 0o644);
    bits("key.pem", 0o644);
    bits("conf.d", 0o777);
    fs::write(tree.join("conf.d/evil.conf"), "added").unwrap();
    fs::create_dir(tree.join("cache")).unwrap();
    fs::write(tree.join("cache/data.db"), "of a person").unwrap();
    fs::remove_file(tree.join("link")).unwrap();
    symlink("/etc/passwd", tree.join("link")).unwrap();
    fs::write(tree.join("VERSION"), "edited").unwrap();
    assert!(machine.go_back(|_, _, _| Ok(true)).is_ok());
    machine.is_back();
    assert_eq!(
        (mode(&tree.join("run.sh")), mode(&tree.join("key.pem"))),
        (0o755, 0o600)
    );
    let was = |name: &str| fs::read_to_string(machine.slot("a/tree.was").join(name)).unwrap();
    assert_eq!(was("conf.d/evil.conf"), "added");
    assert_eq!(was("cache/data.db"), "of a person");
    assert_eq!(was("VERSION"), "edited");
}

#[test]
fn a84_a_link_in_the_place_of_the_kept_folder_is_not_followed() {
    let machine = Machine::new();
    let elsewhere = machine.dir.path().join("elsewhere");
    fs::rename(machine.tree(), &elsewhere).unwrap();
    symlink(&elsewhere, machine.tree()).unwrap();
    assert!(machine.go_back(|_, _, _| Ok(true)).is_ok());
    machine.is_back();
    assert!(fs::symlink_metadata(machine.tree()).unwrap().is_dir());
}

#[test]
fn a85_a_mend_in_place_writes_through_no_second_name_and_no_link() {
    let machine = Machine::new();
    let outside = machine.dir.path().join("outside");
    fs::write(&outside, "of somebody else").unwrap();
    fs::remove_file(machine.tree().join("VERSION")).unwrap();
    fs::hard_link(&outside, machine.tree().join("VERSION")).unwrap();
    assert!(machine.go_back(is_full).is_err());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "of somebody else");
}

#[test]
fn errors_of_the_moment_are_never_damage_and_an_overlays_folders_are_moved_piece_by_piece() {
    use rustix::io::Errno;
    for errno in [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::TXTBSY,
        Errno::XDEV,
    ] {
        let machine = Machine::new();
        fs::write(machine.tree().join("VERSION"), "edited").unwrap();
        let failed = machine.go_back(move |_, what, path| {
            if what == "open" && path.ends_with("file.new/file") {
                return Err(errno.into());
            }
            Ok(true)
        });
        assert!(
            matches!(&failed, Err(NotBack::Failed(why)) if why.code == Reason::StorageError),
            "{errno:?}"
        );
        assert!(machine.go_back(|_, _, _| Ok(true)).is_ok());
        machine.is_back();
    }
    // A folder of the lower layer cannot be renamed, its files can.
    let machine = Machine::new();
    fs::create_dir_all(machine.tree().join("cache/deep")).unwrap();
    fs::write(machine.tree().join("cache/deep/data.db"), "of a person").unwrap();
    let tree = machine.tree();
    let back = machine.go_back(move |_, what, path| {
        let below = path.to_string_lossy().into_owned();
        let folder = below.ends_with("was/cache") || below.ends_with("was/cache/deep");
        if what == "rename to" && folder && tree.exists() {
            return Err(Errno::XDEV.into());
        }
        Ok(true)
    });
    assert!(back.is_ok());
    machine.is_back();
    let kept = machine.slot("a/tree.was/cache/deep/data.db");
    assert_eq!(fs::read_to_string(kept).unwrap(), "of a person");
}

#[test]
fn artifacts_and_trees_under_construction_are_for_the_agents_user_alone() {
    let machine = Machine::new();
    assert_eq!(mode(&machine.slot("a/artifact")), 0o600);
    // As an agent of before left it.
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(machine.slot("a/artifact"), open).unwrap();
    Directory::open(Arc::new(Real), machine.dir.path()).unwrap();
    assert_eq!(mode(&machine.slot("a/artifact")), 0o600);
    // While a tree is written, nobody else gets into its folder.
    fs::remove_dir_all(machine.tree()).unwrap();
    let new = machine.slot("a/tree.new");
    let back = machine.go_back(move |_, what, path| {
        if what == "open" && path.starts_with(&new) {
            assert_eq!(mode(&new), 0o700);
        }
        Ok(true)
    });
    assert!(back.is_ok());
    machine.is_back();
}
