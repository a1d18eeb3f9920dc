//! Joins of two streams: topic `a` is the left side, `b` the right one.
//!
//! The quirk: Kafka remembers a lower bound of the times of waiting records, and does not look for
//! expired ones while that bound plus the *present* side's window has not passed. The bound is set
//! by the last look, to a time that may be too high. So results come later than they could.

use std::collections::BTreeMap;

use super::{Reference, Row};

pub(crate) struct StreamJoin {
    left_waits: bool,
    right_waits: bool,
    before: i64,
    after: i64,
    grace: i64,
    quirk: bool,
    stream_time: i64,
    /// By side: what it has kept, and its newest time.
    kept: [Vec<(String, i64, String)>; 2],
    newest: [i64; 2],
    /// By time, side and key.
    waiting: BTreeMap<(i64, usize, String), Vec<String>>,
    /// Kafka's lower bound.
    bound: i64,
}

const RIGHT: usize = 0;
const LEFT: usize = 1;

impl StreamJoin {
    /// `stream-stream-[asymmetric-]KIND-graceN`.
    pub(crate) fn of_case(case: &str, quirk: bool) -> Option<Self> {
        let (case, grace) = case.strip_prefix("stream-stream-")?.rsplit_once("-grace")?;
        let (kind, before, after) = match case.strip_prefix("asymmetric-") {
            Some(kind) => (kind, 3, 12),
            None => (case, 10, 10),
        };
        Some(Self {
            left_waits: kind != "inner",
            right_waits: kind == "outer",
            before,
            after,
            grace: grace.parse().ok()?,
            quirk,
            stream_time: -1,
            kept: Default::default(),
            newest: [-1; 2],
            waiting: BTreeMap::new(),
            bound: i64::MAX,
        })
    }

    /// How long a record of this side waits for later ones of the other.
    fn wait(&self, side: usize) -> i64 {
        if side == LEFT { self.after } else { self.before }
    }

    fn joined(side: usize, this: &str, other: &str) -> Option<String> {
        Some(if side == LEFT { format!("{this}+{other}") } else { format!("{other}+{this}") })
    }

    fn expired(&mut self, side: usize) -> Vec<Row> {
        if self.quirk {
            let passed = self.stream_time - self.wait(side) - self.grace;
            if self.bound >= passed {
                return vec![];
            }
            self.bound = i64::MAX;
        }
        let mut out = vec![];
        let mut open = [false; 2];
        // Kafka's look goes value by value, also where several wait under one key.
        let waiting = self.waiting.clone();
        let each = waiting.iter().flat_map(|(key, values)| values.iter().map(move |v| (key, v)));
        for ((time, waits, key), value) in each {
            self.bound = *time;
            if open == [true; 2] {
                break;
            }
            if time + self.wait(*waits) + self.grace >= self.stream_time {
                open[*waits] = true;
                continue;
            }
            out.push((Some(key.clone()), Self::joined(*waits, value, "null"), *time));
            self.waiting.remove(&(*time, *waits, key.clone()));
        }
        out
    }
}

impl Reference for StreamJoin {
    fn process(
        &mut self,
        topic: &str,
        key: Option<String>,
        value: Option<String>,
        time: i64,
    ) -> Vec<Row> {
        let side = if topic == "a" { LEFT } else { RIGHT };
        let other = 1 - side;
        let waits = if side == LEFT { self.left_waits } else { self.right_waits };
        if let (Some(key), Some(value)) = (&key, &value) {
            self.newest[side] = time.max(self.newest[side]);
            self.kept[side].push((key.clone(), time, value.clone()));
        }
        self.stream_time = time.max(self.stream_time);
        let Some(value) = value else { return vec![] };
        let Some(key) = key else {
            let alone = (None, Self::joined(side, &value, "null"), time);
            return if waits { vec![alone] } else { vec![] };
        };
        let mut out =
            if self.left_waits && time == self.stream_time { self.expired(side) } else { vec![] };

        let (from, to) = (time - self.wait(other), time + self.wait(side));
        let retained = self.newest[other] - (self.before + self.after + self.grace);
        let near = |(k, t, _): &&(String, i64, String)| {
            *k == key && (from..=to).contains(t) && *t > retained
        };
        let mut partners: Vec<_> = self.kept[other].iter().filter(near).cloned().collect();
        partners.sort_by_key(|(_, time, _)| *time); // stable
        for (_, at, partner) in &partners {
            self.waiting.remove(&(*at, other, key.clone()));
            out.push((Some(key.clone()), Self::joined(side, &value, partner), time.max(*at)));
        }
        if partners.is_empty() && waits {
            if to < self.stream_time {
                out.push((Some(key), Self::joined(side, &value, "null"), time));
            } else {
                self.bound = self.bound.min(time);
                self.waiting.entry((time, side, key)).or_default().push(value);
            }
        }
        out
    }
}
