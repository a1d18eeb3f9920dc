//! The word-count example as a user meets it: its real process, on input that is not a book.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::example;
use tempfile::TempDir;

fn run(dir: &TempDir, input: &Path, log: Option<&str>) -> Output {
    let mut command = Command::new(example());
    command.env_remove("RUST_LOG").envs(log.map(|level| ("RUST_LOG", level)));
    command.arg("--broker").arg(dir.path().join("broker"));
    command.arg("--exit-when-done").arg("--input").arg(input).output().unwrap()
}

fn file(dir: &TempDir, name: &str, text: &str) -> std::path::PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_file_of_huge_lines_is_loaded_in_transactions_that_fit() {
    let dir = TempDir::new().unwrap();
    let line = "a".repeat(1 << 20);
    let output = run(&dir, &file(&dir, "lines.txt", &[line.as_str(); 40].join("\n")), None);
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("40 lines, 40 words"));
}

#[test]
fn a_line_above_the_limit_is_named() {
    let dir = TempDir::new().unwrap();
    for huge in [17 << 20, 40 << 20] {
        let text = format!("one two\n{}\nthree\n", "a".repeat(huge));
        let output = run(&dir, &file(&dir, "lines.txt", &text), None);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("line 2: ") && said.contains("is larger than"), "{said}");
        std::fs::remove_dir_all(dir.path().join("broker")).unwrap();
    }
}

#[test]
fn a_load_does_not_go_on_with_another_file() {
    let dir = TempDir::new().unwrap();
    let first = file(&dir, "first.txt", "one\ntwo\n");
    assert!(run(&dir, &first, None).status.success());
    for other in [file(&dir, "other.txt", "one\ntwo\n"), file(&dir, "first.txt", "one\ntwo!\n")] {
        let output = run(&dir, &other, None);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("first.txt (8 bytes)") && said.contains("--broker"), "{said}");
    }
    file(&dir, "first.txt", "one\ntwo\n");
    let again = run(&dir, &first, None);
    assert!(String::from_utf8_lossy(&again.stdout).contains("0 lines, 0 words"));
}

#[test]
fn what_the_library_logs_is_seen() {
    let dir = TempDir::new().unwrap();
    let input = file(&dir, "lines.txt", "one two\n");
    assert!(!said(&run(&dir, &input, None)).contains("task running"));
    assert!(said(&run(&dir, &input, Some("info"))).contains("task running"));
}
