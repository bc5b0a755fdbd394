//! Odd archives of other makers.

use std::io::Cursor;

use tar::EntryType as Type;

use super::*;

/// Entry of an archive that somebody else made, with headers that no library writes.
fn entry(path: &str, kind: Type, mode: u32, contents: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(contents.len() as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn link(path: &str, kind: Type, to: &str) -> Vec<u8> {
    let mut bytes = entry(path, kind, 0o777, b"");
    bytes[157..157 + to.len()].copy_from_slice(to.as_bytes());
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn extension(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    entry(
        "pax",
        Type::XHeader,
        0o644,
        format!("{length}{rest}").as_bytes(),
    )
}

fn archive(entries: &[Vec<u8>]) -> Cursor<Vec<u8>> {
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    Cursor::new(bytes)
}

#[test]
fn a135_what_an_archive_of_another_maker_would_lose_is_named() {
    let file = || entry("f", Type::Regular, 0o644, b"x");
    let of_user = |user| {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&file()[..512]);
        header.set_uid(user);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&file()[512..]);
        bytes
    };
    let cases: [(Vec<Vec<u8>>, &str); 12] = [
        (vec![entry("f", Type::Regular, 0o4755, b"")], "f: setuid"),
        (vec![entry("f", Type::Directory, 0o2755, b"")], "f: setgid"),
        (
            vec![entry("f", Type::Directory, 0o1755, b"")],
            "f: the sticky bit",
        ),
        (
            vec![entry("f", Type::Regular, 0o664, b"")],
            "f: mode 0664, which would become 0644",
        ),
        (
            vec![entry("f", Type::Regular, 0, b"")],
            "f: mode 0000, which would become 0600",
        ),
        (
            vec![entry("f", Type::Directory, 0o777, b"")],
            "f: mode 0777, which would become 0755",
        ),
        (vec![of_user(1_000)], "f: its owner, user 1000 and group 0"),
        (
            vec![extension("uid", "1000"), file()],
            "f: its owner, uid 1000",
        ),
        (
            vec![extension("SCHILY.xattr.security.capability", "x"), file()],
            "f: file capabilities",
        ),
        (
            vec![extension("LIBARCHIVE.xattr.user.origin", "x"), file()],
            "f: the extended attribute user.origin",
        ),
        (
            vec![extension("SCHILY.acl.access", "user::rwx"), file()],
            "f: its SCHILY.acl.access",
        ),
        (
            vec![extension("GNU.sparse.major", "1"), file()],
            "f: its GNU.sparse.major",
        ),
    ];
    for (entries, wanted) in cases {
        let examined = examine(archive(&entries)).unwrap();
        assert_eq!(examined.losses, [wanted]);
    }
    // Times and names of owners are never carried, and nobody is told.
    let plain = [
        extension("mtime", "1.5"),
        extension("uname", "build"),
        file(),
    ];
    assert_eq!(examine(archive(&plain)).unwrap().losses, [""; 0]);
    let many: Vec<_> = (0..50)
        .map(|n| entry(&format!("f{n}\u{1b}"), Type::Regular, 0o666, b""))
        .collect();
    let losses = examine(archive(&many)).unwrap().losses;
    assert_eq!(losses.len(), 21);
    assert!(losses[0].starts_with("f0\\u001b: ") && losses[20] == "and 30 more");
}

#[test]
fn a135_what_an_archive_may_not_have_is_refused_by_name_wherever_it_stands() {
    let file = |path| entry(path, Type::Regular, 0o644, b"x");
    let long = vec![b'n'; 70_000];
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![link("hard", Type::Link, "f")], "hard link"),
        (vec![entry("null", Type::Char, 0o644, b"")], "device"),
        (vec![entry("sda", Type::Block, 0o644, b"")], "device"),
        (vec![entry("pipe", Type::Fifo, 0o644, b"")], "pipe"),
        (vec![entry("holes", Type::GNUSparse, 0o644, b"")], "sparse"),
        (
            vec![entry("all", Type::XGlobalHeader, 0o644, b"")],
            "only files",
        ),
        (vec![file("f"), file("./f")], "twice"),
        (vec![file("d/f"), file("d")], "twice"),
        (vec![file("f"), file("f/g")], "through a file"),
        (
            vec![link("d", Type::Symlink, "."), file("d/f")],
            "through a symbolic link",
        ),
        (vec![file("/f")], "outside"),
        (vec![file("a/../../f")], "outside"),
        (vec![extension("path", "../f"), file("f")], "outside"),
        (vec![link("l", Type::Symlink, "/etc")], "outside"),
        (vec![link("l", Type::Symlink, "../x")], "outside"),
        (
            vec![extension("linkpath", "../x"), link("l", Type::Symlink, "x")],
            "outside",
        ),
        (
            vec![entry("", Type::GNULongName, 0o644, &long), file("f")],
            "64 KiB",
        ),
        (
            vec![extension("size", "512"), file("f")],
            "another one replaces",
        ),
        (
            vec![
                extension("path", "a"),
                entry("", Type::GNULongName, 0o644, b"b\0"),
                file("f"),
            ],
            "another one replaces",
        ),
        (
            vec![entry("", Type::GNULongName, 0o644, b"a\0b\0"), file("f")],
            "zero byte",
        ),
    ];
    for (mut entries, wanted) in cases {
        // Last of all, so that everything before it is read.
        entries.insert(0, file("first"));
        let refused = examine(archive(&entries)).map(|found| found.entries);
        let said = refused.map_err(|error| error.to_string()).unwrap_err();
        assert!(said.contains(wanted), "{said} is not {wanted}");
    }
    let mut cut = archive(&[entry("f", Type::Regular, 0o644, &[7; 5_000])]).into_inner();
    cut.truncate(3_000);
    let said = examine(Cursor::new(cut)).unwrap_err().to_string();
    assert!(said.contains("ends within"), "{said}");
}
