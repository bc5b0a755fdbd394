//! Who is kept out: attacks A90 to A99 of `docs/explain/security-model.md`.

#[cfg(unix)]
#[test]
fn a90_nobody_else_reads_a_servers_secrets_whatever_the_umask_and_the_folder() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let open = |mode| std::fs::Permissions::from_mode(mode);
    let mode = |name: &str| {
        let meta = std::fs::metadata(data.join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    let start = || {
        let mut child = Command::new("sh")
            .args(["-c", "umask 000; exec \"$0\" \"$@\""])
            .arg(tidegate_tests::binary("tidegate"))
            .args(["serve", "--exit-with-stdin", "--listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert!(line.contains("listens"), "{line}");
        child
    };
    let private = || {
        for entry in std::fs::read_dir(&data).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert_eq!(mode(&name) & 0o077, 0, "{name}: {:o}", mode(&name));
        }
    };
    // An existing folder that everybody may enter, and a file where the first token goes.
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, open(0o755)).unwrap();
    std::fs::write(data.join("admin.token"), "").unwrap();
    std::fs::set_permissions(data.join("admin.token"), open(0o644)).unwrap();
    let mut child = start();
    assert!(data.join("tidegate.db-wal").exists());
    private();
    // Killed: what SQLite keeps beside the file stays. A copy of all that with open modes is mended.
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["tidegate.db", "tidegate.db-wal", "tidegate.db-shm"] {
        std::fs::set_permissions(data.join(name), open(0o644)).unwrap();
    }
    let mut child = start();
    private();
    child.kill().unwrap();
    child.wait().unwrap();
}
