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

/// Reason why a program is not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotStarted {
    pub(crate) what: String,
    /// Whether the folder of the command is to blame, or nothing of that name is anywhere; otherwise the
    /// machine is.
    pub(crate) by_folder: bool,
}

/// Finds the program that a command names: by its absolute path, below the folder, or in PATH. What
/// others can replace is never started, wherever it is: they would get the rights of the agent.
pub(crate) fn find(program: &str, folder: &Path) -> Result<PathBuf, NotStarted> {
    let inside = folder.join(program);
    let is_bare = Path::new(program).components().count() == 1 && !program.contains('/');
    let is_here = inside.is_file();
    let found = if is_here && !(is_bare && writable(&inside).is_some()) {
        inside
    } else if !is_bare {
        return Err(missing(program, folder));
    } else if cfg!(unix) {
        // A name without a folder means the system's program, if others can change the one here.
        match in_path(program) {
            Some(found) => found,
            None if is_here => inside,
            None => return Err(missing(program, folder)),
        }
    } else {
        // The system knows more names for it, and more places.
        return Ok(program.into());
    };
    if let Some(place) = writable(&found) {
        return Err(NotStarted {
            what: format!(
                "{} is not started: others than the agent's user can change {}",
                found.display(),
                place.display()
            ),
            by_folder: place != folder && place.starts_with(folder),
        });
    }
    #[cfg(unix)]
    if let Err(error) = rustix::fs::access(&found, rustix::fs::Access::EXEC_OK) {
        use std::os::unix::fs::PermissionsExt as _;
        let allowed = found
            .metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
        return Err(NotStarted {
            what: format!("{} may not be executed: {error}", found.display()),
            // With a right to it, its file system is mounted without.
            by_folder: !allowed && found.starts_with(folder),
        });
    }
    Ok(found)
}

fn missing(program: &str, folder: &Path) -> NotStarted {
    let is_absolute = Path::new(program).is_absolute();
    let place = format!(" in {} and in PATH", folder.display());
    NotStarted {
        what: format!(
            "there is no program {program:?}{}",
            if is_absolute { "" } else { &place }
        ),
        by_folder: true,
    }
}

/// Finds a program in PATH, as a command that is started with the same PATH would.
fn in_path(program: &str) -> Option<PathBuf> {
    if program.is_empty() {
        return None;
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let all = std::env::split_paths(&folders).map(|folder| folder.join(program));
    let there = all.filter(|path| path.is_absolute() && path.is_file());
    there.collect::<Vec<_>>().into_iter().min_by_key(|path| {
        // The first one that may be executed, else the first one, which the error then names.
        let meta = path.metadata();
        #[cfg(unix)]
        let bits = meta.map_or(0, |meta| {
            std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111
        });
        #[cfg(not(unix))]
        let bits = u32::from(meta.is_ok());
        bits == 0
    })
}

/// Links that are followed on the way to a program.
#[cfg(unix)]
const LINKS: u8 = 16;

/// First place on the way to a file that others than this user and root can change; `None` if there
/// is none.
#[cfg(unix)]
pub(crate) fn writable(file: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(file).ok()?;
    whole.exists().then(|| changeable(&whole, LINKS)).flatten()
}

/// Looks at a path as it is written, link by link: whoever can replace a link can replace what it leads to.
#[cfg(unix)]
fn changeable(path: &Path, links: u8) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let user = rustix::process::geteuid().as_raw();
    // Where each user has a group of their own, files are writable by it.
    let others = if user == 0 { 0o022 } else { 0o002 };
    path.ancestors().find_map(|place| {
        let Ok(meta) = place.symlink_metadata() else {
            return Some(place.to_owned());
        };
        if ![0, user].contains(&meta.uid()) {
            return Some(place.to_owned());
        }
        if meta.is_symlink() {
            let to = std::fs::read_link(place).ok().filter(|_| links > 0);
            let Some(to) = to.zip(place.parent()).map(|(to, from)| from.join(to)) else {
                return Some(place.to_owned());
            };
            return changeable(&to, links - 1);
        }
        // Nobody replaces the files of others in a folder like /tmp.
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        (meta.mode() & others != 0 && !sticky).then(|| place.to_owned())
    })
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
        for file in ["sleep", "bin/check"] {
            std::fs::write(dir.path().join(file), "").unwrap();
            mode(&dir.path().join(file), 0o755);
        }
        let look = |program: &str| find(program, dir.path()).map_err(|not| not.what);
        let inside = |program: &str| Ok(dir.path().join(program));
        assert_eq!(look("sleep"), inside("sleep"));
        assert_eq!(look("bin/check"), inside("bin/check"));
        assert_eq!(look("/bin/sh"), Ok("/bin/sh".into()));
        assert!(look("sh").unwrap().is_absolute());
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
        assert_ne!(look("sleep"), inside("sleep"));
        assert!(look("sleep").is_ok(), "the system's own");
        mode(dir.path(), 0o1777);
        assert_eq!(look("sleep"), inside("sleep"));
    }

    #[test]
    fn a145_a_program_of_the_machine_that_others_can_replace_is_not_started_either() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("version");
        let own = dir.path().join("own");
        for made in [&folder, &own] {
            std::fs::create_dir(made).unwrap();
        }
        let [check, link] = ["check", "link"].map(|name| own.join(name));
        std::fs::write(&check, "").unwrap();
        mode(&check, 0o755);
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        let look = |path: &Path| find(&path.display().to_string(), &folder);
        assert_eq!(look(&check), Ok(check.clone()));
        assert_eq!(look(&link), Ok(link.clone()));
        // The program, and the folder that holds it or a link to one that nobody can change.
        for (open, named) in [(&check, &check), (&own, &check), (&own, &link)] {
            let before = open.metadata().unwrap().permissions();
            mode(open, 0o777);
            let refused = look(named).unwrap_err();
            assert!(
                refused.what.contains("others than the agent's user"),
                "{refused:?}"
            );
            assert!(
                refused.what.ends_with(&open.display().to_string()),
                "{refused:?}"
            );
            assert!(!refused.by_folder, "the machine is to blame");
            std::fs::set_permissions(open, before).unwrap();
        }
    }

    #[test]
    fn what_the_folder_lacks_is_told_from_what_the_machine_does_not_allow() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("version");
        std::fs::create_dir_all(version.join("bin")).unwrap();
        let by_folder = |program: &str| find(program, &version).unwrap_err().by_folder;
        assert!(by_folder("bin/check"), "it is not there");
        let check = version.join("bin/check");
        std::fs::write(&check, "").unwrap();
        mode(&check, 0o644);
        assert!(
            by_folder("bin/check"),
            "the version has it without the right"
        );
        mode(&check, 0o777);
        assert!(by_folder("bin/check"), "the version has it open");
        mode(&check, 0o755);
        assert_eq!(find("bin/check", &version), Ok(check));
        let bare = version.join("check-of-the-version");
        std::fs::copy(version.join("bin/check"), &bare).unwrap();
        mode(dir.path(), 0o777);
        assert!(!by_folder("bin/check"), "a folder above it is open");
        assert!(
            !by_folder("check-of-the-version"),
            "the same, without a folder"
        );
        assert!(by_folder("no-such-program-anywhere"));
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
