//! The `vltava` command line, run as a user runs it: the real binary on a temporary directory.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;

use broker_api::{
    BatchBuilder, Broker, CleanupPolicy, Clock, NewTopic, ProducerEvent, SystemClock, TopicConfig,
    TopicPartition, partitioner,
};
use broker_embedded::{EmbeddedBroker, Settings};
use futures::executor::block_on;
use tempfile::TempDir;

/// A directory for a broker, and `vltava` to be run on it.
struct Cli {
    dir: TempDir,
}

impl Cli {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn with_topic(name: &str, partitions: u32) -> Self {
        let cli = Self::new();
        cli.ok(&["topics", "create", name, "--partitions", &partitions.to_string()]);
        cli
    }

    fn broker(&self) -> PathBuf {
        self.dir.path().join("broker")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vltava"));
        command.args(args).env("VLTAVA_BROKER", self.broker()).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; gives what it prints.
    fn ok(&self, args: &[&str]) -> String {
        printed(&self.run(args))
    }

    /// Runs a command that must fail with exit code 1; gives its message.
    fn fails(&self, args: &[&str]) -> String {
        self.fails_with(1, args)
    }

    fn fails_with(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn produce(&self, args: &[&str], input: impl AsRef<[u8]>) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // It may give up before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        child.wait_with_output().unwrap()
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdin(Stdio::piped()).spawn().unwrap()
    }
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}

/// Writes to a broker as an application would.
struct App {
    broker: EmbeddedBroker,
}

impl App {
    fn open(cli: &Cli) -> Self {
        Self { broker: EmbeddedBroker::open(cli.broker(), Settings::default()).unwrap() }
    }

    fn create(&self, name: &str, partitions: u32) {
        let config =
            TopicConfig { cleanup_policy: CleanupPolicy::Compact, ..TopicConfig::default() };
        let topic = NewTopic { name: name.into(), partitions, config };
        block_on(self.broker.admin().create_topic(topic)).unwrap();
    }

    /// Appends one batch and waits until it is durable.
    fn append(&self, topic: &str, partition: u32, records: &[(&[u8], Option<&[u8]>)]) {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut batch = BatchBuilder::new();
        for (key, value) in records {
            batch.push(1_000, Some(key), *value, &[]).unwrap();
        }
        let mut producer = self.broker.producer(waker).unwrap();
        producer.append(&TopicPartition::new(topic, partition), batch.finish().unwrap()).unwrap();
        loop {
            match producer.poll() {
                Poll::Pending => std::thread::park(),
                Poll::Ready(ProducerEvent::Appended { .. }) => return,
                Poll::Ready(failed) => panic!("{failed:?}"),
            }
        }
    }

    fn count(&self, partition: u32, word: &str, count: i64) {
        let count = count.to_be_bytes();
        self.append("app-counts-changelog", partition, &[(word.as_bytes(), Some(&count))]);
    }
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let cli = Cli::new();
    let created = cli.ok(&[
        "topics",
        "create",
        "b",
        "--partitions",
        "2",
        "--config",
        "cleanup.policy=compact",
        "--config",
        "retention.bytes=77",
    ]);
    assert_eq!(created, "topic b created with 2 partitions\n");
    cli.ok(&["topics", "create", "a", "--partitions", "1"]);
    assert_eq!(cli.ok(&["topics", "list"]), "a\nb\n");
    cli.produce(&["produce", "b", "--key-separator", "="], "fig=1\nriver=2\npear=3\n");
    let described = cli.ok(&["topics", "describe", "b"]);
    for line in ["partitions:  2", "cleanup.policy=compact", "retention.bytes=77"] {
        assert!(described.contains(line), "{described}");
    }
    assert!(described.ends_with("0          0             2\n1          0             1\n"));
    cli.ok(&["topics", "delete", "a"]);
    assert_eq!(cli.ok(&["topics", "list"]), "b\n");
    assert!(cli.fails(&["topics", "create", "b", "--partitions", "1"]).contains("exists already"));
    assert!(cli.fails(&["topics", "delete", "a"]).contains("topic 'a' does not exist"));
    let wrong = ["topics", "create", "c", "--partitions", "1", "--config", "cleanup.policy=never"];
    assert!(cli.fails(&wrong).contains("expected delete, compact or compact,delete"));
}

#[test]
fn lines_come_back_in_order() {
    let cli = Cli::with_topic("lines", 1);
    let written = cli.produce(&["produce", "lines"], "one\n\nthree, the last, without line feed");
    assert_eq!(printed(&written), "");
    assert_eq!(String::from_utf8_lossy(&written.stderr), "3 records written to topic lines\n");
    let consume = |more: &[&str]| {
        cli.ok(&[&["consume", "lines", "--until-end", "--format", "%o:%v\\n"], more].concat())
    };
    assert_eq!(consume(&[]), "0:one\n1:\n2:three, the last, without line feed\n");
    assert_eq!(consume(&["--from", "beginning", "--max-messages", "1"]), "0:one\n");
    assert_eq!(consume(&["--from", "2"]), "2:three, the last, without line feed\n");
    assert_eq!(consume(&["--from", "end"]), "");
    assert_eq!(consume(&["--isolation", "read_uncommitted", "--max-messages", "1"]), "0:one\n");
    // A message limit ends it, too.
    assert_eq!(cli.ok(&["consume", "lines", "--max-messages", "2"]), "null\tone\nnull\t\n");
    assert_eq!(cli.ok(&["consume", "lines", "--max-messages", "0"]), "");
}

#[test]
fn a_file_is_read_and_its_lines_go_to_the_partitions_in_turn() {
    let cli = Cli::with_topic("lines", 3);
    let file = cli.dir.path().join("numbers.txt");
    let numbers: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
    std::fs::write(&file, numbers.join("\n")).unwrap();
    let produced = cli.run(&["produce", "lines", file.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&produced.stderr).starts_with("100000 records"));
    for partition in 0..3 {
        let only = partition.to_string();
        let consume =
            ["consume", "lines", "--until-end", "--partition", &only, "--format", "%v\\n"];
        let lines = cli.ok(&consume);
        let expected: Vec<&str> =
            numbers.iter().skip(partition).step_by(3).map(String::as_str).collect();
        assert!(lines.lines().eq(expected), "partition {partition}");
    }
    assert!(cli.fails(&["consume", "lines", "--partition", "3"]).contains("no partition 3"));
    assert!(
        cli.fails(&["produce", "lines", "/no/such/file"]).contains("/no/such/file: No such file")
    );
}

#[test]
fn keys_are_split_off_and_choose_kafkas_partition() {
    let cli = Cli::with_topic("pairs", 4);
    let produced = cli.produce(
        &["produce", "pairs", "--key-separator", "\\t"],
        "apple\t1\npear\t2\nfig\t3\t4\n\tno key\n",
    );
    assert!(produced.status.success());
    let consumed = cli.ok(&["consume", "pairs", "--until-end", "--format", "%k %p %v\\n"]);
    let mut lines: Vec<&str> = consumed.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> =
        [("", "no key"), ("apple", "1"), ("fig", "3\t4"), ("pear", "2")]
            .iter()
            .map(|(k, v)| format!("{k} {} {v}", partitioner::partition_of(k.as_bytes(), 4)))
            .collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    let refused = cli.produce(&["produce", "pairs", "--key-separator", "::"], "a::1\nb:2\n");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        message.contains("line 2: it lacks the key separator; the 1 lines before"),
        "{message}"
    );
    assert!(cli.ok(&["consume", "pairs", "--until-end"]).contains("a\t1\n"), "line 1 is written");
}

#[test]
fn every_placeholder_and_type() {
    let cli = Cli::with_topic("t", 1);
    let app = App::open(&cli);
    app.append("t", 0, &[(b"a\xff\n", Some(&(-5i64).to_be_bytes())), (b"k", None)]);
    app.broker.close().unwrap();
    let types = ["--key-type", "bytes", "--value-type", "i64"];
    let format = ["--format", "%t %p %o %T %k\\t%v%%\\x21\\n"];
    let all = cli.ok(&[&["consume", "t", "--until-end"], &types[..], &format[..]].concat());
    assert_eq!(all, "t 0 0 1000 a\\xff\\n\t-5%!\nt 0 1 1000 k\tnull%!\n");
    let appended: i64 =
        cli.ok(&["consume", "t", "--max-messages", "1", "--format", "%A"]).parse().unwrap();
    assert!(appended > 1_700_000_000_000, "the time of appending, in milliseconds");
}

#[test]
fn a_record_that_is_not_of_its_type_is_named_after_those_before_it() {
    let cli = Cli::with_topic("t", 1);
    cli.produce(&["produce", "t"], b"good\n\xff\xfe\n");
    let output = cli.run(&["consume", "t", "--until-end", "--format", "%v\\n"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "good\n");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("record 1 of t-0: the value is not UTF-8"), "{message}");
    let number = cli.fails(&["consume", "t", "--until-end", "--value-type", "i64"]);
    assert!(number.contains("record 0 of t-0: the value has 4 bytes"), "{number}");
    let bytes = ["consume", "t", "--until-end", "--value-type", "bytes", "--format", "%v "];
    assert_eq!(cli.ok(&bytes), "good \\xff\\xfe ");
}

#[test]
fn a_record_above_the_limit_is_named_and_the_lines_before_it_are_written() {
    let cli = Cli::new();
    let limit = "max.message.bytes=1000";
    cli.ok(&["topics", "create", "t", "--partitions", "2", "--config", limit]);
    let short = "short\n".repeat(500);
    for long in ["x".repeat(2_000) + "\nnever\n", "x".repeat(200_000)] {
        let refused = cli.produce(&["produce", "t"], short.clone() + &long);
        assert_eq!(refused.status.code(), Some(1));
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(message.contains("line 501: ") && message.contains(limit), "{message}");
    }
    let kept = cli.ok(&["consume", "t", "--until-end", "--format", "%v\\n"]);
    assert_eq!(kept, short.repeat(2));
}

#[test]
fn errors_say_what_to_do() {
    let cli = Cli::new();
    let message = cli.fails(&["topics", "list"]);
    assert!(message.contains("there is no broker in") && message.contains("--broker"), "{message}");
    assert!(!cli.broker().exists(), "a mistyped directory does not become a broker");
    cli.ok(&["topics", "create", "t", "--partitions", "1"]);
    for command in [["consume", "x"], ["produce", "x"]] {
        assert!(cli.fails(&command).contains("vltava topics create x --partitions N"));
    }
    for missing in [["topics", "delete", "x"], ["topics", "describe", "x"]] {
        let message = cli.fails(&missing);
        assert!(message.contains("topic 'x' does not exist; vltava topics list"), "{message}");
    }
    for wrong in ["0", "100001"] {
        let message = cli.fails_with(2, &["topics", "create", "u", "--partitions", wrong]);
        assert!(message.contains("is not in 1..=100000"), "{message}");
    }
    let create = ["topics", "create", "u", "--partitions", "1"];
    let twice = ["--config", "retention.bytes=1", "--config", "retention.bytes=2"];
    let message = cli.fails_with(2, &[&create[..], &twice].concat());
    assert!(message.contains("retention.bytes is given twice"), "{message}");
    assert!(cli.fails(&["consume", "t", "--from", "5"]).contains("the log holds 0 to 0"));
    for wrong in [
        &["consume", "t", "--from", "yesterday"][..],
        &["consume", "t", "--format", "%x"],
        &["consume", "t", "--value-type", "f64"],
        &["produce", "t", "--key-separator", ""],
        &["topics", "create", "u", "--partitions", "1", "--config", "noise"],
        &["state", "replay", "--app", "a", "--store", "s", "--at-offset", "1", "--at-time", "1"],
    ] {
        cli.fails_with(2, wrong);
    }
    for command in
        [&[][..], &["topics", "create"], &["produce"], &["consume"], &["state", "replay"]]
    {
        let help = cli.ok(&[command, &["--help"]].concat());
        assert!(
            help.contains("Examples:\n  vltava ") || help.contains("Examples:\n  printf "),
            "{help}"
        );
    }
}

#[test]
fn a_directory_in_use_names_the_process_that_has_it() {
    let cli = Cli::with_topic("t", 1);
    let app = App::open(&cli);
    let message = cli.fails(&["consume", "t"]);
    assert!(message.contains("in use by"), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(message.contains("--broker DIR"), "{message}");
    app.broker.close().unwrap();
    assert_eq!(cli.ok(&["consume", "t", "--until-end"]), "");
}

#[test]
fn whoever_closes_the_pipe_has_seen_enough() {
    let cli = Cli::with_topic("t", 1);
    cli.produce(&["produce", "t"], "a line of some length\n".repeat(20_000));
    let mut child = cli.start(&["consume", "t", "--format", "%v\\n"]);
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "a line of some length\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn an_interrupted_consumer_has_done_its_work() {
    let cli = Cli::with_topic("t", 1);
    cli.produce(&["produce", "t"], "x\n");
    let mut child = cli.start(&["consume", "t", "--format", "%v"]);
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn an_interrupted_producer_says_how_much_it_wrote() {
    let cli = Cli::with_topic("t", 1);
    let mut child = cli.start(&["produce", "t"]);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"a\nb\nhalf a line").unwrap();
    // Once it has the directory, it listens to signals.
    let lock = cli.broker().join("LOCK");
    while !std::fs::read_to_string(&lock).unwrap_or_default().contains(&child.id().to_string()) {
        std::thread::yield_now();
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let written = cli.ok(&["consume", "t", "--until-end"]).lines().count();
    let said = format!("vltava: interrupted; {written} lines are written\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
}

#[test]
fn a_store_is_replayed_from_its_changelog_as_of_any_point() {
    let cli = Cli::with_topic("other", 1);
    let app = App::open(&cli);
    app.create("app-counts-changelog", 2);
    app.create("app-seen-changelog", 1);
    app.create("another-app-counts-changelog", 1);
    app.count(0, "river", 1);
    app.count(1, "bank", 1);
    app.count(0, "river", 2);
    app.append("app-counts-changelog", 0, &[(b"boat", Some(&7i64.to_be_bytes()))]);
    let clock = SystemClock::new();
    let before = clock.now();
    while clock.now() <= before {} // for a later time of appending
    app.append("app-counts-changelog", 0, &[(b"boat", None)]);
    app.count(1, "bank", 2);
    app.broker.close().unwrap();

    let replay = |more: &[&str]| {
        let base = ["state", "replay", "--app", "app", "--store", "counts", "--value-type", "i64"];
        cli.ok(&[&base[..], more].concat())
    };
    assert_eq!(replay(&[]), "bank\t2\nriver\t2\n");
    assert_eq!(replay(&["--at-offset", "0"]), "bank\t1\nriver\t1\n");
    assert_eq!(replay(&["--at-offset", "2"]), "bank\t2\nboat\t7\nriver\t2\n");
    assert_eq!(replay(&["--at-time", &before.to_string()]), "bank\t1\nboat\t7\nriver\t2\n");
    assert_eq!(replay(&["--at-time", "5"]), "");
    assert_eq!(replay(&["--only-key", "river"]), "river\t2\n");
    assert_eq!(replay(&["--only-key", "boat", "--at-offset", "2"]), "boat\t7\n");
    assert_eq!(replay(&["--only-key", "sea"]), "");
    let format =
        ["--format", "%t %p %o %T %k %v\\n", "--only-key", "ri\\x76er", "--key-type", "bytes"];
    assert_eq!(replay(&format), "app-counts-changelog 0 1 1000 river 2\n");

    let base = ["state", "replay", "--app", "app", "--store"];
    let beyond = cli.fails(&[&base[..], &["counts", "--at-offset", "4"]].concat());
    assert!(beyond.contains("ends at offset 4; it has no record at offset 4 yet"), "{beyond}");
    let unknown = cli.fails(&[&base[..], &["count"]].concat());
    assert!(unknown.contains("no store 'count'") && unknown.contains("it has: counts, seen"));
    let stores = cli.ok(&["state", "stores", "--app", "app"]);
    let rows = "counts\t0\t0\t4\ncounts\t1\t0\t2\nseen\t0\t0\t0\n";
    assert_eq!(stores, format!("store\tpartition\tfirst offset\tend offset\n{rows}"));
}

#[test]
fn deleted_records_of_a_changelog_are_told() {
    let cli = Cli::with_topic("other", 1);
    let app = App::open(&cli);
    app.create("app-counts-changelog", 1);
    for count in 1..=4 {
        app.count(0, &format!("word {count}"), count);
    }
    let partition = TopicPartition::new("app-counts-changelog", 0);
    block_on(app.broker.admin().delete_records(&partition, 2)).unwrap();
    app.broker.close().unwrap();

    let replay = ["state", "replay", "--app", "app", "--store", "counts", "--value-type", "i64"];
    let output = cli.run(&replay);
    assert_eq!(printed(&output), "word 3\t3\nword 4\t4\n");
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.contains("below offset 2 are deleted"), "{warning}");
    let past = cli.fails(&[&replay[..], &["--at-offset", "0"]].concat());
    assert!(past.contains("cannot be told"), "{past}");
}

#[test]
fn a_past_that_was_compacted_away_is_not_told_wrong() {
    let cli = Cli::with_topic("other", 1);
    // Small files, so that the journal retires and the changelog is compacted.
    let settings = Settings {
        journal_file_bytes: 8 << 10,
        retired_journal_files: 0,
        segment_bytes: 16 << 10,
        ..Settings::default()
    };
    let app = App { broker: EmbeddedBroker::open(cli.broker(), settings).unwrap() };
    app.create("app-counts-changelog", 1);
    let partition = TopicPartition::new("app-counts-changelog", 0);
    let admin = app.broker.admin();
    let clock = SystemClock::new();
    let mut early = None; // the first record was there, the second was not
    let mut records = 0;
    let compacted_below = loop {
        assert!(records < 20_000, "compaction never came");
        app.count(0, "river", records);
        records += 1;
        while records == 1 && clock.now() <= *early.get_or_insert_with(|| clock.now()) {}
        let horizon = block_on(admin.horizon(&partition)).unwrap();
        if horizon.compacted_below > 0 {
            break horizon.compacted_below;
        }
    };
    drop(admin);
    app.broker.close().unwrap();

    let replay = ["state", "replay", "--app", "app", "--store", "counts", "--value-type", "i64"];
    let at = |offset: i64| {
        let offset = offset.to_string();
        cli.run(&[&replay[..], &["--at-offset", &offset]].concat())
    };
    assert_eq!(printed(&cli.run(&replay)), format!("river\t{}\n", records - 1));
    let early_past = at(compacted_below - 2);
    assert_eq!(early_past.status.code(), Some(1), "{early_past:?}");
    // The first offset as of which the contents can be told; opening the broker may compact more.
    let mut first = compacted_below - 1;
    loop {
        let output = at(first);
        if output.status.success() {
            assert_eq!(printed(&output), format!("river\t{first}\n"));
            break;
        }
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let told = "compaction has removed records of app-counts-changelog-0 below offset ";
        let (_, below) = message.split_once(told).unwrap_or_else(|| panic!("{message}"));
        let below: i64 = below.split(',').next().unwrap().parse().unwrap();
        assert!(first + 1 < below && below <= records, "{message}");
        first = below - 1;
    }
    let early = early.unwrap().to_string();
    let refused = cli.fails(&[&replay[..], &["--at-time", &early]].concat());
    assert!(refused.contains("compaction has removed"), "{refused}");
}
