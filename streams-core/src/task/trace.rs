//! The way of records through the nodes of a task, as text, for tests that ask for it.

use broker_api::Timestamp;

/// What was seen since somebody looked.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: String,
    depth: usize,
}

impl Trace {
    /// A record comes to a node.
    pub(super) fn enter(&mut self, node: &str) {
        self.depth += 1;
        self.note(node);
    }

    /// And has been on all its ways from there.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Something happens there.
    pub(super) fn note(&mut self, what: &str) {
        let indent = "  ".repeat(self.depth);
        self.lines.extend([&*indent, what, "\n"]);
    }

    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }
}

/// A record for a reader: its bytes as they stand where they are ASCII.
pub(crate) fn record_text(key: Option<&[u8]>, value: Option<&[u8]>, time: Timestamp) -> String {
    let text = |bytes: Option<&[u8]>| {
        bytes.map_or_else(|| "null".into(), |bytes| format!("\"{}\"", bytes.escape_ascii()))
    };
    format!("{} = {} at {time}", text(key), text(value))
}
