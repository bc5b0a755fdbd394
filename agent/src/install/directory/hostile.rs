//! Traps that a failing version may leave in the slot that the device goes back to.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::fs::{Crashing, Real};

/// Far more than a look takes; a hang or a terabyte takes longer.
const PATIENCE: Duration = Duration::from_mins(2);

fn adopted(dir: &Path, fs: impl Fs + 'static) -> (Directory, Image) {
    let folder = dir.join("good");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::write(folder.join("VERSION"), "good").unwrap();
    fs::write(folder.join("bin/app"), "run").unwrap();
    let slots = Directory::open(Arc::new(fs), dir).unwrap();
    let image = slots.adopt(SlotId::A, &folder, PackOptions::default());
    (slots, image.unwrap())
}

/// Runs work that may never end.
fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    result
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| panic!("it hangs: {what}"))
}

fn pipe(path: &Path) {
    use rustix::fs::{FileType, Mode};
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

#[test]
fn a143_whatever_lies_in_the_place_of_a_kept_file_is_damage_and_nothing_of_it_is_read() {
    for what in ["pipe", "link", "socket", "folder", "terabyte", "nothing"] {
        let dir = tempfile::tempdir().unwrap();
        let (slots, image) = adopted(dir.path(), Real);
        let path = slots.slots.artifact(SlotId::A);
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        match what {
            "pipe" => pipe(&path),
            "link" => symlink(&elsewhere, &path).unwrap(),
            "socket" => drop(UnixListener::bind(&path).unwrap()),
            "folder" => fs::create_dir(&path).unwrap(),
            "terabyte" => {
                let file = fs::File::create(&path).unwrap();
                if let Err(error) = file.set_len(1 << 40) {
                    println!("skipped: no file of a terabyte here: {error}");
                    continue;
                }
            }
            _ => {}
        }
        fs::write(slots.tree(SlotId::A).join("VERSION"), "damaged").unwrap();
        let (again, state) = (slots.clone(), dir.path().to_owned());
        let verified = within(what, move || {
            // As at the next start: a look alone neither hangs nor fails.
            Directory::open(Arc::new(Real), &state).unwrap();
            again.verify(SlotId::A, image)
        });
        let error = verified.unwrap_err();
        assert!(error.is_damage(), "{what}: {error}");
        let mode = fs::metadata(&elsewhere).unwrap().permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
            0o600,
            "{what}"
        );
        // It is fetched again into the same slot.
        if what != "terabyte" {
            let again = slots.clone();
            within(what, move || again.keep_what_was_added(SlotId::A)).unwrap();
        }
        slots.slots.empty(SlotId::A, None).unwrap();
        assert!(fs::symlink_metadata(&path).is_err(), "{what}");
        assert!(elsewhere.is_file());
    }
}

#[test]
fn a_link_in_the_place_of_an_artifact_does_not_have_its_target_closed() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (slots, _) = adopted(dir.path(), Real);
    let (path, open) = (slots.slots.artifact(SlotId::A), dir.path().join("open"));
    fs::write(&open, "").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&open, &path).unwrap();
    Directory::open(Arc::new(Real), dir.path()).unwrap();
    assert_eq!(open.metadata().unwrap().permissions().mode() & 0o777, 0o644);
}

/// Refuses every change of one file in the kept tree, as the system does for one that is immutable, or that
/// something is mounted on.
fn stuck(error: rustix::io::Errno) -> impl Fs {
    Crashing::new(Real, move |_, what, path| {
        let text = path.to_string_lossy();
        let changes = ["rename to", "remove", "set mode", "open"].contains(&what);
        let it = text.ends_with("a/tree/VERSION") || text.ends_with("a/tree.was/VERSION");
        if it && changes {
            return Err(error.into());
        }
        Ok(true)
    })
}

#[test]
fn a144_a_kept_tree_that_will_not_change_is_built_anew_beside_it() {
    use rustix::io::Errno;
    for error in [Errno::PERM, Errno::BUSY, Errno::ROFS] {
        let dir = tempfile::tempdir().unwrap();
        let (_, image) = adopted(dir.path(), Real);
        let slots = Directory::open(Arc::new(stuck(error)), dir.path()).unwrap();
        let tree = slots.tree(SlotId::A);
        fs::write(tree.join("VERSION"), "damaged").unwrap();
        slots.verify(SlotId::A, image).unwrap();
        assert_eq!(fs::read_to_string(tree.join("VERSION")).unwrap(), "good");
        assert_eq!(fs::read_to_string(tree.join("bin/app")).unwrap(), "run");
        // Nothing of what was there is lost, and the slot is whole in itself.
        let aside = dir.path().join("slots/stuck.1/tree/VERSION");
        assert_eq!(fs::read_to_string(aside).unwrap(), "damaged");
        let plain = Directory::open(Arc::new(Real), dir.path()).unwrap();
        plain.verify(SlotId::A, image).unwrap();
        assert!(!dir.path().join("slots/stuck.2").exists());
    }
}

#[test]
fn a144_an_immutable_file_keeps_neither_the_way_back_nor_the_next_update_waiting() {
    use rustix::fs::{IFlags, ioctl_setflags};
    let dir = tempfile::tempdir().unwrap();
    let (slots, image) = adopted(dir.path(), Real);
    let tree = slots.tree(SlotId::A);
    fs::write(tree.join("VERSION"), "damaged").unwrap();
    let file = fs::File::open(tree.join("VERSION")).unwrap();
    if let Err(error) = ioctl_setflags(&file, IFlags::IMMUTABLE) {
        println!("skipped: no file can be made immutable here: {error}");
        return;
    }
    let verified = slots.verify(SlotId::A, image);
    let emptied = slots.slots.empty(SlotId::A, None);
    ioctl_setflags(&file, IFlags::empty()).unwrap();
    verified.unwrap();
    emptied.unwrap();
    assert_eq!(fs::read_dir(slots.slots.dir(SlotId::A)).unwrap().count(), 0);
    let aside = dir.path().join("slots/stuck.1/tree/VERSION");
    assert_eq!(fs::read_to_string(aside).unwrap(), "damaged");
}

#[test]
fn a_slot_that_cannot_be_emptied_is_moved_aside_whole() {
    let dir = tempfile::tempdir().unwrap();
    adopted(dir.path(), Real);
    let slots = Directory::open(Arc::new(stuck(rustix::io::Errno::PERM)), dir.path()).unwrap();
    slots.slots.empty(SlotId::A, None).unwrap();
    assert_eq!(fs::read_dir(slots.slots.dir(SlotId::A)).unwrap().count(), 0);
    let aside = dir.path().join("slots/stuck.1/tree/VERSION");
    assert_eq!(fs::read_to_string(aside).unwrap(), "good");
}

#[test]
fn a_slot_built_anew_is_in_its_place_wherever_the_exchange_is_cut() {
    let mut cut_at = 0;
    loop {
        cut_at += 1;
        let dir = tempfile::tempdir().unwrap();
        let (slots, image) = adopted(dir.path(), Real);
        fs::write(slots.tree(SlotId::A).join("VERSION"), "damaged").unwrap();
        let cut = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let was_cut = cut.clone();
        // From one operation on nothing is done any more, as after a power cut.
        let broken = Crashing::new(Real, move |number, what, path| {
            let it = path.ends_with("a/tree/VERSION") && !path.to_string_lossy().contains("a.new");
            if it && what == "rename to" {
                return Err(rustix::io::Errno::BUSY.into());
            }
            if number >= cut_at {
                was_cut.store(true, std::sync::atomic::Ordering::SeqCst);
                return Err(io::Error::other("cut"));
            }
            Ok(true)
        });
        if let Ok(broken) = Directory::open(Arc::new(broken), dir.path()) {
            let _ = broken.verify(SlotId::A, image);
        }
        let slots = Directory::open(Arc::new(Real), dir.path()).unwrap();
        slots.verify(SlotId::A, image).unwrap();
        let found = fs::read_to_string(slots.tree(SlotId::A).join("VERSION"));
        assert_eq!(found.unwrap(), "good", "cut before operation {cut_at}");
        if !cut.load(std::sync::atomic::Ordering::SeqCst) {
            assert!(cut_at > 10, "{cut_at} operations");
            return;
        }
    }
}
