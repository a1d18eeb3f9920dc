//! `vltava app` and what the command line knows of applications: the real binary on what a real
//! application left.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{Counts, count, fill, last_values, store, topology};
use tempfile::TempDir;
use vltava::Vltava;
use vltava::broker_api::client::TransactionalProducer;
use vltava::broker_api::{CommittedOffset, TopicPartition};

const TEXT: [&str; 4] = ["the river and the bank", "the boat", "a river", "and a bank"];
const CHANGELOG: &str = "word-count-counts-changelog";

fn vltava(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vltava"));
    command.args(args).env("VLTAVA_BROKER", dir).env_remove("RUST_LOG").output().unwrap()
}

fn ok(dir: &Path, args: &[&str]) -> String {
    let output = vltava(dir, args);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(dir: &Path, args: &[&str]) -> String {
    let output = vltava(dir, args);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Writes lines and lets the application process all that there is.
async fn run(dir: &Path, lines: &[&str]) {
    let vltava = Vltava::open(dir).unwrap();
    fill(&vltava, 2, lines.iter().copied()).await;
    let streams = vltava.start(topology(true), vltava.settings("word-count")).await.unwrap();
    streams.caught_up().await.unwrap();
    streams.close().await.unwrap();
    vltava.close().unwrap();
}

async fn check(dir: &Path, expected: &Counts) {
    let vltava = Vltava::open(dir).unwrap();
    assert_eq!(&last_values(&vltava, CHANGELOG).await, expected, "changelog");
    assert_eq!(&store(dir), expected, "store");
    vltava.close().unwrap();
}

#[tokio::test]
async fn an_application_whose_changelog_was_deleted_is_reset_and_counts_everything_again() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    ok(dir.path(), &["topics", "delete", "--force", CHANGELOG]);
    let vltava = Vltava::open(dir.path()).unwrap();
    let refused = vltava.start(topology(true), vltava.settings("word-count")).await;
    let reason = refused.err().unwrap().to_string();
    assert!(reason.contains("`vltava app reset --app word-count`"), "{reason}");
    vltava.close().unwrap();
    let said = ok(dir.path(), &["app", "reset", "--app", "word-count"]);
    for step in
        ["deleted the local state in ", "deleted topic word-count-counts-repartition", "lines-1 "]
    {
        assert!(said.contains(step), "{said}");
    }
    run(dir.path(), &["the end"]).await;
    let expected = count(TEXT.into_iter().chain(["the end"]));
    check(dir.path(), &expected).await;
    let vltava = Vltava::open(dir.path()).unwrap();
    assert_eq!(last_values(&vltava, "counts").await, expected, "output");
    vltava.close().unwrap();
}

#[tokio::test]
async fn a_reset_to_the_latest_leaves_out_what_there_is() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    let reset = ["app", "reset", "--app", "word-count", "--input-topic", "lines", "--to", "latest"];
    ok(dir.path(), &reset);
    run(dir.path(), &["the end"]).await;
    check(dir.path(), &count(["the end"].into_iter())).await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    let topics = ok(dir.path(), &["topics", "list"]);
    let said = ok(dir.path(), &["app", "reset", "--app", "word-count", "--dry-run"]);
    assert!(said.contains("would delete topic word-count-counts-changelog"), "{said}");
    assert_eq!(ok(dir.path(), &["topics", "list"]), topics);
    check(dir.path(), &count(TEXT.into_iter())).await;
    run(dir.path(), &["the end"]).await;
    check(dir.path(), &count(TEXT.into_iter().chain(["the end"]))).await;
}

#[tokio::test]
async fn a_running_application_is_not_reset() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    let running = Vltava::open(dir.path()).unwrap();
    let refused = fails(dir.path(), &["app", "reset", "--app", "word-count"]);
    assert!(refused.contains("in use by"), "{refused}");
    running.close().unwrap();
    check(dir.path(), &count(TEXT.into_iter())).await;
}

#[tokio::test]
async fn an_application_that_is_not_there_is_an_error_that_names_those_that_are() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    assert_eq!(ok(dir.path(), &["app", "list"]), "word-count\n");
    // The changelog's name also reads as that of store `count-counts` of an application `word`.
    for app in ["nope", "word", "word-count-counts", "..", ""] {
        for command in [&["state", "stores"][..], &["app", "reset"]] {
            let said = fails(dir.path(), &[command, &["--app", app]].concat());
            assert!(said.contains(&format!("no application '{app}'")), "{said}");
            assert!(said.contains("word-count"), "{said}");
        }
        let replay = ["state", "replay", "--app", app, "--store", "count-counts"];
        assert!(fails(dir.path(), &replay).contains("no application"));
    }
    let stores = ok(dir.path(), &["state", "stores", "--app", "word-count"]);
    assert!(stores.lines().skip(1).all(|line| line.starts_with("counts\t")), "{stores}");
    check(dir.path(), &count(TEXT.into_iter())).await;
}

#[tokio::test]
async fn a_consumer_that_commits_offsets_is_no_application() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    let vltava = Vltava::open(dir.path()).unwrap();
    let mut loader = TransactionalProducer::new(vltava.broker(), "loader").unwrap();
    let mut transaction = loader.begin();
    let offset = CommittedOffset { offset: 3, metadata: "book.txt".into() };
    transaction.send_offsets("loader", [(TopicPartition::new("lines", 0), offset)]).unwrap();
    transaction.commit().await.unwrap();
    drop(loader);
    vltava.close().unwrap();
    assert_eq!(ok(dir.path(), &["app", "list"]), "word-count\n");
    fails(dir.path(), &["app", "reset", "--app", "loader"]);
    // A reset does not make it forgotten.
    ok(dir.path(), &["app", "reset", "--app", "word-count"]);
    assert_eq!(ok(dir.path(), &["app", "list"]), "word-count\n");
}

#[tokio::test]
async fn an_internal_topic_is_deleted_only_by_force() {
    let dir = TempDir::new().unwrap();
    run(dir.path(), &TEXT).await;
    let refused = fails(dir.path(), &["topics", "delete", CHANGELOG]);
    for part in ["store 'counts'", "vltava app reset --app word-count", "--force"] {
        assert!(refused.contains(part), "{refused}");
    }
    check(dir.path(), &count(TEXT.into_iter())).await;
    let forced = vltava(dir.path(), &["topics", "delete", "--force", CHANGELOG]);
    assert_eq!(String::from_utf8_lossy(&forced.stdout), format!("topic {CHANGELOG} deleted\n"));
    assert!(!ok(dir.path(), &["topics", "list"]).contains(CHANGELOG));
}
