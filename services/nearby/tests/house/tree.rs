//! The repository as these tests see it.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// One text file.
pub(crate) struct File {
    /// From the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Runs in a process of ours: neither test, nor load tester, nor what starts servers for tests.
    pub(crate) fn is_served(&self) -> bool {
        let tools = ["loadtest/", "servers/"];
        let is_test = self.path.ends_with("/tests.rs");
        self.is_rust()
            && self.path.contains("/src/")
            && !is_test
            && !tools.iter().any(|tool| self.path.starts_with(tool))
    }

    pub(crate) fn is_of(&self, krate: &str) -> bool {
        self.is_served() && self.path.starts_with(&format!("{krate}/"))
    }

    /// The lines that are neither comment nor unit test. Unit tests stand at the end of a file.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text[..end].lines().filter(|line| !line.trim_start().starts_with("//"))
    }

    /// The lines of code that hold any of these.
    pub(crate) fn naming<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let held = |line: &&str| words.iter().any(|word| line.contains(word));
        self.code().filter(held).map(|line| format!("{}: {}", self.path, line.trim()))
    }
}

/// Every text file of the repository, but for what tools made.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name == "target" || name == "nearby-data" || [".git", ".tools"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push(File { path, text });
            }
        }
    }
    assert!(files.len() > 100, "only {} files: is this the repository?", files.len());
    files
}

/// One crate of the workspace.
pub(crate) struct Crate {
    pub(crate) name: String,
    /// From the repository's root.
    pub(crate) folder: String,
    pub(crate) manifest: Table,
}

impl Crate {
    /// The packages of every table of this kind, those of single targets included.
    pub(crate) fn packages(&self, kind: &str) -> Vec<String> {
        let targets = self.manifest.get("target").and_then(|targets| targets.as_table());
        let of_targets =
            targets.into_iter().flat_map(|targets| targets.values()).filter_map(|target| target.as_table());
        let tables = std::iter::once(&self.manifest).chain(of_targets).filter_map(|table| table.get(kind));
        let entries = tables.filter_map(|table| table.as_table()).flatten();
        let package = |name: &str, value: &toml::Value| {
            value.get("package").and_then(|package| package.as_str()).unwrap_or(name).to_owned()
        };
        entries.map(|(name, value)| package(name, value)).collect()
    }
}

pub(crate) fn workspace() -> Table {
    fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap()
}

/// The crates, in the workspace's order.
pub(crate) fn crates() -> Vec<Crate> {
    let workspace = workspace();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let read = |folder: &str| {
        let manifest: Table = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap().parse().unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        Crate { name, folder: folder.to_owned(), manifest }
    };
    members.iter().map(|folder| read(folder.as_str().unwrap())).collect()
}

/// Fails with all that was found.
#[track_caller]
pub(crate) fn none(found: impl IntoIterator<Item = String>, rule: &str) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}
