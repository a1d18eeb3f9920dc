//! Sliding windows that emit when they close.
//!
//! The quirk: Kafka finds windows to emit by a scan that no longer shows what is older than the store's
//! retention. If stream time jumps, windows are never emitted. (Tumbling windows escape that where their
//! store is cached: what the present record does is not in it yet.)

use std::collections::BTreeMap;

use super::{Reference, Row};

const SIZE: i64 = 10;

pub(crate) struct SlidingOnClose {
    grace: i64,
    quirk: bool,
    stream_time: i64,
    /// The newest start of a window.
    store_time: i64,
    /// Windows that begin here or earlier have been emitted.
    emitted: i64,
    /// By start and key: aggregate and time.
    windows: BTreeMap<(i64, String), (String, i64)>,
}

impl SlidingOnClose {
    /// `sliding-on-close-graceN`.
    pub(crate) fn of_case(case: &str, quirk: bool) -> Option<Self> {
        Some(Self {
            grace: case.strip_prefix("sliding-on-close-grace")?.parse().ok()?,
            quirk,
            stream_time: -1,
            store_time: -1,
            emitted: -1,
            windows: BTreeMap::new(),
        })
    }

    fn retention(&self) -> i64 {
        2 * SIZE + self.grace
    }

    /// Windows that begin here or earlier are closed.
    fn closed(&self) -> i64 {
        self.stream_time - self.grace - SIZE - 1
    }

    /// The windows of a key that begin between two times, as far as the store shows them.
    fn of_key(&self, key: &str, from: i64, to: i64) -> Vec<(i64, String, i64)> {
        let live = (self.store_time - self.retention() + 1).max(from);
        let windows =
            self.windows.iter().filter(|((start, of), _)| of == key && (live..=to).contains(start));
        windows.map(|((start, _), (value, time))| (*start, value.clone(), *time)).collect()
    }

    fn put(&mut self, key: &str, start: i64, value: String, time: i64) {
        self.store_time = start.max(self.store_time);
        self.windows.insert((start, key.to_string()), (value, time));
    }

    /// Appends to a window, unless it is closed.
    fn add(&mut self, key: &str, start: i64, so_far: &str, (value, time): (&str, i64)) {
        if start > self.closed() {
            self.put(key, start, format!("{so_far}{value}"), time);
        }
    }

    /// The end of a record's left window is its time. Before the first one there is only one left window.
    fn slide(&mut self, key: &str, value: &str, time: i64) {
        let left = (time - SIZE).max(0);
        let early = time < SIZE;
        let known = self.of_key(key, if early { 0 } else { time - 2 * SIZE }, time + 1);
        let at = |start| known.iter().find(|window| window.0 == start);
        let mut around = known.iter().filter(|window| left < window.0 && window.0 <= time);
        for (start, so_far, latest) in around.clone() {
            self.add(key, *start, so_far, (value, time.max(*latest)));
        }
        // Not the left window, even if that knows of a later record: as in Kafka.
        let before = known.iter().rfind(|window| window.0 < left).or(at(left));
        let after = around.next_back().or(at(left).filter(|_| early));
        if !early && let Some((_, so_far, latest)) = at(left) {
            self.add(key, left, so_far, (value, time.max(*latest)));
            if *latest >= time {
                return;
            }
        }
        let previous = before.map(|window| window.2).filter(|previous| *previous < time);
        if let Some(right) = previous.map(|previous| previous + 1)
            && right >= left
            && at(right).is_none()
        {
            self.add(key, right, "", (value, time));
        }
        let from_left = before.filter(|window| early || window.2 >= left);
        if early || at(left).is_none() {
            let (so_far, latest) = from_left.map_or(("", time), |w| (w.1.as_str(), w.2));
            self.add(key, left, so_far, (value, time.max(latest)));
        }
        if let Some((_, so_far, latest)) = after.filter(|window| window.2 > time)
            && at(time + 1).is_none()
        {
            self.put(key, time + 1, so_far.clone(), *latest);
        }
    }
}

impl Reference for SlidingOnClose {
    fn process(
        &mut self,
        _: &str,
        key: Option<String>,
        value: Option<String>,
        time: i64,
    ) -> Vec<Row> {
        let (Some(key), Some(value)) = (key, value) else { return vec![] };
        self.stream_time = time.max(self.stream_time);
        if time > self.closed() {
            self.slide(&key, &value, time);
        }
        let closed = self.closed();
        let shown = if self.quirk { self.store_time - self.retention() } else { 0 };
        let due = self.windows.iter().filter(|((start, _), _)| {
            (self.emitted + 1..=closed).contains(start) && *start >= shown
        });
        let row = |((start, key), (value, time)): (&(i64, String), &(String, i64))| {
            (Some(format!("{key}@{start}/{}", start + SIZE)), Some(value.clone()), *time)
        };
        let out = due.map(row).collect();
        self.emitted = closed.max(self.emitted);
        out
    }
}
