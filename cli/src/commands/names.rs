//! Names of a folder, checked against the platform that it is published for.

use std::fs;
use std::io;
use std::path::Path;

use tidegate_delta::archive::Listed;
use tidegate_delta::archive::names::{System, unfit};
use tidegate_protocol::Platform;

use crate::error::CliError;

/// Refuses a folder, or a file, with names that devices of a platform cannot have.
pub(crate) fn check_names(
    root: &Path,
    platform: &Platform,
    long_paths: bool,
) -> Result<(), CliError> {
    let mut entries = Vec::new();
    if root.is_dir() {
        collect(root, "", &mut entries)
            .map_err(|e| CliError::failed(&format!("{}", root.display()), &e))?;
    } else if let Some(name) = root.file_name() {
        entries.push(Listed {
            path: name.to_string_lossy().into_owned(),
            is_link: false,
        });
    }
    let unfit = unfit(System::of(platform), &entries, long_paths);
    if unfit.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{} cannot be installed on {platform}:\n  {}",
        root.display(),
        unfit.join("\n  ")
    );
    let hint = "rename them, or leave them out of what is published for this platform";
    Err(CliError::Hinted(text, hint.into()))
}

/// Lists a folder, sorted; what cannot be told as text is for packing to refuse.
fn collect(root: &Path, below: &str, entries: &mut Vec<Listed>) -> io::Result<()> {
    let mut found: Vec<_> = fs::read_dir(root.join(below))?.collect::<Result<_, _>>()?;
    found.sort_by_key(fs::DirEntry::file_name);
    for entry in found {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = if below.is_empty() {
            name.into_owned()
        } else {
            format!("{below}/{name}")
        };
        let kind = entry.file_type()?;
        entries.push(Listed {
            path: path.clone(),
            is_link: kind.is_symlink(),
        });
        if kind.is_dir() {
            collect(root, &path, entries)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_refused_with_the_path_the_rule_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src")).unwrap();
        for name in ["src/aux.c", "src/Main", "src/main", "fine"] {
            fs::write(dir.path().join(name), "text").unwrap();
        }
        let windows = "windows-x86_64".parse().unwrap();
        let refused = check_names(dir.path(), &windows, false).unwrap_err();
        let CliError::Hinted(text, hint) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            text.contains("cannot be installed on windows-x86_64"),
            "{text}"
        );
        assert!(
            text.contains("\n  src/aux.c: AUX is a device on Windows"),
            "{text}"
        );
        assert!(
            text.contains("src/main: it is the same name there as src/Main"),
            "{text}"
        );
        assert!(hint.contains("rename them"));
        check_names(dir.path(), &"linux-x86_64".parse().unwrap(), false).unwrap();
    }
}
