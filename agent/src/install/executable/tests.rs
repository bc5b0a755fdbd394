//! The executable backend on the files of this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use tidegate_protocol::Reason;

use super::*;
use crate::fs::{Crashing, Real};

/// Version 1 in slot a, which is live, and version 2 in slot b.
struct Program {
    dir: tempfile::TempDir,
}

impl Program {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = Self { dir };
        fs::create_dir(program.folder()).unwrap();
        fs::write(program.live(), "1").unwrap();
        let slots = program.open(Real);
        let live = program.live();
        let adopted = slots.adopt(SlotId::A, &live, PackOptions::default());
        adopted.unwrap();
        fs::write(slots.slots.artifact(SlotId::B), "2").unwrap();
        program
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("opt")
    }

    fn live(&self) -> PathBuf {
        self.folder().join("app")
    }

    fn open(&self, fs: impl Fs + 'static) -> Executable {
        Executable::open(Arc::new(fs), self.dir.path(), self.live()).unwrap()
    }

    /// Owner, group, mode and attributes of the live file, and its bytes.
    fn facts(&self) -> (u32, u32, u32, Vec<Option<Vec<u8>>>) {
        let meta = fs::metadata(self.live()).unwrap();
        let attribute = |name| {
            let mut value = [0_u8; 256];
            let read = rustix::fs::getxattr(self.live(), name, &mut value[..]);
            read.ok().map(|read| value[..read].to_vec())
        };
        let attributes = ["user.origin", "security.capability"].map(attribute);
        let mode = meta.mode() & 0o7777;
        (meta.uid(), meta.gid(), mode, attributes.into())
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder()).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Sets what only root may; an ordinary user's own file is kept as well.
fn give(path: &Path, user: u32, group: u32, mode: u32) {
    let _ = chown(path, Some(user), Some(group));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

/// `cap_net_bind_service=ep`, as `setcap` writes it: revision 2, effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn the_live_file_keeps_owner_mode_and_capabilities_on_the_way_there_and_back() {
    let program = Program::new();
    let live = program.live();
    give(&live, 4242, 4343, 0o4750);
    let marked = set(&live, "user.origin", b"factory");
    let capable = set(&live, "security.capability", &CAPABILITY);
    if !marked || !capable {
        println!("not all of it is tried: attributes {marked}, capabilities {capable}");
    }
    let before = program.facts();
    assert_eq!(before.2, 0o4750);
    assert_eq!(
        before.3.iter().flatten().count(),
        usize::from(marked) + usize::from(capable)
    );
    let slots = program.open(Real);
    for (slot, bytes) in [(SlotId::B, "2"), (SlotId::A, "1"), (SlotId::B, "2")] {
        slots.activate(Some(slot)).unwrap();
        assert_eq!(fs::read_to_string(&live).unwrap(), bytes);
        assert_eq!(program.facts(), before);
        assert_eq!(program.names(), ["app", "app.tidegate-prev"]);
    }
    // A person has removed the program: the previous one says whose it is.
    fs::remove_file(&live).unwrap();
    slots.activate(Some(SlotId::B)).unwrap();
    assert_eq!(program.facts(), before);
}

#[test]
fn a86_a_copy_of_a_private_program_is_never_more_open_than_the_program() {
    let program = Program::new();
    give(&program.live(), 4242, 4343, 0o710);
    let (folder, live) = (program.folder(), program.live());
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let looked = seen.clone();
    let fs = Crashing::new(Real, move |_, _, _| {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().mode() & 0o7777;
            let name = entry.file_name().into_string().unwrap();
            if entry.path() != live {
                looked.lock().unwrap().push((name, mode));
            }
        }
        Ok(true)
    });
    program.open(fs).activate(Some(SlotId::B)).unwrap();
    let seen = seen.lock().unwrap();
    assert!(
        seen.iter().any(|(name, _)| name == ".app.tidegate-new"),
        "{seen:?}"
    );
    for (name, mode) in &*seen {
        assert_eq!(mode & !0o710, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn a87_a_link_in_the_place_of_the_program_gives_away_no_owner_and_no_special_bits() {
    let program = Program::new();
    let (live, other) = (program.live(), program.dir.path().join("other"));
    fs::write(&other, "somebody else's").unwrap();
    give(&other, 4242, 4343, 0o4750);
    set(&other, "user.origin", b"elsewhere");
    fs::remove_file(&live).unwrap();
    std::os::unix::fs::symlink(&other, &live).unwrap();
    let slots = program.open(Real);
    slots.activate(Some(SlotId::B)).unwrap();
    assert!(fs::symlink_metadata(&live).unwrap().is_file());
    let own = rustix::process::geteuid().as_raw();
    let (user, _, mode, attributes) = program.facts();
    assert_eq!((user, mode, &attributes[0]), (own, 0o750, &None));
    // What the link led to is as it was.
    assert_eq!(fs::read_to_string(&other).unwrap(), "somebody else's");
}

#[test]
fn the_way_back_needs_no_right_to_give_a_file_away() {
    let program = Program::new();
    give(&program.live(), 4242, 4343, 0o4750);
    let before = program.facts();
    program.open(Real).activate(Some(SlotId::B)).unwrap();
    let slots = program.open(Crashing::new(Real, |_, what, _| {
        if what == "take attributes of" {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(true)
    }));
    slots.activate(Some(SlotId::A)).unwrap();
    assert_eq!(fs::read_to_string(program.live()).unwrap(), "1");
    assert_eq!(program.facts(), before);
    // On the way there it is an error, and nothing has changed.
    assert!(slots.activate(Some(SlotId::B)).is_err());
    assert_eq!(program.facts(), before);
    assert_eq!(program.names(), ["app"]);
}

#[test]
fn a_switch_without_room_says_so_and_leaves_the_live_file_and_nothing_beside_it() {
    let program = Program::new();
    let full = Crashing::new(Real, |_, what, path| {
        if what == "write" && path.ends_with(".app.tidegate-new") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(true)
    });
    let failed = program.open(full).activate(Some(SlotId::B)).unwrap_err();
    assert_eq!(failed.explained().code, Reason::DiskFull);
    assert!(!failed.is_damage());
    assert_eq!(fs::read_to_string(program.live()).unwrap(), "1");
    assert_eq!(program.names(), ["app"]);
}

#[test]
fn what_a_switch_that_was_cut_took_beside_the_program_is_given_back() {
    let program = Program::new();
    let slots = program.open(Real);
    let leave = || {
        fs::write(program.folder().join(".app.tidegate-new"), "half").unwrap();
        fs::write(program.folder().join(".app.tidegate-prev.new"), "half").unwrap();
    };
    // After a restart the version in use is activated again, or another attempt begins.
    leave();
    slots.activate(Some(SlotId::A)).unwrap();
    assert_eq!(program.names(), ["app"]);
    leave();
    slots.check_room(1).unwrap();
    assert_eq!(program.names(), ["app"]);
}

#[test]
fn room_is_asked_for_where_the_switch_writes_and_given_back_at_once() {
    let program = Program::new();
    give(&program.live(), 4242, 4343, 0o750);
    // A quota of the owner's: no look at the free space shows it.
    let full = |_, what: &str, path: &Path| {
        if what == "reserve" && path.ends_with(".app.tidegate-new") {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::DQUOT.raw_os_error(),
            ));
        }
        Ok(true)
    };
    let lacks = program.open(Crashing::new(Real, full)).check_room(10);
    assert_eq!(lacks.unwrap_err().explained().code, Reason::DiskFull);
    assert_eq!(program.names(), ["app"]);
    let slots = program.open(Real);
    slots.check_room(1 << 20).unwrap();
    let lacks = slots.check_room(1 << 60).unwrap_err().explained();
    assert_eq!(lacks.code, Reason::DiskFull, "{lacks}");
    assert!(lacks.to_string().contains("opt/app"), "{lacks}");
    assert_eq!(program.names(), ["app"]);
}

#[test]
fn a_program_on_another_file_system_is_counted_there_and_not_in_the_agents_folder() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: there is no /dev/shm");
        return;
    };
    let program = Program::new();
    if !platform::is_elsewhere(other.path(), program.dir.path()) {
        println!("skipped: /dev/shm is on the file system of the other folders");
        return;
    }
    let live = other.path().join("app");
    let slots = Executable::open(Arc::new(Real), program.dir.path(), live).unwrap();
    assert_eq!(slots.elsewhere().as_deref(), Some(other.path()));
    assert_eq!((slots.room(10), program.open(Real).room(10)), (10, 20));
}

#[test]
fn a147_files_of_the_owner_beside_the_program_are_never_touched() {
    let program = Program::new();
    let own = [
        "app.prev",
        ".app.new",
        ".app.prev.new",
        ".app.away",
        "app.old",
    ];
    let slots = program.open(Real);
    for name in own {
        fs::write(program.folder().join(name), "my own backup").unwrap();
    }
    slots.check_room(1).unwrap();
    for slot in [SlotId::A, SlotId::B, SlotId::A, SlotId::B] {
        slots.activate(Some(slot)).unwrap();
    }
    assert_eq!(fs::read_to_string(program.live()).unwrap(), "2");
    for name in own {
        let found = fs::read_to_string(program.folder().join(name));
        assert_eq!(found.unwrap(), "my own backup", "{name}");
    }
}

#[test]
fn a143_a_pipe_in_the_place_of_a_kept_program_holds_nothing_and_hangs_nobody() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let program = Program::new();
    let slots = program.open(Real);
    slots.activate(Some(SlotId::B)).unwrap();
    let kept = program.folder().join("app.tidegate-prev");
    for path in [&slots.slots.artifact(SlotId::A), &kept] {
        fs::remove_file(path).unwrap();
        mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let active = slots.medium().map(|medium| medium.active);
        let back = slots.activate(Some(SlotId::A));
        done.send((active, back)).unwrap();
    });
    let looked = result.recv_timeout(std::time::Duration::from_mins(2));
    let (active, back) = looked.unwrap_or_else(|_| panic!("it hangs"));
    assert_eq!(active.unwrap(), Some(SlotId::B));
    assert!(back.unwrap_err().is_damage());
    assert_eq!(fs::read_to_string(program.live()).unwrap(), "2");
}
