//! What joins of windows and sessions come to, in plain maps: every row is found, however long ago its
//! window closed.

use std::collections::BTreeMap;

use broker_api::Timestamp;

use super::{Finals, GAP, GRACE, JoinedWindows, Kind, Of, SIZE};
use crate::applications::joined;
use crate::history::Seen;
use crate::replayed::Row;

/// Key, end and start of a window.
type Place = (String, Timestamp, Timestamp);

type Rows = BTreeMap<Place, (String, Timestamp)>;

/// Something happens to a row.
#[derive(Clone)]
struct Update {
    place: Place,
    value: Option<String>,
    /// There was a row before.
    replaces: bool,
    time: Timestamp,
}

impl JoinedWindows {
    /// What the records of a partition are answered.
    pub(super) fn answers(self, input: &[Seen]) -> Vec<Row> {
        let mut tables = [Table::default(), Table::default()];
        let mut before = [Held::default(), Held::default()];
        let mut join = Join { kind: self.kind, rows: Default::default() };
        let mut behind = Held::default();
        let mut answers = Vec::new();
        for record in input {
            let (key, value) = (record.key_text(), record.text().unwrap_or_default());
            for side in [0, 1] {
                if !self.is_of(&value, side == 0) {
                    continue;
                }
                let time = record.timestamp - if side == 0 { 0 } else { self.lag };
                for update in tables[side].add(self.of, &key, &value, time) {
                    let updates = match self.finals {
                        Finals::BeforeTheJoin => before[side].pass(self.of, update),
                        _ => vec![update],
                    };
                    for result in updates.into_iter().filter_map(|update| join.pass(side, update)) {
                        answers.extend(match self.finals {
                            Finals::BehindTheJoin => behind.pass(self.of, result),
                            _ => vec![result],
                        });
                    }
                }
            }
        }
        let row = |Update { place: (key, end, start), value, time, .. }: Update| {
            (format!("{key}@{start}-{end}"), value, time)
        };
        answers.into_iter().map(row).collect()
    }
}

/// The values of each window, one after the other.
struct Table {
    /// The highest time of a record so far.
    time: Timestamp,
    rows: Rows,
}

impl Default for Table {
    fn default() -> Self {
        Self { time: -1, rows: Rows::new() }
    }
}

impl Table {
    fn add(&mut self, of: Of, key: &str, value: &str, at: Timestamp) -> Vec<Update> {
        self.time = self.time.max(at);
        match of {
            Of::Windows => self.add_to_window(key, value, at),
            Of::Sessions => self.add_to_session(key, value, at),
        }
    }

    fn add_to_window(&mut self, key: &str, value: &str, at: Timestamp) -> Vec<Update> {
        let start = at - at % SIZE;
        let place = (key.to_owned(), start + SIZE, start);
        if start + SIZE + GRACE <= self.time {
            return Vec::new();
        }
        let before = self.rows.get(&place);
        let (value, time) = match before {
            Some((so_far, time)) => (format!("{so_far} {value}"), at.max(*time)),
            None => (value.to_owned(), at),
        };
        let replaces = before.is_some();
        self.rows.insert(place.clone(), (value.clone(), time));
        vec![Update { place, value: Some(value), replaces, time }]
    }

    /// What is within the gap becomes one session; those that it was are deleted first.
    fn add_to_session(&mut self, key: &str, value: &str, at: Timestamp) -> Vec<Update> {
        let open_since = self.time - GAP - GRACE;
        let near = self.rows.keys().filter(|(of, end, start)| {
            of == key && *end >= open_since.max(at - GAP) && *start <= at + GAP
        });
        let near: Vec<Place> = near.cloned().collect();
        let start = near.iter().map(|(.., start)| *start).chain([at]).min().unwrap_or(at);
        let end = near.iter().map(|(_, end, _)| *end).chain([at]).max().unwrap_or(at);
        if end < open_since {
            return Vec::new();
        }
        let (mut updates, mut values) = (Vec::new(), Vec::new());
        for place in near {
            values.extend(self.rows.remove(&place).map(|(value, _)| value));
            let time = place.1;
            updates.push(Update { place, value: None, replaces: true, time });
        }
        if (start, end) == (at, at) {
            updates.clear(); // it is not deleted first
        }
        values.push(value.to_owned());
        let (place, value) = ((key.to_owned(), end, start), values.join(" "));
        self.rows.insert(place.clone(), (value.clone(), end));
        updates.push(Update { place, value: Some(value), replaces: false, time: end });
        updates
    }
}

/// What waits for its window to close.
struct Held {
    /// The highest time of an update so far.
    time: Timestamp,
    /// By end, key and start.
    waiting: BTreeMap<(Timestamp, String, Timestamp), Update>,
}

impl Default for Held {
    fn default() -> Self {
        Self { time: -1, waiting: BTreeMap::new() }
    }
}

impl Held {
    /// Takes an update; the final results that it lets go.
    fn pass(&mut self, of: Of, update: Update) -> Vec<Update> {
        self.time = self.time.max(update.time);
        let (key, end, start) = update.place.clone();
        self.waiting.insert((end, key, start), update);
        // Something may still come into a session when time is just at its end.
        let open_for = if of == Of::Windows { GRACE } else { GAP + GRACE + 1 };
        let open = self.waiting.split_off(&(self.time - open_for + 1, String::new(), 0));
        let closed = std::mem::replace(&mut self.waiting, open).into_values();
        closed.filter(|update| update.value.is_some()).collect()
    }
}

struct Join {
    kind: Kind,
    rows: [Rows; 2],
}

impl Join {
    /// Takes an update of a side; its result, if it has one.
    fn pass(&mut self, side: usize, update: Update) -> Option<Update> {
        let Update { place, value, replaces, time } = update;
        match value.clone() {
            Some(value) => self.rows[side].insert(place.clone(), (value, time)),
            None => self.rows[side].remove(&place),
        };
        let other = self.rows[1 - side].get(&place);
        let needs_other = match self.kind {
            Kind::Inner => true,
            Kind::Left => side == 1,
            Kind::Outer => false,
        };
        if other.is_none() && (needs_other || value.is_none() && !replaces) {
            return None;
        }
        let time = other.map_or(time, |(_, of_other)| time.max(*of_other));
        let (this, other) = (value.as_ref(), other.map(|(value, _)| value));
        let (left, right) = if side == 0 { (this, other) } else { (other, this) };
        let is_there = match self.kind {
            Kind::Inner => left.is_some() && right.is_some(),
            Kind::Left => left.is_some(),
            Kind::Outer => left.is_some() || right.is_some(),
        };
        let value = is_there.then(|| joined(left.map_or("", String::as_str), right));
        Some(Update { place, value, replaces: true, time })
    }
}
