//! Names of a tree, checked against the system of the devices that will have it.
//!
//! The machine that publishes takes names that another system changes, merges or refuses: there the
//! update would fail on every device, or quietly lose a file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use tidegate_protocol::Platform;
use unicode_normalization::UnicodeNormalization as _;

use crate::error::CliError;

/// Names listed at most in one error: the rest is counted.
const NAMED: usize = 20;

/// File system rules of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Windows,
    MacOs,
    /// Linux, and whatever else: one rule.
    Unix,
}

impl System {
    fn of(platform: &Platform) -> Self {
        let text = platform.to_string();
        match text.split(['-', '_']).next() {
            Some("windows") => Self::Windows,
            Some("macos" | "darwin") => Self::MacOs,
            _ => Self::Unix,
        }
    }

    /// Folder of the unpacked version that an installed agent has by default, which each path follows.
    fn folder(self) -> &'static str {
        match self {
            Self::Windows => r"C:\ProgramData\tidegate-agent\slots\a\tree\",
            Self::MacOs | Self::Unix => "/var/lib/tidegate-agent/slots/a/tree/",
        }
    }

    /// Longest path that programs there can open.
    fn longest(self) -> usize {
        match self {
            Self::Windows => 259,
            Self::MacOs => 1_023,
            Self::Unix => 4_095,
        }
    }

    /// Length of a name or path as that system counts it.
    fn length(self, text: &str) -> usize {
        match self {
            Self::Windows => text.encode_utf16().count(),
            Self::MacOs | Self::Unix => text.len(),
        }
    }

    /// Form of a path that two names of one file there have in common.
    fn folded(self, path: &str) -> String {
        match self {
            Self::Windows => path.chars().flat_map(char::to_lowercase).collect(),
            Self::MacOs => path.nfc().flat_map(char::to_lowercase).nfc().collect(),
            Self::Unix => path.to_owned(),
        }
    }

    /// Rule that one part of a path breaks.
    fn broken_by(self, name: &str) -> Option<String> {
        if self.length(name) > 255 {
            return Some("a name has 255 characters at most (on Linux and macOS bytes)".into());
        }
        if self != Self::Windows {
            return None;
        }
        if let Some(bad) = name
            .chars()
            .find(|c| *c < ' ' || r#"<>:"\|?*"#.contains(*c))
        {
            return Some(format!("Windows does not allow {bad:?} in a name"));
        }
        if name.ends_with(['.', ' ']) {
            return Some("Windows drops a dot or a space at the end of a name".into());
        }
        let stem = name.split('.').next().unwrap_or(name).trim_end();
        is_device(stem).then(|| format!("{} is a device on Windows", stem.to_uppercase()))
    }
}

/// Returns whether Windows keeps a name, with whatever extension, for a device.
fn is_device(stem: &str) -> bool {
    let stem = stem.to_uppercase();
    if matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$") {
        return true;
    }
    let number = stem
        .strip_prefix("COM")
        .or_else(|| stem.strip_prefix("LPT"));
    number.is_some_and(|number| {
        let mut digits = number.chars();
        let digit = digits.next().is_some_and(|c| "123456789¹²³".contains(c));
        digit && digits.next().is_none()
    })
}

/// An entry of a tree: its path with `/`, and whether it is a link.
type Entry = (String, bool);

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
        entries.push((name.to_string_lossy().into_owned(), false));
    }
    let broken = broken(System::of(platform), &entries, long_paths);
    if broken.is_empty() {
        return Ok(());
    }
    let more = broken.len().saturating_sub(NAMED);
    let mut text = format!("{} cannot be installed on {platform}:", root.display());
    for (path, rule) in broken.iter().take(NAMED) {
        text += &format!("\n  {}: {rule}", path.escape_debug());
    }
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    let hint = "rename them, or leave them out of what is published for this platform";
    Err(CliError::Hinted(text, hint.into()))
}

/// Lists a folder, sorted; what cannot be told as text is for packing to refuse.
fn collect(root: &Path, below: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
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
        entries.push((path.clone(), kind.is_symlink()));
        if kind.is_dir() {
            collect(root, &path, entries)?;
        }
    }
    Ok(())
}

/// Paths that a system cannot have, each with the rule that it breaks.
fn broken(system: System, entries: &[Entry], long_paths: bool) -> Vec<(&str, String)> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut found = Vec::new();
    let folder = system.length(system.folder());
    for (path, is_link) in entries {
        let name = path.rsplit('/').next().unwrap_or(path);
        let length = folder + system.length(path);
        let longest = system.longest();
        let rule = if let Some(rule) = system.broken_by(name) {
            Some(rule)
        } else if let Some(other) = seen.get(&system.folded(path)) {
            Some(format!(
                "it is the same name there as {}",
                other.escape_debug()
            ))
        } else if *is_link && system == System::Windows {
            Some("a service on Windows may not make symbolic links".into())
        } else if length > longest && !(long_paths && system == System::Windows) {
            let folder = system.folder();
            let way_out = if system == System::Windows {
                " (--allow-long-paths, if the software can open longer ones)"
            } else {
                ""
            };
            Some(format!(
                "with {folder} it has {length} characters, and a path has {longest} at most{way_out}"
            ))
        } else {
            None
        };
        found.extend(rule.map(|rule| (path.as_str(), rule)));
        seen.entry(system.folded(path)).or_insert(path);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(platform: &str, names: &[&str]) -> Vec<String> {
        let entries: Vec<Entry> = names.iter().map(|n| ((*n).to_owned(), false)).collect();
        let system = System::of(&platform.parse().unwrap());
        let broken = broken(system, &entries, false);
        broken
            .iter()
            .map(|(p, rule)| format!("{p}: {rule}"))
            .collect()
    }

    #[test]
    fn names_that_windows_refuses_or_changes_are_refused_for_it_and_for_nothing_else() {
        let names = [
            "con",
            "Nul.txt",
            "src/aux.c",
            "COM1",
            "lpt9.log",
            "com¹",
            "CONIN$",
            "a:b",
            "what?",
            "tab\tbed",
            "back\\slash",
            "trail.",
            "space ",
            "aux .h",
        ];
        for name in names {
            let said = told("windows-x86_64", &[name]);
            assert_eq!(said.len(), 1, "{name}: {said:?}");
            assert!(said[0].contains("Windows"), "{said:?}");
            assert_eq!(told("linux-x86_64", &[name]), [""; 0]);
            assert_eq!(told("macos-aarch64", &[name]), [""; 0]);
        }
        let fine = [
            "console",
            "com10",
            "COM",
            "nul-l",
            ".config",
            "a.b.c",
            "größe",
            "com0",
            "日本語",
        ];
        assert_eq!(told("windows-x86_64", &fine), [""; 0]);
    }

    #[test]
    fn names_that_are_one_name_on_the_device_are_refused_for_it() {
        let case = ["Lib", "Lib/a", "lib", "lib/b", "README", "Readme", "other"];
        let said = told("windows-x86_64", &case);
        assert_eq!(
            said,
            [
                "lib: it is the same name there as Lib",
                "Readme: it is the same name there as README"
            ]
        );
        assert_eq!(told("macos-aarch64", &case), said);
        assert_eq!(told("linux-x86_64", &case), [""; 0]);
        // Composed and decomposed: two names but on macOS.
        let forms = ["caf\u{e9}", "cafe\u{301}", "CAFE\u{301}"];
        assert_eq!(told("macos-x86_64", &forms).len(), 2);
        assert_eq!(told("windows-x86_64", &forms).len(), 1);
        assert_eq!(told("linux-aarch64", &forms), [""; 0]);
    }

    #[test]
    fn names_and_paths_that_are_too_long_are_refused_as_each_system_counts() {
        let (bytes, units) = ("ä".repeat(128), "ä".repeat(255));
        assert_eq!(told("linux-x86_64", &[&bytes]).len(), 1);
        assert_eq!(told("linux-x86_64", &[&bytes[..254]]), [""; 0]);
        let deep = |length: usize| format!("{}/{}", "d".repeat(100), "f".repeat(length - 101));
        assert_eq!(told("windows-x86_64", &[&deep(216)]), [""; 0]);
        let said = told("windows-x86_64", &[&deep(217)]);
        assert!(said[0].contains("it has 260 characters"), "{said:?}");
        assert_eq!(told("linux-x86_64", &[&deep(217)]), [""; 0]);
        let entries = [(deep(217), false), (units, false)];
        assert!(broken(System::Windows, &entries, true).is_empty());
    }

    #[test]
    fn a_link_is_refused_for_windows() {
        let entries = [("latest".to_owned(), true)];
        assert_eq!(broken(System::Windows, &entries, false).len(), 1);
        assert!(broken(System::Unix, &entries, false).is_empty());
    }

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
