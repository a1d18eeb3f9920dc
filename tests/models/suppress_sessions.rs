//! Sessions, suppressed until they close.
//!
//! The quirk: Kafka takes a session for closed at the very moment when the last update may still come,
//! and so may send two final results for one session. We wait a millisecond longer.

use std::collections::BTreeMap;

use super::{Reference, Row, Sessions};

const GAP: i64 = 6;

pub(crate) struct SuppressSessions {
    sessions: Sessions,
    closes_after: i64,
    stream_time: i64,
    /// By end, key and start: the last value and its time.
    waiting: BTreeMap<(i64, String, i64), (Option<String>, i64)>,
}

impl SuppressSessions {
    /// `suppress-session-graceN`.
    pub(crate) fn of_case(case: &str, quirk: bool) -> Option<Self> {
        let case = case.strip_prefix("suppress-")?;
        let grace: i64 = case.strip_prefix("session-grace")?.parse().ok()?;
        Some(Self {
            sessions: Sessions::of_case(case, quirk)?,
            closes_after: GAP + grace + i64::from(!quirk),
            stream_time: -1,
            waiting: BTreeMap::new(),
        })
    }

    /// The place of `key@start/end` in the order.
    fn place(windowed: &str) -> Option<(i64, String, i64)> {
        let (key, window) = windowed.rsplit_once('@')?;
        let (start, end) = window.split_once('/')?;
        Some((end.parse().ok()?, key.into(), start.parse().ok()?))
    }
}

impl Reference for SuppressSessions {
    fn process(
        &mut self,
        topic: &str,
        key: Option<String>,
        value: Option<String>,
        time: i64,
    ) -> Vec<Row> {
        let mut out = vec![];
        for (windowed, value, time) in self.sessions.process(topic, key, value, time) {
            self.stream_time = time.max(self.stream_time);
            if let Some(place) = windowed.as_deref().and_then(Self::place) {
                self.waiting.insert(place, (value, time));
            }
            let open_from = (self.stream_time - self.closes_after + 1, String::new(), 0);
            let open = self.waiting.split_off(&open_from);
            for ((end, key, start), (value, time)) in std::mem::replace(&mut self.waiting, open) {
                if value.is_some() {
                    out.push((Some(format!("{key}@{start}/{end}")), value, time));
                }
            }
        }
        out
    }
}
