//! Sessions with a gap of 6, of topic `a`; in a cogroup also of topic `b`, whose values come in brackets.
//!
//! The quirks: Kafka's store hides a session once it is as old as gap and grace together, a millisecond
//! before it is closed. Without a cache such a session is not merged any more. With one it is, even long after
//! it was closed, for as long as the cache has it; but its tombstone is left out, because at the flush the
//! store is asked for the old value. In a cogroup each stream has a stream time of its own.

use std::collections::BTreeMap;

use super::{Reference, Row};

const GAP: i64 = 6;

pub(crate) struct Sessions {
    grace: i64,
    on_close: bool,
    quirk: bool,
    /// By topic; ours is one for all.
    stream_times: BTreeMap<String, i64>,
    /// The end of the newest session.
    store_time: i64,
    /// By key, then by end and start.
    sessions: BTreeMap<String, BTreeMap<(i64, i64), String>>,
    /// What ends before this has been emitted on closing.
    emitted: i64,
}

impl Sessions {
    /// `session-[on-close-]graceN` and `cogroup-session`.
    pub(crate) fn of_case(case: &str, quirk: bool) -> Option<Self> {
        let (on_close, grace) = match case.strip_prefix("session-on-close-grace") {
            Some(grace) => (true, grace),
            None if case == "cogroup-session" => (false, "5"),
            None => (false, case.strip_prefix("session-grace")?),
        };
        Some(Self {
            grace: grace.parse().ok()?,
            on_close,
            quirk,
            stream_times: BTreeMap::new(),
            store_time: -1,
            sessions: BTreeMap::new(),
            emitted: 0,
        })
    }

    fn row(key: &str, (end, start): (i64, i64), value: Option<String>) -> Row {
        (Some(format!("{key}@{start}/{end}")), value, end)
    }

    /// Emits what has closed, ordered by end, start and key.
    fn closed(&mut self, before: i64) -> Vec<Row> {
        let mut closed = vec![];
        for (key, sessions) in &self.sessions {
            for (session, value) in sessions.range((self.emitted, 0)..(before.max(0), 0)) {
                closed.push((*session, key, value));
            }
        }
        closed.sort();
        self.emitted = self.emitted.max(before);
        let row = |(session, key, value): ((i64, i64), &String, &String)| {
            Self::row(key, session, Some(value.clone()))
        };
        closed.into_iter().map(row).collect()
    }
}

impl Reference for Sessions {
    fn process(
        &mut self,
        topic: &str,
        key: Option<String>,
        value: Option<String>,
        time: i64,
    ) -> Vec<Row> {
        let Some(key) = key else { return vec![] };
        let whose = if self.quirk { topic } else { "all" };
        let stream_time = self.stream_times.entry(whose.into()).or_insert(-1);
        *stream_time = time.max(*stream_time);
        let open_since = *stream_time - self.grace - GAP;
        // What ends here or earlier is hidden by Kafka's store.
        let hidden = self.store_time - self.grace - GAP;

        let sessions = self.sessions.entry(key.clone()).or_default();
        let is_found = |(end, start): (i64, i64)| {
            end >= time - GAP
                && start <= time + GAP
                && match (self.quirk, self.on_close) {
                    (true, true) => end > hidden,
                    (true, false) => true,
                    (false, _) => end >= open_since,
                }
        };
        let found: Vec<_> = sessions.keys().copied().filter(|session| is_found(*session)).collect();
        let start = found.iter().map(|(_, start)| *start).chain([time]).min().unwrap_or(time);
        let end = found.iter().map(|(end, _)| *end).chain([time]).max().unwrap_or(time);
        let mut out = vec![];
        if end >= open_since {
            let mut merged = String::new();
            for session in found {
                merged += &sessions.remove(&session).unwrap_or_default();
                let is_forgotten = self.quirk && session.0 <= hidden;
                if session != (end, start) && !is_forgotten {
                    out.push(Self::row(&key, session, None));
                }
            }
            let value = value.as_deref().unwrap_or("null");
            merged += &if topic == "b" { format!("<{value}>") } else { value.into() };
            out.push(Self::row(&key, (end, start), Some(merged.clone())));
            sessions.insert((end, start), merged);
            self.store_time = end.max(self.store_time);
        }
        if self.on_close { self.closed(open_since) } else { out }
    }
}
