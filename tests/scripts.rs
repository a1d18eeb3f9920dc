//! What `scripts/setup` says on a machine on which Vltava cannot be built.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a shell command in the project on a machine whose Rust says that it has this version.
fn with_rust(version: &str, shell: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    for tool in ["cargo", "rustc"] {
        let path = home.path().join(tool);
        let script = format!("#!/bin/sh\necho '{tool} {version} (0123456 2020-01-01)'\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command.env("HOME", home.path()).env("LIBCLANG_PATH", "/nowhere");
    command.env("BINDGEN_EXTRA_CLANG_ARGS", "-I/nowhere"); // nothing is to be installed by a test
    command.env("PATH", format!("{}:/usr/bin:/bin", home.path().display()));
    command.output().unwrap()
}

#[test]
fn a_rust_that_is_too_old_is_said_with_what_to_do() {
    let needed = env!("CARGO_PKG_RUST_VERSION");
    let minor: u32 = needed.split('.').nth(1).unwrap().parse().unwrap();
    for old in ["1.63.0".into(), format!("1.{}.1", minor - 1), format!("1.{}.0-nightly", minor - 1)]
    {
        let output = with_rust(&old, &["scripts/setup"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in [old.as_str(), needed, "rustup"] {
            assert!(said.contains(part), "{said}");
        }
    }
    for new in [format!("{needed}.0"), format!("1.{}.0-nightly", minor + 1), "2.0.0".into()] {
        let output = with_rust(&new, &["scripts/setup"]);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn another_shell_than_bash_is_told_so() {
    let script = "if . scripts/setup; then echo done; else echo refused; fi";
    let output = with_rust("2.0.0", &["bash", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
    // Whatever shell this is: it says that it needs bash, or it is bash.
    let output = with_rust("2.0.0", &["sh", "-c", ". ./scripts/setup && echo done"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_bash = output.status.success() && said.is_empty();
    assert!(
        is_bash || said == "setup: this needs bash: start it ('bash'), then '. scripts/setup'\n"
    );
}
