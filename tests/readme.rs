//! What the documents show is what there is.

use std::fs::read_to_string;

#[test]
fn the_readme_shows_the_example_in_full() {
    let (readme, example) = (read("README.md"), read("examples/word_count.rs"));
    assert!(readme.contains(&format!("```rust\n{}\n```\n", example.trim_end())));
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
