//! The word-count example as a user meets it: its real process, on input that is not a book.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

#[test]
fn a_gz_file_of_several_parts_is_read_to_its_end() {
    let dir = TempDir::new().unwrap();
    let input = dir.path().join("lines.txt.gz");
    let mut file = std::fs::File::create(&input).unwrap();
    for text in ["one two\n", "three\nfour\n"] {
        let mut part = flate2::write::GzEncoder::new(&file, flate2::Compression::default());
        part.write_all(text.as_bytes()).unwrap();
        part.finish().unwrap();
    }
    file.flush().unwrap();
    let output = run(&dir, &input, None);
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 lines, 4 words"));
}

#[test]
fn an_input_that_cannot_be_read_is_named() {
    let dir = TempDir::new().unwrap();
    for (input, reason) in [("nope.txt", "No such file"), (".", "is a directory")] {
        let input = dir.path().join(input);
        let output = run(&dir, &input, None);
        assert_eq!(output.status.code(), Some(1));
        let (said, input) = (said(&output), input.display().to_string());
        assert!(said.contains(&input) && said.contains(reason), "{said}");
    }
}

#[test]
fn progress_without_a_pause_is_no_command_line() {
    let output = Command::new(example()).args(["--progress-ms", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_process_that_is_told_to_end_closes_in_good_order() {
    for signal in ["-TERM", "-INT"] {
        let dir = TempDir::new().unwrap();
        let input = file(&dir, "lines.txt", "one two\n");
        let mut command = Command::new(example());
        command.arg("--broker").arg(dir.path().join("broker")).arg("--input").arg(input);
        command.args(["--progress-ms", "10"]).env_remove("RUST_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
        progress
            .find(|line| line.as_ref().unwrap().starts_with("1 lines processed"))
            .unwrap()
            .unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        progress.for_each(drop);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{signal}: {}", output.status);
        // The line is consumed; whether its words are counted too is a matter of the moment.
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 lines, "));
    }
}
