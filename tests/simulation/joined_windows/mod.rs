//! Tables of windows and of sessions that are joined with each other, where `suppress` lets only final
//! results into the join or out of it, or where every update goes through.

pub(crate) mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::sim::Dice;
use streams_core::{Topology, Windowed};
use streams_dsl::{BufferConfig, KTable, SessionWindows, Suppressed, TimeWindows};

use crate::applications::{Input, Output, joined, session, store};
use crate::cached::Cached;
use crate::history::History;
use crate::in_the_end::{InTheEnd, Settling};
use crate::oracle::Keeps;
use crate::replayed::{Replayed, record, topology};
use crate::subject::{INPUT, Subject};

/// What the tables are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The left one of records that begin with `l`, the right one of the others.
    Windows,
    /// The left one of all records, the right one of most: so that there are the same sessions in both.
    Sessions,
}

/// How they are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

/// Where only final results pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finals {
    Nowhere,
    BeforeTheJoin,
    BehindTheJoin,
}

/// How long windows are, in milliseconds.
const SIZE: i64 = 20;
/// The gap of sessions.
const GAP: i64 = 8;
const GRACE: i64 = 15;

/// An application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinedWindows {
    of: Of,
    kind: Kind,
    finals: Finals,
    caching: bool,
}

type Table = KTable<Windowed<String>, String>;

impl JoinedWindows {
    /// One without caches.
    pub(crate) fn subject(of: Of, dice: &mut Dice) -> Box<dyn Subject> {
        let this = Self::one_of(of, false, dice);
        let subject = || {
            let application = move || topology(|input| this.application(&input));
            Replayed::like(application, move |input| this.answers(input))
        };
        match this.finals {
            // Which side lets go first depends on the commits.
            Finals::BeforeTheJoin if dice.one_in(2) => Box::new(InTheEnd(this)),
            Finals::BeforeTheJoin => Box::new(subject().undivided()),
            _ => Box::new(subject()),
        }
    }

    /// One with caches.
    pub(crate) fn cached(of: Of, dice: &mut Dice) -> Box<dyn Subject> {
        let mut this = Self::one_of(of, true, dice);
        // Where one side's time is behind the other's, a session that still grows there is over behind the
        // join. Without caches it is told at each length, with caches at the last.
        if of == Of::Sessions && this.finals == Finals::BehindTheJoin {
            this.finals = Finals::Nowhere;
        }
        match this.finals {
            Finals::Nowhere => {
                Cached::of(move |input, caching| Self { caching, ..this }.application(&input))
            }
            _ => Box::new(InTheEnd(this)),
        }
    }

    fn one_of(of: Of, caching: bool, dice: &mut Dice) -> Self {
        let kind = dice.pick(&[Kind::Inner, Kind::Left, Kind::Outer]);
        let places = [Finals::Nowhere, Finals::BeforeTheJoin, Finals::BehindTheJoin];
        Self { of, kind, finals: dice.pick(&places), caching }
    }

    fn application(self, input: &Input) -> Output {
        let side = |is_left: bool, name: &str| -> Table {
            let records = input.filter(move |_, value| self.is_of(value, is_left)).group_by_key();
            let kept = store(name, self.caching);
            let fold = |all: String, value: String| format!("{all} {value}");
            let table = match self.of {
                Of::Windows => records
                    .windowed_by(TimeWindows::of(millis(SIZE)).grace(millis(GRACE)))
                    .reduce_with(fold, kept),
                Of::Sessions => records
                    .windowed_by(SessionWindows::of(millis(GAP)).grace(millis(GRACE)))
                    .reduce_with(fold, kept),
            };
            if self.finals == Finals::BeforeTheJoin { finals(&table) } else { table }
        };
        let (left, right) = (side(true, "left"), side(false, "right"));
        let joined = match self.kind {
            Kind::Inner => left.join(&right, |_, l, r| joined(l, Some(r))),
            Kind::Left => left.left_join(&right, |_, l, r| joined(l, r)),
            Kind::Outer => {
                left.outer_join(&right, |_, l, r| joined(l.map_or("", String::as_str), r))
            }
        };
        let joined = if self.finals == Finals::BehindTheJoin { finals(&joined) } else { joined };
        joined.to_stream().map(|key, value| (session(&key), value))
    }

    /// Whether a value is one of the left table's, or of the right one's.
    fn is_of(self, value: &str, is_left: bool) -> bool {
        match self.of {
            Of::Windows => value.starts_with('l') == is_left,
            Of::Sessions => is_left || !value.ends_with(['3', '7']),
        }
    }
}

impl Settling for JoinedWindows {
    fn topology(&self) -> Topology {
        topology(|input| self.application(&input))
    }

    fn record(&self, name: &str, dice: &mut Dice) -> (String, Option<String>) {
        record(name, dice)
    }

    fn keeps(&self) -> Keeps {
        Keeps::Recent
    }

    fn result(&self, history: &History, partitions: u32) -> BTreeMap<String, String> {
        let answers = (0..partitions).flat_map(|p| self.answers(history.records(INPUT, p)));
        // Final results are never deleted.
        answers.filter_map(|(key, value, _)| Some((key, value?))).collect()
    }
}

fn finals(table: &Table) -> Table {
    table.suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
}

fn millis(n: i64) -> Duration {
    Duration::from_millis(n.unsigned_abs())
}
