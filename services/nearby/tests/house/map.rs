//! The map names only what is there, and all of it.

use std::fs;

use crate::tree::{File, crates, files, none, root};

/// What a document says in backticks, but for its code blocks.
fn names(document: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_block = false;
    for line in document.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            assert!(line.matches('`').count().is_multiple_of(2), "a name over two lines: {line}");
            names.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    names
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether `word` stands in the line by itself.
fn holds(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// A type, trait, constant or variant is declared or imported; anything else is named by code.
fn is_known(files: &[File], word: &str) -> bool {
    let is_type = word.starts_with(|c: char| c.is_ascii_uppercase());
    let declares = |line: &str| {
        let line = line.trim_start();
        let keyword =
            ["struct ", "enum ", "trait ", "type ", "const ", "use "].iter().any(|keyword| line.contains(keyword));
        let variant =
            line.strip_prefix(word).is_some_and(|rest| rest.starts_with([',', '(']) || rest.starts_with(" {"));
        holds(line, word) && (!is_type || keyword || variant)
    };
    files.iter().filter(|file| file.is_rust() && file.path.contains("/src/")).any(|file| file.code().any(declares))
}

/// Whether a file in which a type is declared or implemented has this function or variant of it.
fn has(files: &[File], of: &str, part: &str) -> bool {
    let owns = |line: &str| {
        holds(line, of)
            && ["impl ", "trait ", "enum "].iter().any(|keyword| line.trim_start_matches("pub ").starts_with(keyword))
    };
    let is_part = |line: &str| {
        let rest = line.trim_start().strip_prefix(part);
        rest.is_some_and(|rest| rest.starts_with([',', '(']) || rest.starts_with(" {"))
            || line.contains("fn ") && holds(line, part)
    };
    files
        .iter()
        .filter(|file| file.is_rust() && file.path.contains("/src/"))
        .any(|file| file.code().any(owns) && file.code().any(is_part))
}

/// Whether what a document names is there.
fn exists(files: &[File], name: &str) -> bool {
    if crates().iter().any(|krate| krate.name == name) {
        return true;
    }
    let is_file = [".rs", ".md", ".toml", ".json"].iter().any(|end| name.ends_with(end));
    if !name.starts_with('/') && !name.contains(' ') && (name.contains('/') || is_file) {
        let by_itself = |file: &File| !name.contains('/') && file.path.ends_with(&format!("/{name}"));
        return root().join(name).exists() || files.iter().any(by_itself);
    }
    let parts: Vec<&str> = name.trim_end_matches("()").split("::").collect();
    match parts[..] {
        [word] if is_word(word) => return is_known(files, word),
        [of, part] if is_word(of) && is_word(part) => {
            let is_crate = crates().iter().any(|krate| krate.name == of);
            return if is_crate { is_known(files, part) } else { has(files, of, part) };
        }
        _ => {}
    }
    let says = |file: &&File| file.path.contains("/src/") || file.path.starts_with("schema/");
    files.iter().filter(says).any(|file| file.text.contains(name))
}

fn check(document: &str) {
    let files = files();
    let text = fs::read_to_string(root().join("docs").join(document)).unwrap();
    let names = names(&text);
    assert!(names.len() > 20, "{document} names {} things", names.len());
    none(names.into_iter().filter(|name| !exists(&files, name)), &format!("{document} names what is not there"));
}

#[test]
fn the_architecture_names_what_is_there() {
    check("ARCHITECTURE.md");
}

#[test]
fn the_decisions_name_what_is_there() {
    check("decisions.md");
}

#[test]
fn the_architecture_is_short_and_has_every_crate() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() <= 150, "{} lines", text.lines().count());
    let missing = crates().into_iter().map(|krate| krate.name).filter(|name| !text.contains(&format!("`{name}`")));
    none(missing, "crates that are not on the map");
}

#[test]
fn a_decision_is_short() {
    let text = fs::read_to_string(root().join("docs/decisions.md")).unwrap();
    let long = text.split("\n\n").filter(|decision| decision.trim().lines().count() > 6);
    none(long.map(str::to_owned), "a decision has at most 6 lines");
}

/// The check finds what is made up.
#[test]
fn what_is_not_there_is_found() {
    let files = files();
    for name in
        ["Shard::drain", "libs/node/src/pump.rs", "wiring.rs", "node", "GET /v1/ws", "node::limits", "Arrival::Gap"]
    {
        assert!(exists(&files, name), "{name}");
    }
    for name in
        ["Shard::levitate", "Shard::location", "libs/node/src/nowhere.rs", "nowhere.rs", "Hubris", "GET /v1/nowhere"]
    {
        assert!(!exists(&files, name), "{name}");
    }
}
