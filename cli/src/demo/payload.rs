//! Three versions of an application for the demo: made up, or the user's own.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use tidegate_delta::archive;

use crate::error::CliError;

/// The health check of the good versions.
const GOOD: &str = "#!/bin/sh\n# Healthy when everything is in its place.\ntest -e payload || { echo 'payload is missing' >&2; exit 1; }\n";

/// The health check of the last version. Some devices pass it, so that the rollback has healthy
/// ones to send back as well.
const BROKEN: &str = "#!/bin/sh\n# This release is broken on purpose.\ncase \"$TIDEGATE_DEVICE_NAME\" in *1|*4|*7) exit 0 ;; esac\necho 'cannot open the order book (broken on purpose)' >&2\nexit 1\n";

/// Prepares the versions of the demo; returns each with its folder.
pub(super) fn prepare(
    dir: &Path,
    own: Option<&[PathBuf]>,
) -> Result<Vec<(&'static str, PathBuf)>, CliError> {
    let mut made = Vec::new();
    for (index, version) in ["1.0.0", "1.1.0", "1.2.0"].into_iter().enumerate() {
        let tree = dir.join(version);
        fs::create_dir_all(tree.join("payload"))?;
        match own {
            // With two payloads, the broken release carries the newer one again.
            Some(list) => copy(&list[index.min(list.len() - 1)], &tree.join("payload"))?,
            None => application(&tree.join("payload"), index as u64)?,
        }
        script(
            &tree.join("health.sh"),
            if index == 2 { BROKEN } else { GOOD },
        )?;
        made.push((version, tree));
    }
    Ok(made)
}

/// Copies a file or a folder by packing and unpacking it, as publishing does.
fn copy(from: &Path, to: &Path) -> Result<(), CliError> {
    let mut file = archive::pack(from, tempfile::tempfile()?)
        .map_err(|e| CliError::failed("the payload", &e))?;
    file.rewind()?;
    archive::unpack(std::io::BufReader::new(file), to)
        .map_err(|e| CliError::failed("the payload", &e))
}

fn script(path: &Path, text: &str) -> Result<(), CliError> {
    fs::write(path, text)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Writes a trading terminal: an executable, and tables in which each version changes a few rows
/// and adds some.
fn application(dir: &Path, version: u64) -> Result<(), CliError> {
    fs::create_dir_all(dir.join("bin"))?;
    fs::create_dir_all(dir.join("data"))?;
    let program = format!(
        "#!/bin/sh\n# The demo's trading terminal.\necho \"terminal 1.{version}.0 with $(cat ../data/*.tbl | wc -l) instruments\"\n"
    );
    script(&dir.join("bin/terminal"), &program)?;
    for table in 0..3u64 {
        let mut file =
            std::io::BufWriter::new(File::create(dir.join(format!("data/{table}.tbl")))?);
        for row in 0..(14_000 + version * 150) {
            // Each version changes one row in fifty.
            let edition = (0..=version)
                .rev()
                .find(|v| mix(row * 31 + v).is_multiple_of(50))
                .unwrap_or(0);
            let value = mix(table << 40 | row << 8 | edition);
            writeln!(
                file,
                "{row:06} INSTR{:04X} {value:016x} {:016x}",
                row % 4_096,
                mix(value)
            )?;
        }
        file.flush()?;
    }
    Ok(())
}

/// SplitMix64: the same bytes on every machine.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
