//! What Kafka Streams answers, and what Vltava answers.
//!
//! Each file of `tests/oracle/` (or of `VLTAVA_ORACLE_DIR`) is a topology that Kafka Streams 4.3.1 ran in
//! its own test driver over random input: its `describe()`, every input with the records that came
//! out, and what the stores held at the end. The same topologies stand in `cases` in the DSL; everything
//! must be equal, in order, with timestamps. Where Vltava differs on purpose, a model of the operator in `models`
//! must answer as Kafka does with a switch on, and as Vltava does with it off.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use streams_core::processor::{Context, Processor};
use streams_core::state::StoreOptions;
use streams_core::test_driver::{TestDriverSettings, TopologyTestDriver};
use streams_core::topology::{NodeSpec, StoreSpec, TopologyBuilder};
use streams_core::{HasSerde, ProcessError, Record};
use streams_dsl::StreamsBuilder;

mod cases;
mod models;

use cases::{Text, build, text};
use models::Row;

type Failure = Box<dyn Error>;

#[test]
fn vltava_answers_what_kafka_streams_answers() -> Result<(), Failure> {
    let mut failures = String::new();
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    for path in files()? {
        let lines = read(&path)?;
        let case = lines[0]["case"].as_str().ok_or("no case")?.to_string();
        let builder = StreamsBuilder::new();
        if !build(&case, &builder) {
            let _ =
                writeln!(failures, "\n=== {}\nthere is no such case in `cases`", path.display());
            continue;
        }
        match run(&case, &builder, &lines) {
            Ok(()) => *passed.entry(case).or_default() += 1,
            Err(difference) => {
                let _ = writeln!(failures, "\n=== {}\n{difference}", path.display());
            }
        }
    }
    println!("passed, with how many seeds: {passed:?}");
    assert!(failures.is_empty(), "{failures}");
    if std::env::var_os("VLTAVA_ORACLE_DIR").is_none() {
        let (cases, all) = (passed.len(), passed.values().all(|seeds| *seeds == 3));
        assert!(cases == 68 && all, "68 cases with 3 seeds each should have been compared");
    }
    assert!(!passed.is_empty(), "there was nothing to run");
    Ok(())
}

#[test]
fn the_book_tells_of_every_difference() -> Result<(), Failure> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coming-from-kafka-streams.md");
    let page = std::fs::read_to_string(page)?;
    for (model, _) in models::DIFFERENCES {
        let named = page.lines().any(|l| l.starts_with('|') && l.contains(&format!("`{model}`")));
        assert!(named, "no row of the table names the model {model}");
    }
    Ok(())
}

/// Also where no operator has made it: from the nodes as they are drawn.
#[test]
fn describe_draws_every_topology_as_kafka_does() -> Result<(), Failure> {
    let mut differences = String::new();
    for path in files()? {
        let lines = read(&path)?;
        let described = lines[0]["describe"].as_str().ok_or("no description")?;
        let drawn = redraw(described)?;
        if drawn != described {
            differences += &format!("\n=== {}\n{}", path.display(), diff(described, &drawn));
        }
    }
    assert!(differences.is_empty(), "{differences}");
    Ok(())
}

fn files() -> Result<Vec<PathBuf>, Failure> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle");
    let dir = std::env::var("VLTAVA_ORACLE_DIR").unwrap_or_else(|_| default.into());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Runs one file; the error says the first difference. Where Vltava differs on purpose, the model
/// of the case answers for both.
fn run(case: &str, builder: &StreamsBuilder, lines: &[Value]) -> Result<(), Failure> {
    let topology = builder.build()?;
    let described = lines[0]["describe"].as_str().ok_or("no description")?;
    if topology.describe() != described {
        return Err(format!("describe()\n{}", diff(described, &topology.describe())).into());
    }
    let settings = TestDriverSettings { start: 1_000, ..TestDriverSettings::default() };
    let driver = TopologyTestDriver::with_settings(topology, settings)?;
    let output = driver.output_topic::<Text, Text>("out");
    let mut models = models::reference(case, true).zip(models::reference(case, false));
    for (number, line) in lines.iter().enumerate().skip(1) {
        if let Some(stores) = line["stores"].as_object() {
            // What waits in outer joins, and subscriptions, are kept in forms of our own.
            let ours = ["KSTREAM-OUTERSHARED-", "KTABLE-FK-JOIN-SUBSCRIPTION-STATE-STORE-"];
            let is_ours = |store: &str| ours.iter().any(|prefix| store.starts_with(prefix));
            for (store, rows) in stores.iter().filter(|(store, _)| !is_ours(store)) {
                check(&rows_of(rows)?, &dump(&driver, store)?)
                    .map_err(|difference| format!("store '{store}' at the end\n{difference}"))?;
            }
            continue;
        }
        let mut expected = rows_of(&line["out"])?;
        if let Some(by) = line["advance_ms"].as_u64() {
            driver.advance_wall_clock(Duration::from_millis(by))?;
        } else {
            let topic = line["topic"].as_str().ok_or("no topic")?;
            let (key, value) = (string(&line["key"]), string(&line["value"]));
            let timestamp = line["ts"].as_i64().ok_or("no time")?;
            if let Some((kafka, vltava)) = &mut models {
                let quirky = kafka.process(topic, key.clone(), value.clone(), timestamp);
                check(&expected, &quirky)
                    .map_err(|d| format!("the model of Kafka, line {}: {line}\n{d}", number + 1))?;
                expected = vltava.process(topic, key.clone(), value.clone(), timestamp);
            }
            driver.input_topic::<Text, Text>(topic).pipe(key, value, timestamp)?;
        }
        let found: Vec<Row> =
            output.read_all()?.into_iter().map(|r| (r.key, r.value, r.timestamp)).collect();
        check(&expected, &found)
            .map_err(|difference| format!("line {}: {line}\n{difference}", number + 1))?;
    }
    Ok(())
}

fn string(value: &Value) -> Text {
    value.as_str().map(Into::into)
}

/// Rows of [key, value, timestamp]; those of stores have no time.
fn rows_of(rows: &Value) -> Result<Vec<Row>, Failure> {
    let row = |row: &Value| (string(&row[0]), string(&row[1]), row[2].as_i64().unwrap_or(0));
    Ok(rows.as_array().ok_or("no rows")?.iter().map(row).collect())
}

/// The entries of a store as text. Counts are the only values of eight bytes that are not text.
fn dump(driver: &TopologyTestDriver, store: &str) -> Result<Vec<Row>, Failure> {
    let entry = |(key, value, _): (Vec<u8>, Vec<u8>, i64)| {
        let count = <[u8; 8]>::try_from(&value[..]).ok().filter(|bytes| bytes[0] == 0);
        let value = match count {
            Some(count) => i64::from_be_bytes(count).to_string(),
            None => String::from_utf8(value)?,
        };
        Ok((Some(String::from_utf8(key)?), Some(value), 0))
    };
    driver.dump_store(store)?.into_iter().map(entry).collect()
}

fn check(expected: &[Row], found: &[Row]) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let lines = |rows: &[Row]| {
        let line = |(k, v, ts): &Row| format!("{} = {} @ {ts}\n", text(k), text(v));
        rows.iter().map(line).collect::<String>()
    };
    Err(diff(&lines(expected), &lines(found)))
}

/// Both texts side by side by lines: `-` is what Kafka says, `+` what we say.
fn diff(expected: &str, found: &str) -> String {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    let mut out = String::new();
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return out,
            (Some(kafka), Some(ours)) if kafka == ours => out += &format!("   {kafka}\n"),
            (kafka, ours) => {
                out += &kafka.map(|line| format!(" - {line}\n")).unwrap_or_default();
                out += &ours.map(|line| format!(" + {line}\n")).unwrap_or_default();
            }
        }
    }
}

/// Builds the topology that a description shows, in the order of its numbers, and describes it.
fn redraw(text: &str) -> Result<String, Failure> {
    let mut builder = TopologyBuilder::new();
    let mut stores: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in text.split("Sub-topology: ").skip(1) {
        let mut nodes = drawn_nodes(part)?;
        if part.contains("for global store") {
            let [source, processor] = &nodes[..] else {
                return Err("a global store without source and processor".into());
            };
            let store = drawn_store(&processor.list[0]);
            builder.add_global_store(store, source.spec(), processor.spec())?;
            continue;
        }
        while !nodes.is_empty() {
            let is_child = |n: &Drawn| nodes.iter().any(|other| n.parents.contains(&other.name));
            let next = nodes.iter().position(|n| !is_child(n)).ok_or("a cycle")?;
            let node = nodes.remove(next);
            builder.add(node.spec())?;
            if node.kind == "Processor" {
                for store in node.list {
                    stores.entry(store).or_default().push(node.name.clone());
                }
            }
        }
    }
    for (store, users) in &stores {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        builder.add_state_store(drawn_store(store), &users)?;
    }
    Ok(builder.build()?.describe())
}

fn drawn_store(name: &str) -> StoreSpec {
    StoreSpec::key_value(name, <()>::serde(), <()>::serde(), StoreOptions::default())
}

/// A node as a description shows it: `list` are its topics or stores.
struct Drawn {
    kind: String,
    name: String,
    list: Vec<String>,
    parents: Vec<String>,
}

fn drawn_nodes(part: &str) -> Result<Vec<Drawn>, Failure> {
    let names = |list: &str| -> Vec<String> {
        let names = list.split(", ").map(str::to_string);
        names.filter(|name| !name.is_empty() && name != "none").collect()
    };
    let mut nodes: Vec<Drawn> = Vec::new();
    for line in part.lines().skip(1).map(str::trim) {
        if let Some(parents) = line.strip_prefix("<-- ") {
            nodes.last_mut().ok_or("links of nothing")?.parents = names(parents);
        } else if let Some((kind, rest)) = line.split_once(": ") {
            let (name, list) = rest.split_once(" (").ok_or("no list")?;
            let (_, list) = list.split_once(": ").ok_or("no list")?;
            let list = names(list.trim_end_matches(')').trim_matches(['[', ']']));
            nodes.push(Drawn { kind: kind.into(), name: name.into(), list, parents: vec![] });
        }
    }
    let number = |name: &str| name.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
    nodes.sort_by_key(|node| number(&node.name));
    Ok(nodes)
}

impl Drawn {
    fn spec(&self) -> NodeSpec {
        let (name, parents, unit) = (&self.name, self.parents.clone(), <()>::serde);
        match self.kind.as_str() {
            "Source" => NodeSpec::source(name, self.list.clone(), unit(), unit()),
            "Sink" => NodeSpec::sink(name, parents, &self.list[0], unit(), unit(), None),
            _ => NodeSpec::processor(name, parents, || Nothing),
        }
    }
}

struct Nothing;

impl Processor for Nothing {
    type KIn = ();
    type VIn = ();
    type KOut = ();
    type VOut = ();

    fn process(
        &mut self,
        _: Record<(), ()>,
        _: &mut Context<'_, (), ()>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }
}
