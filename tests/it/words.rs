//! Words: the names that the tree does not use any more, and the openings that a doc comment does
//! not have. The list is the table "Words that are not used" of `docs/concepts.md`.

use crate::tree::{files, name, root};

/// Words of a text: letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// First cells of the table under a heading.
fn first_column<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    page.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .collect()
}

const HEADING: &str = "## Words that are not used";

#[test]
fn words_that_are_not_used_are_used_nowhere() {
    let page = std::fs::read_to_string(root().join("docs/concepts.md")).unwrap();
    let banned = first_column(&page, HEADING);
    assert!(banned.len() >= 10, "{banned:?}");
    let mut said = Vec::new();
    for file in files("", &["rs", "sql", "md", "json", "yml", "toml"]) {
        let name = name(&file);
        // The page that bans them, and what was said before there was the ban.
        if ["docs/concepts.md", "CHANGELOG.md"].contains(&name.as_str()) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        said.extend(
            words(&text)
                .filter(|word| banned.contains(word))
                .map(|word| format!("{name}: {word}")),
        );
    }
    assert!(said.is_empty(), "{said:#?}");
}

/// The first word of a doc comment is the field's noun or verb.
#[test]
fn a_doc_comment_opens_with_a_noun_or_a_verb() {
    const OPENINGS: [&str; 11] = [
        "What", "Where", "Who", "Whom", "Whose", "How", "When", "Which", "Why", "Of", "That",
    ];
    let mut found = Vec::new();
    for file in files("", &["rs"]) {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let opens = !before.starts_with("///") && !before.starts_with("//!");
            let said = line
                .strip_prefix("/// ")
                .or_else(|| line.strip_prefix("//! "));
            if let Some(said) = said.filter(|_| opens)
                && words(said).next().is_some_and(|w| OPENINGS.contains(&w))
            {
                found.push(format!("{}:{}: {line}", name(&file), number + 1));
            }
            before = line;
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
