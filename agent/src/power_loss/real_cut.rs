//! Real power cuts, on ext4 and xfs: a file system in a file is shut down before an operation, so
//! that nothing unsynced reaches it, mounted again, and recovered.
//!
//! Needs root, loop devices, `mkfs.ext4`, `mkfs.xfs` and Python for one ioctl. Without them the
//! tests say so and pass, unless `TIDEGATE_REQUIRE_POWER_CUT` is set.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::device::{Device, Fate, Heard, Sort};
use super::versions::Versions;
use crate::fs::{Crashing, Fs, Real};

/// `EXT4_IOC_SHUTDOWN` without flushing the log; the same number on xfs.
const SHUT_DOWN: &str = "import fcntl,os,struct,sys;\
    fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";

fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {arguments:?}: {}", said.trim()))
}

/// Longest time for others to release a file system that must be unmounted.
const BUSY: Duration = Duration::from_secs(20);

/// A file system in a file, and where it is mounted.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    fn make(dir: &Path, kind: &str) -> Result<Self, String> {
        let disk = Self {
            image: dir.join(format!("{kind}.img")),
            mount: dir.join(kind),
            mounted: false,
        };
        // The smallest that xfs takes; it is not filled.
        let bytes = if kind == "xfs" { 320 << 20 } else { 24 << 20 };
        std::fs::create_dir(&disk.mount).map_err(|e| e.to_string())?;
        std::fs::File::create(&disk.image)
            .and_then(|file| file.set_len(bytes))
            .map_err(|e| e.to_string())?;
        let image = disk.image.display().to_string();
        let quiet = if kind == "xfs" { "-q" } else { "-qF" };
        call(&format!("mkfs.{kind}"), &[quiet, &image])?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        let (image, mount) = (self.image.display(), self.mount.display());
        call(
            "mount",
            &["-o", "loop", &image.to_string(), &mount.to_string()],
        )?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts. An indexer, or a process that another test has just started, may hold the mount
    /// for a moment: then it is retried.
    fn unmount(&mut self) -> Result<(), String> {
        self.mounted = false;
        let mount = self.mount.display().to_string();
        let begun = Instant::now();
        loop {
            match call("umount", &[&mount]) {
                Err(why) if why.contains("busy") && begun.elapsed() < BUSY => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                ended => return ended,
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.unmount();
        }
    }
}

/// Durable journal writes, and reports that the server has received.
type Known = (u64, Heard);

struct Lab<'a> {
    disk: Disk,
    fresh: PathBuf,
    versions: &'a Versions,
    sort: Sort,
    fate: Fate,
    /// Whether syncs are passed on. Without them there must be damage, or the test is blind.
    syncs: bool,
}

impl Lab<'_> {
    fn device<'d>(
        &'d self,
        fs: Arc<dyn Fs>,
        heard: Heard,
        durable: &'d dyn Fn(u64, &Heard),
    ) -> Device<'d> {
        Device {
            fs,
            root: self.disk.mount.join("m"),
            sort: self.sort,
            versions: self.versions,
            fate: self.fate,
            heard,
            durable,
        }
    }

    /// Runs the update until the power fails before the `at`-th operation. Returns whether it did,
    /// and what was known outside.
    fn cut_at(&self, at: u64) -> (bool, Known) {
        let known: Mutex<Known> = Mutex::default();
        let cut = Arc::new(Mutex::new(false));
        let (mount, syncs, gone) = (self.disk.mount.clone(), self.syncs, cut.clone());
        let hook = move |number: u64, what: &str, _: &Path| {
            if number == at {
                *gone.lock().unwrap() = true;
                let mount = mount.display().to_string();
                call("python3", &["-c", SHUT_DOWN, &mount]).map_err(io::Error::other)?;
            }
            if number >= at {
                return Err(io::Error::other("the power is gone"));
            }
            Ok(syncs || what != "sync")
        };
        let durable = |writes: u64, heard: &Heard| {
            *known.lock().unwrap() = (writes, heard.clone());
        };
        let fs: Arc<dyn Fs> = Arc::new(Crashing::new(Real, hook));
        let mut device = self.device(fs, Heard::new(), &durable);
        let result = device.run();
        drop(device);
        let cut = *cut.lock().unwrap();
        assert!(cut || result.is_ok(), "without a cut: {result:?}");
        (cut, known.into_inner().unwrap())
    }

    /// Checks after a reboot that the device is sound and comes to the right end.
    fn recovers(&self, (writes, heard): Known) -> Result<(), String> {
        let mut device = self.device(Arc::new(Real), heard, &|_, _| {});
        device.power_on().unwrap();
        device.is_sound(writes)?;
        device.run().map_err(|e| format!("recovery: {e:?}"))?;
        let heard = std::mem::take(&mut device.heard);
        device.end_is_right(&heard).map_err(|e| format!("{e:?}"))
    }

    /// Cuts before each `step`-th operation; returns the number of cuts and what went wrong.
    fn cut_everywhere(&mut self, step: usize) -> Result<(u32, Vec<String>), String> {
        let (mut cuts, mut wrong) = (0, Vec::new());
        for at in (1..).step_by(step) {
            let (fresh, image) = (self.fresh.display(), self.disk.image.display());
            let copy = ["--sparse=always", &fresh.to_string(), &image.to_string()];
            call("cp", &copy)?;
            self.disk.mount()?;
            let (cut, known) = self.cut_at(at);
            self.disk.unmount()?;
            if !cut {
                break;
            }
            cuts += 1;
            self.disk.mount()?;
            if let Err(what) = self.recovers(known) {
                wrong.push(format!("cut before operation {at}: {what}"));
            }
            self.disk.unmount()?;
        }
        Ok((cuts, wrong))
    }
}

fn cuts(
    kind: &str,
    sort: Sort,
    fate: Fate,
    syncs: bool,
    step: usize,
) -> Result<(u32, Vec<String>), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let versions = Versions::new(sort);
    let mut disk = Disk::make(dir.path(), kind)?;
    disk.mount()?;
    let mut lab = Lab {
        fresh: dir.path().join("fresh.img"),
        disk,
        versions: &versions,
        sort,
        fate,
        syncs,
    };
    lab.device(Arc::new(Real), Heard::new(), &|_, _| {})
        .set_up();
    lab.disk.unmount()?;
    std::fs::rename(&lab.disk.image, &lab.fresh).map_err(|e| e.to_string())?;
    lab.cut_everywhere(step)
}

/// Reason why the power cannot be cut here, if it cannot.
static IMPOSSIBLE: LazyLock<Option<String>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let tried = Disk::make(dir.path(), "ext4").and_then(|mut disk| {
        disk.mount()?;
        let mount = disk.mount.display().to_string();
        call("python3", &["-c", SHUT_DOWN, &mount])?;
        disk.unmount()?;
        Disk::make(dir.path(), "xfs").map(drop)
    });
    tried.err()
});

/// Returns whether the power can be cut here; prints the reason if not.
fn possible() -> bool {
    let Some(why) = &*IMPOSSIBLE else {
        return true;
    };
    assert!(
        std::env::var_os("TIDEGATE_REQUIRE_POWER_CUT").is_none(),
        "the power must be cut here and cannot be: {why}"
    );
    println!("skipped: no file system can be cut off here ({why})");
    false
}

fn survives(kind: &str, sort: Sort, fate: Fate, step: usize) {
    if !possible() {
        return;
    }
    let (cuts, wrong) = cuts(kind, sort, fate, true, step).unwrap();
    assert!(wrong.is_empty(), "{kind} {sort:?} {fate:?}: {wrong:#?}");
    assert!(cuts >= 15, "{kind} {sort:?} {fate:?}: {cuts} cuts");
    println!("{kind} {sort:?} {fate:?}: {cuts} power cuts, nothing lost");
}

/// Checks the test itself: without syncing files, cuts do damage.
fn is_damaged_without_syncs(kind: &str) {
    if !possible() {
        return;
    }
    let (cuts, wrong) = cuts(kind, Sort::Directory, Fate::Healthy, false, 2).unwrap();
    let damaged = wrong.len();
    assert!(
        damaged > 0,
        "{kind}: {cuts} cuts without syncs and no damage"
    );
    println!("{kind}: {damaged} of {cuts} cuts do damage without syncs");
}

/// The tests on one file system, small enough to run beside each other.
macro_rules! file_system {
    ($kind:ident) => {
        mod $kind {
            use super::*;

            const KIND: &str = stringify!($kind);

            #[test]
            fn a_good_update_of_directory_slots_survives_every_cut() {
                survives(KIND, Sort::Directory, Fate::Healthy, 1);
            }

            #[test]
            fn a_return_to_a_directory_slot_survives_cuts() {
                survives(KIND, Sort::Directory, Fate::FailsLater, 2);
            }

            #[test]
            fn a_return_to_an_executable_survives_cuts() {
                survives(KIND, Sort::Executable, Fate::FailsLater, 3);
            }

            #[test]
            fn a_return_to_an_image_survives_cuts() {
                survives(KIND, Sort::Image, Fate::FailsLater, 3);
            }

            #[test]
            fn a_hooks_update_survives_cuts() {
                survives(KIND, Sort::Hook, Fate::Healthy, 5);
            }

            #[test]
            fn without_syncs_a_cut_does_damage() {
                is_damaged_without_syncs(KIND);
            }
        }
    };
}

file_system!(ext4);
file_system!(xfs);
