//! Programs that commands start: which file that is, and the environment it gets.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables of the agent's environment that its commands get. All others may hold what is none of
/// theirs, like the password of a proxy.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    #[cfg(not(windows))]
    "TMPDIR",
    #[cfg(windows)]
    "SystemRoot",
    #[cfg(windows)]
    "SystemDrive",
    #[cfg(windows)]
    "ComSpec",
    #[cfg(windows)]
    "PATHEXT",
    #[cfg(windows)]
    "TEMP",
    #[cfg(windows)]
    "TMP",
    #[cfg(windows)]
    "USERNAME",
    #[cfg(windows)]
    "USERPROFILE",
    #[cfg(windows)]
    "APPDATA",
    #[cfg(windows)]
    "LOCALAPPDATA",
    #[cfg(windows)]
    "ProgramData",
    #[cfg(windows)]
    "ProgramFiles",
    #[cfg(windows)]
    "ProgramFiles(x86)",
    #[cfg(windows)]
    "CommonProgramFiles",
];

/// Leaves a command those variables of the environment that it may have.
pub(super) fn clean(command: &mut Command) {
    command.env_clear();
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Finds the program that a command names: by its absolute path, below the folder, or in PATH. What
/// others can replace is never taken from the folder: they would get the rights of the agent.
pub(super) fn find(program: &str, folder: &Path) -> Result<PathBuf, String> {
    let inside = folder.join(program);
    if Path::new(program).is_absolute() || !inside.is_file() {
        return Ok(program.into());
    }
    let is_bare = Path::new(program).components().count() == 1 && !program.contains('/');
    match writable(&inside) {
        None => Ok(inside),
        // A name without a folder means the system's program.
        Some(_) if is_bare => Ok(program.into()),
        Some(place) => Err(format!(
            "{} is not started: others than the agent's user can change {}",
            inside.display(),
            place.display()
        )),
    }
}

/// First place on the way to a file that others than this user and root can change; `None` if there
/// is none.
#[cfg(unix)]
pub(crate) fn writable(file: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let user = rustix::process::geteuid().as_raw();
    // Where each user has a group of their own, files are writable by it.
    let others = if user == 0 { 0o022 } else { 0o002 };
    let whole = file.canonicalize().ok()?;
    let open = |place: &&Path| {
        let Ok(meta) = place.symlink_metadata() else {
            return true;
        };
        // Nobody replaces the files of others in a folder like /tmp.
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        (meta.mode() & others != 0 && !sticky) || ![0, user].contains(&meta.uid())
    };
    whole.ancestors().find(open).map(Path::to_owned)
}

#[cfg(not(unix))]
pub(crate) fn writable(_: &Path) -> Option<PathBuf> {
    None
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a79_a_program_that_others_can_replace_is_not_started_from_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for file in ["systemctl", "bin/check"] {
            std::fs::write(dir.path().join(file), "").unwrap();
            mode(&dir.path().join(file), 0o755);
        }
        let look = |program: &str| find(program, dir.path());
        let inside = |program: &str| Ok(dir.path().join(program));
        assert_eq!(look("systemctl"), inside("systemctl"));
        assert_eq!(look("bin/check"), inside("bin/check"));
        assert_eq!(look("/bin/sh"), Ok("/bin/sh".into()));
        assert_eq!(look("sh"), Ok("sh".into()));
        // The program itself, its folder, a folder above it.
        for open in ["bin/check", "bin", ""] {
            let place = dir.path().join(open);
            let before = place.metadata().unwrap().permissions();
            mode(&place, before.mode() | 0o002);
            let error = look("bin/check").unwrap_err();
            assert!(error.contains("others than the agent's user"), "{error}");
            std::fs::set_permissions(&place, before).unwrap();
        }
        mode(dir.path(), 0o777);
        assert_eq!(look("systemctl"), Ok("systemctl".into()));
        mode(dir.path(), 0o1777);
        assert_eq!(look("systemctl"), inside("systemctl"));
    }

    #[test]
    fn a_command_gets_no_variable_that_is_none_of_its_business() {
        let mut command = Command::new("env");
        command
            .env("HTTPS_PROXY", "http://me:secret@proxy")
            .env("OWN", "x");
        clean(&mut command);
        let names: Vec<_> = command
            .get_envs()
            .map(|(name, _)| name.to_owned())
            .collect();
        assert!(names.iter().any(|name| name == "PATH"), "{names:?}");
        assert!(!names.iter().any(|name| name == "HTTPS_PROXY"), "{names:?}");
        assert!(!names.iter().any(|name| name == "CARGO"), "{names:?}");
    }
}
