//! Imports of modules point one way: no two of them need each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::tree::root;

/// Crates whose modules must not need each other, in any folder.
const CRATES: [&str; 9] = [
    "agent/machine/src",
    "agent/src",
    "cli/src",
    "guard/src",
    "server",
    "shared",
    "simulate/src",
    "tests/it",
    "tests/src",
];

/// Modules that one circle may still hold, by folder: tests alone, none of them in a program.
const CIRCLES: [(&str, &[&str]); 1] = [("agent/src/power_loss", &["device", "versions"])];

/// Floors of the core, from the ground up: a module imports from its own floor and those below it.
const FLOORS: [&[&str]; 8] = [
    &["clock", "public", "random"],
    &["blob", "metrics", "settings"],
    &["error"],
    &["memory", "queue"],
    &["app"],
    &["commit", "follow"],
    &[
        "device", "events", "incident", "lists", "operator", "release", "rollout", "trust",
    ],
    &["open"],
];

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Paths that a `use` tree or an expression names, from just behind `crate::` or `super::`.
fn paths(text: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = before.to_vec();
    let mut rest = text;
    loop {
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        if name.is_empty() {
            break;
        }
        path.push(name.to_owned());
        let Some(after) = after.strip_prefix("::") else {
            break;
        };
        rest = after;
    }
    let Some(tree) = rest.strip_prefix('{') else {
        found.push(path);
        return;
    };
    let (mut depth, mut from) = (0, 0);
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                paths(tree[from..at].trim(), &path, found);
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// Paths of the crate that a file names, each from the crate's root.
fn named(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code: String = text
        .lines()
        .take_while(|l| !l.starts_with("#[cfg(test)]") && !l.starts_with("#[cfg(all(test"))
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate` of a macro and names that end so are others.
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            paths(&code[at + "crate::".len()..], &[], &mut found);
        }
    }
    let mut rest = &code[..];
    while let Some(at) = rest.find("super::") {
        let mut up = 0;
        let mut tail = &rest[at..];
        while let Some(next) = tail.strip_prefix("super::") {
            up += 1;
            tail = next;
        }
        if let Some(parent) = module.len().checked_sub(up) {
            paths(tail, &module[..parent], &mut found);
        }
        rest = tail;
    }
    found
}

fn walk(folder: &Path, module: &[String], all: &mut Vec<(Vec<String>, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut inner = module.to_vec();
        if !["mod", "lib", "main"].contains(&name.as_str()) {
            inner.push(name.clone());
        }
        if name == "tests" || name.ends_with("_tests") || name == "power_loss" {
            continue;
        }
        if path.is_dir() {
            walk(&path, &inner, all);
        } else if path.extension().is_some_and(|e| e == "rs") && !inner.is_empty() {
            all.push((inner, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Imports between the modules of one folder: `base` is its path from the crate's root.
fn graph(folder: &str) -> Graph {
    let base: Vec<String> = folder
        .split_once("src")
        .map(|(_, inner)| inner.split('/').filter(|s| !s.is_empty()))
        .unwrap()
        .map(Into::into)
        .collect();
    let mut all = Vec::new();
    walk(&root().join(folder), &base, &mut all);
    let below = |path: &[String]| {
        path.strip_prefix(&base[..])
            .and_then(|p| p.first().cloned())
    };
    let modules: BTreeSet<String> = all.iter().filter_map(|(m, _)| below(m)).collect();
    let mut graph: Graph = modules
        .iter()
        .map(|m| (m.clone(), BTreeSet::new()))
        .collect();
    for (module, text) in &all {
        let Some(from) = below(module) else { continue };
        let to = named(text, module).into_iter().filter_map(|p| below(&p));
        graph
            .get_mut(&from)
            .unwrap()
            .extend(to.filter(|to| *to != from && modules.contains(to)));
    }
    graph
}

/// Modules that are reached from each module.
fn reached(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(module) = open.pop() {
        for next in &graph[&module] {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

/// Folders of source below a folder, each with its path from the root.
fn folders(folder: &str, all: &mut Vec<String>) {
    if folder.contains("/src") {
        all.push(folder.to_owned());
    }
    for entry in std::fs::read_dir(root().join(folder)).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !["target", "tests"].contains(&name.as_str()) {
            folders(&format!("{folder}/{name}"), all);
        }
    }
}

#[test]
fn no_modules_import_each_other() {
    let mut all = Vec::new();
    for name in CRATES {
        folders(name, &mut all);
    }
    let (mut edges, mut wrong) = (0, Vec::new());
    for folder in &all {
        let graph = graph(folder);
        edges += graph.values().map(BTreeSet::len).sum::<usize>();
        let known = CIRCLES.iter().find(|(name, _)| name == folder);
        for module in graph.keys().filter(|m| reached(&graph, m).contains(*m)) {
            if known.is_none_or(|(_, circle)| !circle.contains(&module.as_str())) {
                wrong.push(format!(
                    "{folder}: {module} is on a circle: {:?}",
                    graph[module]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(all.len() > 60, "{} folders are found", all.len());
    assert!(edges > 400, "{edges} imports are found");
}

#[test]
fn modules_of_the_core_import_from_their_own_floor_and_below() {
    let graph = graph("server/core/src");
    let floor = |module: &String| {
        let found = FLOORS.iter().position(|f| f.contains(&module.as_str()));
        found.unwrap_or_else(|| panic!("{module} has no floor"))
    };
    for (module, imports) in &graph {
        let above: Vec<&String> = imports
            .iter()
            .filter(|to| floor(to) > floor(module))
            .collect();
        assert!(above.is_empty(), "{module} must not import {above:?}");
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::a::{b::C, d};\nuse super::{e, f::G};\nlet x = crate::h::i(super::super::j());\n\
                // crate::comment\n#[cfg(test)]\nmod tests { use crate::k; }";
    let module = ["x".to_owned(), "y".to_owned()];
    let found: Vec<String> = named(text, &module).iter().map(|p| p.join("::")).collect();
    assert_eq!(found, ["a::b::C", "a::d", "h::i", "x::e", "x::f::G", "j"]);
}
