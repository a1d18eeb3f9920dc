//! What the documents show is what there is.

use std::fs::read_to_string;
use std::time::Duration;

use vltava::prelude::*;

include!("readme/turnover.rs");

#[test]
fn the_readme_shows_code_that_there_is() {
    let (readme, mut shown) = (read("README.md"), 0);
    let files = ["tests/readme/turnover.rs", "examples/word_count.rs"].map(read);
    for block in readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        assert!(files.iter().any(|file| file.contains(block)), "nowhere: {block}");
        shown += 1;
    }
    assert_eq!(shown, 2);
}

#[test]
fn the_topology_of_the_readme_does_what_it_is_said_to() -> Result<(), Box<dyn std::error::Error>> {
    const HOUR: i64 = 3_600_000;
    let driver = TopologyTestDriver::new(turnover()?)?;
    let countries = driver.input_topic::<String, String>("countries");
    countries.pipe("Ada".into(), "CZ".into(), 0)?;
    countries.pipe("Bob".into(), "CZ".into(), 0)?;
    let orders = driver.input_topic::<String, i64>("orders");
    for (customer, cents, time) in [("Ada", 100, 1), ("Bob", 50, 2), ("Ada", 7, HOUR)] {
        orders.pipe(customer.into(), cents, time)?;
    }
    let key = time_windowed(String::serde(), HOUR);
    let results = driver.output_topic_with("turnover", key, i64::serde()).read_all()?;
    let results: Vec<_> =
        results.iter().map(|r| (&*r.key.key, r.key.window.start, r.value)).collect();
    assert_eq!(results, [("CZ", 0, 150)]);
    Ok(())
}

#[test]
fn every_setting_is_on_its_page() {
    let page = read("docs/settings.md");
    for file in ["broker-embedded/src/settings.rs", "streams-core/src/runtime/settings.rs"] {
        let source = read(file);
        let fields =
            source.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(':'));
        let names: Vec<&str> = fields.map(|(name, _)| name).filter(|n| !n.contains(' ')).collect();
        assert!(names.len() > 5, "{file} has settings: {names:?}");
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "{name} of {file} is not described");
        }
    }
    for (name, default) in broker_api::TopicConfig::default().entries() {
        assert!(page.contains(&format!("| `{name}` |")), "{name}={default} is not described");
    }
}

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}
