//! Odd trees.

use std::fs::{self, File};
use std::io::{self, Cursor, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

fn write(path: &Path, mode: u32) {
    fs::write(path, "text").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn losses(result: Result<impl std::fmt::Debug, ArchiveError>) -> Vec<String> {
    match result {
        Err(ArchiveError::Lossy { losses, .. }) => losses,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_packing_changes_is_said_with_its_number_and_the_first_name_on_one_bounded_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write(&dir.path().join("plain"), 0o644);
    let none = |path: &Path| {
        let (_, changes) = pack_with(path, io::sink(), PackOptions::default()).unwrap();
        changes.sentences()
    };
    assert_eq!(none(dir.path()), [""; 0]);
    for name in ["a\n  forged: line", "b", "c"] {
        write(&dir.path().join(name), 0o664);
    }
    write(&dir.path().join("open"), 0o666);
    write(&dir.path().join("fixed"), 0o444);
    let said = none(dir.path());
    let wanted = [
        "loses write permission for group and others: 1 entry, first open (mode 0666)",
        "loses write permission for its group: 3 entries, first ",
        "gains write permission for its owner: 1 entry, first fixed (mode 0444)",
    ];
    assert_eq!(said.len(), wanted.len(), "{said:?}");
    for (said, wanted) in said.iter().zip(wanted) {
        assert!(said.starts_with(wanted) && !said.contains('\n'), "{said}");
    }
    // Private files are said where they are opened to everybody.
    write(&dir.path().join("key"), 0o600);
    let public = PackOptions {
        public: true,
        ..PackOptions::default()
    };
    let (_, changes) = pack_with(dir.path(), io::sink(), public).unwrap();
    let said = changes.sentences();
    let wanted =
        "readable by everybody on devices, as --allow-public says: 1 entry, first key (mode 0600)";
    assert_eq!(said[0], wanted);
    // Nobody is told of the version's own folder but by name.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let said = none(dir.path());
    assert!(
        said[0].starts_with("open to everybody on devices"),
        "{said:?}"
    );
}

#[test]
fn modes_that_no_version_can_run_with_are_refused_by_name_whatever_may_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("fine"), 0o644);
    write(&dir.path().join("none"), 0o000);
    write(&dir.path().join("others"), 0o044);
    fs::create_dir(dir.path().join("shut")).unwrap();
    fs::set_permissions(dir.path().join("shut"), fs::Permissions::from_mode(0o600)).unwrap();
    for drop_attributes in [false, true] {
        let options = PackOptions {
            drop_attributes,
            public: true,
            ..PackOptions::default()
        };
        let mut losses = losses(pack_with(dir.path(), io::sink(), options).map(|(_, said)| said));
        losses.sort();
        let wanted = [
            "none: mode 0000, with which its owner cannot read it: chmod u+r",
            "others: mode 0044, with which its owner cannot read it: chmod u+r",
            "shut: mode 0600, with which its owner cannot enter it: chmod u+rx",
        ];
        assert_eq!(losses, wanted);
    }
}

#[test]
fn the_group_of_a_file_that_may_do_more_than_others_is_said_at_publishing_and_refused_at_adopting()
{
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.path().join("group.conf");
    write(&file, 0o640);
    let meta = fs::metadata(&file).unwrap();
    if chown(&file, None, Some(meta.gid() + 33)).is_err() {
        println!("skipped: only root gives files to other groups");
        return;
    }
    let (_, changes) = pack_with(dir.path(), io::sink(), PackOptions::default()).unwrap();
    let said = changes.sentences();
    assert!(
        said[0].starts_with("loses its group, which may do more"),
        "{said:?}"
    );
    let adopted = PackOptions {
        owner: Some(meta.uid()),
        ..PackOptions::default()
    };
    let refused = losses(pack_with(dir.path(), io::sink(), adopted).map(|(_, said)| said));
    assert!(
        refused[0].starts_with("group.conf: its group, which"),
        "{refused:?}"
    );
    // For others alike: nothing is lost with the group.
    write(&file, 0o644);
    pack_with(dir.path(), io::sink(), adopted).unwrap();
    // Another owner is said at publishing.
    chown(&file, Some(meta.uid() + 4_242), None).unwrap();
    let (_, changes) = pack_with(dir.path(), io::sink(), PackOptions::default()).unwrap();
    let said = changes.sentences();
    assert!(said[0].starts_with("loses its owner: "), "{said:?}");
    assert!(
        said[0].ends_with(&format!("group.conf (user {})", meta.uid() + 4_242)),
        "{said:?}"
    );
}

#[test]
fn a_raw_artifact_is_refused_with_special_bits_and_said_to_be_without_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("tool");
    write(&tool, 0o4750);
    let check = |drop_attributes| {
        let options = PackOptions {
            drop_attributes,
            ..PackOptions::default()
        };
        check_raw(&tool, options)
    };
    assert_eq!(losses(check(false)), ["tool: setuid"]);
    let said = check(true).unwrap().sentences();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].ends_with("first tool (setuid)"), "{said:?}");
    assert!(said[1].ends_with("first tool (mode 4750)"), "{said:?}");
    write(&tool, 0o755);
    assert_eq!(check(false).unwrap().sentences(), [""; 0]);
}

#[test]
fn a136_a_pipe_a_socket_or_a_device_is_refused_by_name_and_never_opened() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("fine"), 0o644);
    let refused = |path: &Path, name: &str| {
        let Err(ArchiveError::Refused { path, rule }) = pack(path, io::sink()) else {
            panic!("{name} was packed");
        };
        assert!(
            path.ends_with(name) && rule.starts_with("only files"),
            "{path}: {rule}"
        );
    };
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    refused(dir.path(), "pipe");
    // Opened, it would wait for somebody to write.
    refused(&pipe, "pipe");
    fs::remove_file(&pipe).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused(dir.path(), "socket");
    refused(Path::new("/dev/null"), "null");
}

/// Writer that does something else once it has been written to.
struct Meanwhile<F: FnMut()>(Option<F>);

impl<F: FnMut()> Write for Meanwhile<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut act) = self.0.take() {
            act();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_changed_while_it_is_packed_is_refused_by_name() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 6] = [
        ("a", |root| {
            fs::write(root.join("a"), "a much longer text").unwrap();
        }),
        ("a", |root| File::create(root.join("a")).map(drop).unwrap()),
        ("sub/b", |root| fs::write(root.join("sub/b"), "").unwrap()),
        ("sub/b", |root| {
            fs::remove_file(root.join("sub/b")).unwrap();
            symlink("/etc/passwd", root.join("sub/b")).unwrap();
        }),
        ("sub", |root| fs::write(root.join("sub/new"), "").unwrap()),
        ("", |root| fs::create_dir(root.join("folder")).unwrap()),
    ];
    for (name, act) in acts {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("a"), "text").unwrap();
        fs::write(root.join("sub/b"), vec![7; 100_000]).unwrap();
        // Times of a file system are a few milliseconds coarse: what was made is older.
        let before = std::time::SystemTime::now() - std::time::Duration::from_hours(1);
        for path in ["", "a", "sub/b", "sub"] {
            let file = File::open(root.join(path)).unwrap();
            file.set_modified(before).unwrap();
        }
        let refused = pack(&root, Meanwhile(Some(|| act(&root))));
        let Err(ArchiveError::Refused { path, rule }) = refused.map(drop) else {
            panic!("{name} was packed");
        };
        assert!(path.ends_with(name), "{path} is not {name}");
        assert!(rule.contains("while it was packed"), "{rule}");
    }
}

#[test]
fn a_deep_tree_comes_back_whole_and_a_loop_of_links_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut deep = dir.path().to_owned();
    for _ in 0..400 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    write(&deep.join("end"), 0o644);
    symlink("one", dir.path().join("two")).unwrap();
    symlink("two", dir.path().join("one")).unwrap();
    let bytes = pack(dir.path(), Vec::new()).unwrap();
    let into = tempfile::tempdir().unwrap();
    unpack(&bytes[..], into.path()).unwrap();
    assert!(pack(into.path(), Vec::new()).unwrap() == bytes);
    let examined = examine(Cursor::new(&bytes)).unwrap();
    assert_eq!(examined.losses, [""; 0]);
    assert_eq!(examined.entries.len(), 403);
}
