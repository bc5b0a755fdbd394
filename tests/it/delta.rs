//! Deltas of files on the command line, without a server.

use std::path::Path;
use std::process::Command;

use tidegate_tests::{binary, packed};

/// Runs `tidegate delta ...`; returns exit code, standard output, standard error.
fn delta(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(binary("tidegate"))
        .arg("delta")
        .args(arguments)
        .current_dir(dir)
        .env("CI", "true")
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Creates two files that differ in many places, in a folder of their own.
fn folder() -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: u32| format!("{i} {}\n", i.wrapping_mul(2_654_435_761) >> 9);
    let old: String = (0..60_000).map(line).collect();
    let new: String = (0..60_000)
        .filter(|i| i % 4_001 != 7)
        .map(|i| line(i + u32::from(i % 997 == 0)))
        .collect();
    std::fs::write(dir.path().join("old"), old).unwrap();
    std::fs::write(dir.path().join("new"), &new).unwrap();
    (dir, new.into_bytes())
}

#[test]
fn a_delta_of_each_encoding_is_made_looked_at_and_applied() {
    let (dir, new) = folder();
    let mut sizes = Vec::new();
    for encoding in ["full", "bsdiff", "quick", "dense"] {
        let file = format!("{encoding}.delta");
        let (code, out, err) = delta(
            dir.path(),
            &["diff", "old", "new", &file, "--encoding", encoding],
        );
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&format!("encoding  {encoding}")), "{out}");
        let (code, seen, _) = delta(dir.path(), &["inspect", &file]);
        assert_eq!((code, seen), (0, out));
        let (code, _, err) = delta(dir.path(), &["apply", "old", &file, "made"]);
        assert_eq!(code, 0, "{err}");
        assert!(std::fs::read(dir.path().join("made")).unwrap() == new);
        assert!(!dir.path().join("made.part").exists());
        sizes.push(std::fs::metadata(dir.path().join(&file)).unwrap().len());
    }
    // Smallest last.
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
}

#[test]
fn an_apply_goes_on_and_what_is_wrong_is_said() {
    let (dir, new) = folder();
    let made = dir.path().join("made");
    let (code, _, err) = delta(dir.path(), &["diff", "old", "new", "d"]);
    assert_eq!(code, 0, "{err}");
    // An interrupted apply has left the first half, or something that is not a part of it.
    for left in [&new[..new.len() / 2], b"something else"] {
        std::fs::write(dir.path().join("made.part"), left).unwrap();
        let (code, _, err) = delta(dir.path(), &["apply", "old", "d", "made"]);
        assert_eq!(code, 0, "{err}");
        assert!(std::fs::read(&made).unwrap() == new);
        std::fs::remove_file(&made).unwrap();
    }
    let (code, _, err) = delta(dir.path(), &["apply", "new", "d", "made"]);
    assert_eq!(code, 1);
    assert!(err.contains("is not the base of this delta"), "{err}");
    let (code, _, err) = delta(dir.path(), &["apply", "old", "new", "made"]);
    assert_eq!(code, 1);
    assert!(err.contains("not a delta file"), "{err}");
    // Too little memory is refused before anything is done.
    let (code, _, err) = delta(dir.path(), &["apply", "old", "d", "made", "--memory", "4"]);
    assert_eq!(code, 1);
    assert!(err.contains("memory"), "{err}");
    let mut bytes = std::fs::read(dir.path().join("d")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(dir.path().join("damaged"), &bytes).unwrap();
    let (code, _, err) = delta(dir.path(), &["apply", "old", "damaged", "made"]);
    assert_eq!(code, 1);
    assert!(err.contains("chunk 0"), "{err}");
    std::fs::write(dir.path().join("cut"), &bytes[..last - 5]).unwrap();
    let (code, _, err) = delta(dir.path(), &["apply", "old", "cut", "made"]);
    assert_eq!(code, 1);
    assert!(err.contains("incomplete"), "{err}");
    assert!(!made.exists());
}

#[test]
fn what_is_packed_in_the_files_is_compared_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    for which in ["old", "new"] {
        std::fs::copy(packed(which), dir.path().join(which)).unwrap();
    }
    for encoding in ["quick", "dense"] {
        let diff = [
            "diff",
            "old",
            "new",
            "d",
            "--encoding",
            encoding,
            "-o",
            "json",
        ];
        let (code, out, err) = delta(dir.path(), &diff);
        assert_eq!(code, 0, "{err}");
        let made: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(made["scratch"].as_u64().unwrap() > 1_000_000, "{made}");
        let length = std::fs::metadata(dir.path().join("d")).unwrap().len();
        assert!(length < 8_000, "{length}");
        let (code, _, err) = delta(dir.path(), &["apply", "old", "d", "made"]);
        assert_eq!(code, 0, "{err}");
        let made = std::fs::read(dir.path().join("made")).unwrap();
        assert!(made == std::fs::read(packed("new")).unwrap());
    }
    // Nothing is left beside the result.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[cfg(unix)]
#[test]
fn nothing_but_plain_files_is_read_or_replaced() {
    let (dir, _) = folder();
    let path = |name: &str| dir.path().join(name);
    let (code, _, err) = delta(dir.path(), &["diff", "old", "new", "d"]);
    assert_eq!(code, 0, "{err}");
    std::fs::write(path("victim"), "precious").unwrap();
    std::os::unix::fs::symlink("victim", path("link")).unwrap();
    std::os::unix::fs::symlink("victim", path("made.part")).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    let refused: [(&[&str], &str); 8] = [
        (&["apply", "old", "d", "link"], "a regular file"),
        (&["apply", "old", "d", "made"], "a regular file"),
        (&["apply", "old", "d", "folder"], "a regular file"),
        (&["apply", "/dev/zero", "d", "out"], "a regular file"),
        (&["apply", "old", "d", "d"], "would overwrite it"),
        (&["diff", "old", "new", "new"], "would overwrite it"),
        (&["diff", "old", "new", "link"], "a regular file"),
        (&["diff", "/dev/zero", "new", "out"], "a regular file"),
    ];
    for (arguments, text) in refused {
        let (code, _, err) = delta(dir.path(), arguments);
        assert_eq!(code, 1, "{arguments:?}");
        assert!(err.contains(text), "{arguments:?}: {err}");
    }
    let victim = std::fs::read_to_string(path("victim")).unwrap();
    assert_eq!(victim, "precious");
}

#[test]
fn what_is_damaged_or_needs_more_is_told_with_what_to_do() {
    let (dir, _) = folder();
    let (code, _, err) = delta(dir.path(), &["diff", "old", "new", "d"]);
    assert_eq!(code, 0, "{err}");
    let whole = std::fs::read(dir.path().join("d")).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 9;
    flipped[last] ^= 1;
    let longer = [&whole[..], b"more"].concat();
    for (bad, text) in [
        (&flipped[..], "fetch it again"),
        (&whole[..whole.len() - 5], "damaged or incomplete"),
        (&longer[..], "damaged or incomplete"),
        (&whole[..40], "it ends inside its manifest"),
    ] {
        std::fs::write(dir.path().join("bad"), bad).unwrap();
        let (code, _, err) = delta(dir.path(), &["apply", "old", "bad", "made"]);
        assert_eq!(code, 1);
        assert!(err.contains(text) && err.contains("bad"), "{err}");
        assert!(!dir.path().join("made.part").exists(), "{err}");
    }
    let (code, _, err) = delta(dir.path(), &["apply", "old", "d", "made", "--memory", "4"]);
    assert_eq!(code, 1);
    assert!(err.contains("allow it: --memory 1"), "{err}");
}
