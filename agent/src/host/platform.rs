//! Facts about the machine: free space, name, clock.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_protocol::Timestamp;

/// The platform that this agent was built for, as artifacts name it.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// The machine's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::ZERO.plus(since)
}

/// The machine's name for people.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    if name.is_empty() {
        "device".into()
    } else {
        name
    }
}

/// Boot id of the machine; empty where the system has none.
pub(crate) fn boot_id() -> String {
    read_small(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

/// Number of the user that this process runs as; `None` where users have no numbers.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
pub(crate) fn user_id() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

/// Number of the user that this process runs as; `None` where users have no numbers.
#[cfg(not(unix))]
pub(crate) fn user_id() -> Option<u32> {
    None
}

/// Returns whether files that are made in a folder are overwritten in place; `None` where they always are. A
/// full btrfs has no room for the copy that it makes of each written block, and a journal that cannot be
/// written stops the way back.
#[cfg(target_os = "linux")]
pub(crate) fn overwrites_in_place(folder: &Path) -> Option<bool> {
    const BTRFS: &str = "9123683e";
    // As text: the number's type and sign are others on each machine.
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    if format!("{kind:x}") != BTRFS {
        return None;
    }
    let folder = std::fs::File::open(folder).ok()?;
    let flags = rustix::fs::ioctl_getflags(&folder).ok()?;
    Some(flags.contains(rustix::fs::IFlags::NOCOW))
}

/// Has files that are made in an empty folder from now on overwritten in place. Where that fails, everything
/// works until the file system is full.
#[cfg(target_os = "linux")]
pub(crate) fn overwrite_in_place(folder: &Path) {
    if overwrites_in_place(folder) != Some(false) {
        return;
    }
    let flag = || {
        let folder = std::fs::File::open(folder)?;
        let flags = rustix::fs::ioctl_getflags(&folder)?;
        rustix::fs::ioctl_setflags(&folder, flags | rustix::fs::IFlags::NOCOW)?;
        Ok::<(), std::io::Error>(())
    };
    if let Err(error) = flag() {
        crate::log::line(&format!("{} copies on write: {error}", folder.display()));
    }
}

/// Free space below a path for an ordinary user, in bytes; `None` if unknown.
#[cfg(unix)]
pub fn free_space(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Returns whether a path is known to lie on a file system that can only be read.
#[cfg(unix)]
pub(crate) fn is_read_only(path: &Path) -> bool {
    let stat = rustix::fs::statvfs(path);
    stat.is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// Returns whether a path is known to lie on a file system that can only be read.
#[cfg(not(unix))]
pub(crate) fn is_read_only(_: &Path) -> bool {
    false
}

/// Returns whether two folders are known to lie on different file systems.
#[cfg(unix)]
pub(crate) fn is_elsewhere(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    matches!((device(a), device(b)), (Some(a), Some(b)) if a != b)
}

/// Returns whether two folders are known to lie on different volumes, by their drives.
#[cfg(not(unix))]
pub(crate) fn is_elsewhere(a: &Path, b: &Path) -> bool {
    let drive = |path: &Path| {
        let first = path.components().next()?;
        Some(first.as_os_str().to_ascii_lowercase())
    };
    a.is_absolute() && b.is_absolute() && drive(a) != drive(b)
}

/// Free space and free names (inodes) below a path.
#[cfg(unix)]
pub(crate) fn room(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_bavail, stat.f_favail))
}

/// Free space below a path; there are always names.
#[cfg(windows)]
pub(crate) fn room(path: &Path) -> Option<(u64, u64)> {
    Some((free_space(path)?, 0))
}

/// Free space below a folder for this user, in bytes; `None` if unknown.
#[cfg(windows)]
pub fn free_space(path: &Path) -> Option<u64> {
    let mut free = 0;
    winsafe::GetDiskFreeSpaceEx(path.to_str(), Some(&mut free), None, None).ok()?;
    Some(free)
}

/// The machine's memory in KiB, and how much of it can be had; `None` where it cannot be told.
#[cfg(not(windows))]
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((kib("MemTotal:")?, kib("MemAvailable:")?))
}

/// The machine's memory in KiB, and how much of it can be had; `None` where it cannot be told.
#[cfg(windows)]
pub(crate) fn memory() -> Option<(u64, u64)> {
    let memory = winsafe::GlobalMemoryStatusEx().ok()?;
    Some((memory.ullTotalPhys >> 10, memory.ullAvailPhys >> 10))
}

/// Id of a group, by number or by its name in `/etc/group`: a static binary knows no other source.
#[cfg(unix)]
pub(crate) fn group_id(group: &str) -> std::io::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let list = std::fs::read_to_string("/etc/group")?;
    let found = list.lines().find_map(|line| {
        let mut words = line.split(':');
        (words.next() == Some(group)).then(|| words.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| std::io::Error::other(format!("group {group:?} not found in /etc/group")))
}

pub(crate) fn read_small(path: &Path) -> Option<String> {
    use std::io::Read as _;
    // Reading a pipe would block.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    std::fs::File::open(path)
        .ok()?
        .take(256)
        .read_to_string(&mut text)
        .ok()?;
    Some(text.trim().to_owned())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn call(program: &str, arguments: &[&str]) -> bool {
        let ran = Command::new(program).args(arguments).output();
        ran.is_ok_and(|output| output.status.success())
    }

    #[test]
    fn on_btrfs_what_is_made_in_a_new_state_folder_is_overwritten_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (image, mount) = (path("image"), path("mount"));
        std::fs::create_dir(&mount).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(128 << 20).unwrap();
        if !call("mkfs.btrfs", &["-q", &image]) || !call("mount", &["-o", "loop", &image, &mount]) {
            println!("skipped: it needs root, loop devices and mkfs.btrfs");
            return;
        }
        let state = Path::new(&mount).join("state");
        std::fs::create_dir(&state).unwrap();
        let before = overwrites_in_place(&state);
        overwrite_in_place(&state);
        let after = overwrites_in_place(&state);
        let journal = std::fs::File::create(state.join("journal.a")).unwrap();
        let flags = rustix::fs::ioctl_getflags(&journal).unwrap();
        drop(journal);
        assert!(call("umount", &[&mount]));
        assert_eq!((before, after), (Some(false), Some(true)));
        assert!(flags.contains(rustix::fs::IFlags::NOCOW));
        assert_eq!(overwrites_in_place(Path::new("/proc")), None);
    }
}
