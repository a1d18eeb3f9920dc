//! Tables of windows and of sessions that are joined with each other, where `suppress` lets only final
//! results into the join or out of it, or where every update goes through; in some runs one side's time is far
//! behind the other's.

pub(crate) mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use broker_api::sim::Dice;
use streams_core::processor::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
use streams_core::{ProcessError, Topology, Windowed};
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

/// Less than an hour: so far back everything is found.
const LAG: i64 = 10 * 60 * 1000;

/// An application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinedWindows {
    of: Of,
    kind: Kind,
    finals: Finals,
    caching: bool,
    /// How far the right side's time is behind, in milliseconds: once time has leapt so far, its records fall
    /// into windows of the left side that have expired long ago.
    lag: i64,
}

type Table = KTable<Windowed<String>, String>;

impl JoinedWindows {
    /// One without caches.
    pub(crate) fn subject(of: Of, dice: &mut Dice) -> Box<dyn Subject> {
        let this = Self::one_of(of, false, dice);
        let subject = || {
            let application = move || topology(|input| this.application(&input));
            Replayed::like(application, move |input| this.answers(input)).leaping(this.leap())
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
            Finals::Nowhere => Cached::of(
                move |input, caching| Self { caching, ..this }.application(&input),
                this.leap(),
            ),
            _ => Box::new(InTheEnd(this)),
        }
    }

    fn one_of(of: Of, caching: bool, dice: &mut Dice) -> Self {
        let kind = dice.pick(&[Kind::Inner, Kind::Left, Kind::Outer]);
        let places = [Finals::Nowhere, Finals::BeforeTheJoin, Finals::BehindTheJoin];
        Self { of, kind, finals: dice.pick(&places), caching, lag: dice.pick(&[0, LAG]) }
    }

    fn application(self, input: &Input) -> Output {
        let side = |is_left: bool, name: &str| -> Table {
            let records = input.filter(move |_, value| self.is_of(value, is_left));
            let behind = if is_left { 0 } else { self.lag };
            let records = records.process_values(move || Behind(behind)).group_by_key();
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

    fn leap(&self) -> Option<Duration> {
        (self.lag > 0).then(|| millis(self.lag))
    }

    fn result(&self, history: &History, partitions: u32) -> BTreeMap<String, String> {
        let answers = (0..partitions).flat_map(|p| self.answers(history.records(INPUT, p)));
        // Final results are never deleted.
        answers.filter_map(|(key, value, _)| Some((key, value?))).collect()
    }
}

/// Takes so many milliseconds off the time of each record.
struct Behind(i64);

impl FixedKeyProcessor for Behind {
    type Key = String;
    type VIn = String;
    type VOut = String;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        cx: &mut FixedKeyContext<'_, '_, String, String>,
    ) -> Result<(), ProcessError> {
        let time = record.timestamp() - self.0;
        cx.forward(record.with_timestamp(time));
        Ok(())
    }
}

fn finals(table: &Table) -> Table {
    table.suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
}

fn millis(n: i64) -> Duration {
    Duration::from_millis(n.unsigned_abs())
}
