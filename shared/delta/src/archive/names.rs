//! Names of a tree, checked against the system of the devices that will have it.
//!
//! The machine that publishes takes names that another system changes, merges or refuses: there the
//! update would fail on every device, or quietly lose a file.

use std::collections::BTreeMap;

use tidegate_protocol::{Platform, plain};
use unicode_normalization::UnicodeNormalization as _;

use super::Listed;
use super::losses::NAMED;

/// File system rules of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Windows with NTFS.
    Windows,
    /// macOS with APFS, as it is formatted by default.
    MacOs,
    /// Linux, and whatever else: one rule.
    Unix,
}

impl System {
    /// System that this program was built for.
    pub const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_os = "macos") {
        Self::MacOs
    } else {
        Self::Unix
    };

    /// System of a platform.
    pub fn of(platform: &Platform) -> Self {
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

/// Lines that name what a system cannot have, each with the rule that it breaks: some of them, the rest
/// counted. Long paths may be let through, for software that can open them.
pub fn unfit(system: System, entries: &[Listed], long_paths: bool) -> Vec<String> {
    let broken = broken(system, entries, long_paths);
    let more = broken.len().saturating_sub(NAMED);
    let named = broken.into_iter().take(NAMED);
    let mut lines: Vec<String> = named
        .map(|(path, rule)| format!("{}: {rule}", plain(path)))
        .collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Paths that a system cannot have, each with the rule that it breaks.
fn broken(system: System, entries: &[Listed], long_paths: bool) -> Vec<(&str, String)> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    let mut found = Vec::new();
    let folder = system.length(system.folder());
    for Listed { path, is_link } in entries {
        let name = path.rsplit('/').next().unwrap_or(path);
        let length = folder + system.length(path);
        let longest = system.longest();
        let rule = if let Some(rule) = system.broken_by(name) {
            Some(rule)
        } else if let Some(other) = seen.get(&system.folded(path)) {
            Some(format!("it is the same name there as {}", plain(other)))
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

    fn file(path: &str) -> Listed {
        Listed {
            path: path.to_owned(),
            is_link: false,
        }
    }

    fn told(platform: &str, names: &[&str]) -> Vec<String> {
        let entries: Vec<Listed> = names.iter().map(|n| file(n)).collect();
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
        let entries = [file(&deep(217)), file(&units)];
        assert!(broken(System::Windows, &entries, true).is_empty());
    }

    #[test]
    fn a_link_is_refused_for_windows() {
        let entries = [Listed {
            path: "latest".into(),
            is_link: true,
        }];
        assert_eq!(broken(System::Windows, &entries, false).len(), 1);
        assert!(broken(System::Unix, &entries, false).is_empty());
    }
}
