//! The book is whole: every page can be found, its examples are tests, its links lead somewhere.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

#[test]
fn every_page_is_in_the_summary() {
    let summary = read("docs/SUMMARY.md");
    for page in pages() {
        let path = page.strip_prefix("docs").unwrap().display().to_string();
        let listed = summary.contains(&format!("]({path})"));
        assert!(listed || path == "SUMMARY.md", "docs/SUMMARY.md does not list {path}");
    }
}

#[test]
fn every_page_with_rust_is_tested() {
    let tested = read("src/book.rs");
    for page in pages() {
        if read(&page).lines().any(|line| line.starts_with("```rust")) {
            let page = page.display();
            assert!(tested.contains(&format!("\"../{page}\"")), "src/book.rs leaves out {page}");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from);
    for page in pages().into_iter().chain(others) {
        for target in read(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let found = root().join(&file).exists();
            assert!(found, "{} links to {target}, which does not exist", page.display());
            let found = heading.is_empty() || anchors(&file).iter().any(|a| a == heading);
            assert!(found, "{} links to {target}: there is no such heading", page.display());
        }
    }
}

/// The headings of a page, as links name them.
fn anchors(page: &Path) -> Vec<String> {
    let text = read(page);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.replace(|c: char| !c.is_alphanumeric() && c != '-' && c != '_', "")
    });
    headings.collect()
}

#[test]
fn every_example_is_in_the_table() {
    let table = read("docs/examples.md");
    for example in files("examples", "rs") {
        let name = example.file_name().unwrap().display().to_string();
        assert!(table.contains(&format!("| `{name}` |")), "docs/examples.md leaves out {name}");
    }
}

#[test]
fn every_test_that_an_invariant_names_exists() {
    let sources: Vec<_> = tests().iter().map(read).collect();
    let page = read("docs/invariants.md");
    let names = page.split('`').skip(1).step_by(2).filter(|name| name.contains('_'));
    for name in names {
        let start = format!("fn {name}(");
        let found = sources.iter().any(|source| source.contains(&start));
        assert!(found, "docs/invariants.md names {name}, which does not exist");
    }
}

/// Everything that may hold a test.
fn tests() -> Vec<PathBuf> {
    let crates = ["broker-api", "broker-embedded", "streams-core", "streams-dsl", "state-rocksdb"];
    let mut folders: Vec<_> = crates.map(PathBuf::from).into();
    folders.push("tests".into());
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            match path.extension() {
                _ if entry.file_type().unwrap().is_dir() => folders.push(path),
                Some(rust) if rust == "rs" => sources.push(path),
                _ => {}
            }
        }
    }
    sources
}

/// The pages of `docs/`.
fn pages() -> Vec<PathBuf> {
    let pages = ["docs", "docs/tutorial", "docs/operators"].into_iter();
    pages.flat_map(|folder| files(folder, "md")).collect()
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let names = read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    let paths = names.map(|name| Path::new(folder).join(name));
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {folder}");
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
