//! Owner, permissions and extended attributes of a file.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::io::Errno;

/// Flag that keeps a link in the last part of a path from being followed.
pub(super) fn nofollow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

/// Flag that keeps opening from waiting for another process; without effect on files and block devices.
pub(super) fn nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// Accepts that a file system has no permission bits, as FAT: its mount options say who may read.
pub(super) fn fits(set: io::Result<()>) -> io::Result<()> {
    match set {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Gives a file the owner, the permissions and the extended attributes of the one at a path. The file is
/// the open one, never what its name leads to by then.
pub(super) fn take(to: &File, from: &Path) -> io::Result<()> {
    let opened = File::options()
        .read(true)
        .custom_flags(nofollow() | nonblock())
        .open(from);
    let like = match opened {
        Ok(like) => like,
        // What a link leads to is somebody else's: whoever made the link must not get a file of that
        // owner with that owner's special bits.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            let bits = fs::metadata(from)?.mode() & 0o777;
            return fits(to.set_permissions(Permissions::from_mode(bits)));
        }
        Err(error) => return Err(error),
    };
    let (old, new) = (like.metadata()?, to.metadata()?);
    let mode = old.mode() & 0o7777;
    // The owner first, since a change of it clears capabilities. The permissions last: until then the
    // file is its owner's alone.
    if (old.uid(), old.gid()) != (new.uid(), new.gid())
        && let Err(error) = fchown(to, Some(old.uid()), Some(old.gid()))
        && !is_open_to_all(mode)
    {
        let (user, group) = (old.uid(), old.gid());
        let what = format!("its owner, user {user} and group {group}");
        return Err(cannot_keep(
            &what,
            "run the agent as root, or give the program to the agent's user",
            &error,
        ));
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    extended::take(to, &like)?;
    fits(to.set_permissions(Permissions::from_mode(mode)))
}

/// Returns whether an owner makes no difference to who may read and start a program: without special
/// bits, and with nothing for owner and group that all others do not have.
fn is_open_to_all(mode: u32) -> bool {
    mode & 0o7000 == 0 && (mode >> 6 | mode >> 3) & 0o5 & !mode == 0
}

fn cannot_keep(what: &str, advice: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{what}, cannot be kept: {error}; {advice}"),
    )
}

/// Extended attributes of Linux: file capabilities, access lists, labels, the user's own.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod extended {
    use std::fs::File;
    use std::io;

    use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
    use rustix::io::Errno;

    /// Most bytes of a list of attributes, and of one of them, that Linux has.
    const LONGEST: usize = 64 << 10;
    const ACCESS: &[u8] = b"system.posix_acl_access";

    pub(super) fn take(to: &File, like: &File) -> io::Result<()> {
        // Inherited from the folder, it would let in whom the live file keeps out.
        let _ = fremovexattr(to, ACCESS);
        let mut names = vec![0_u8; LONGEST];
        let listed = match flistxattr(like, &mut names[..]) {
            Ok(listed) => listed,
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut value = vec![0_u8; LONGEST];
        for name in names[..listed].split(|byte| *byte == 0) {
            // Measurements of the old bytes say nothing about the new ones.
            if matches!(name, b"" | b"security.ima" | b"security.evm") {
                continue;
            }
            let length = match fgetxattr(like, name, &mut value[..]) {
                Ok(length) => length,
                Err(Errno::NODATA) => continue,
                Err(error) => return Err(error.into()),
            };
            match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
                Ok(()) => {}
                // A label is the policy's to give, and was given when the file was made.
                Err(_) if name == b"security.selinux" => {}
                Err(error) => {
                    let name = String::from_utf8_lossy(name);
                    let what = format!("its attribute {name}");
                    let advice = "run the agent as root, or remove it from the program";
                    return Err(super::cannot_keep(&what, advice, &error.into()));
                }
            }
        }
        Ok(())
    }
}
