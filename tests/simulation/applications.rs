//! Applications that are killed. Without caches, what each partition of their output must be is fixed by
//! the order of its input.

use std::time::Duration;

use streams_core::processor::{
    Context, InitContext, Processor, PunctuationKind, Schedule, StoreHandle,
};
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::topology::StoreSpec;
use streams_core::{BuildError, HasSerde, ProcessError, Record, Windowed};
use streams_dsl::{
    AsyncConfig, BufferConfig, EmitStrategy, JoinWindows, Joined, KStream, KTable, Materialized,
    ProcessorSupplier, SessionWindows, SlidingWindows, Suppressed, TimeWindows,
};

/// Two kinds of records: those whose values begin with `l`, and those with `r`.
pub(crate) type Input = KStream<String, String>;
/// What is written in the end.
pub(crate) type Output = KStream<String, Option<String>>;
/// An application.
pub(crate) type Application = fn(Input) -> Output;
/// An application with caches or without.
pub(crate) type Cacheable = fn(Input, bool) -> Output;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A window's key as text.
fn text(key: &Windowed<String>) -> String {
    format!("{}@{}", key.key, key.window.start)
}

/// A store of this name, which merges updates between commits if it is `caching`.
pub(crate) fn store<K: HasSerde, V: HasSerde>(
    name: impl Into<String>,
    caching: bool,
) -> Materialized<K, V> {
    let store = Materialized::named(name);
    if caching { store } else { store.with_caching_disabled() }
}

/// How many records there are in each of overlapping windows.
pub(crate) fn every_count(input: Input) -> Output {
    counts(input, false)
}

/// The same, with a cache or without.
pub(crate) fn counts(input: Input, caching: bool) -> Output {
    input
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).advance_by(millis(7)).grace(millis(15)))
        .count_with(store("counts", caching))
        .to_stream()
        .map(|key, count| (text(&key), count.map(|n| n.to_string())))
}

/// How many records there were in each window.
pub(crate) fn last_count(input: Input) -> Output {
    input
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).grace(millis(15)))
        .emit_strategy(EmitStrategy::on_window_close())
        .count_with(Materialized::named("counts"))
        .to_stream()
        .map(|key, count| (text(&key), count.map(|n| n.to_string())))
}

/// The values in each sliding window.
pub(crate) fn every_slide(input: Input) -> Output {
    slides(input, false)
}

/// The same, with a cache or without.
pub(crate) fn slides(input: Input, caching: bool) -> Output {
    slid(&input, EmitStrategy::on_window_update(), caching)
}

/// The values that were in each sliding window in the end.
pub(crate) fn last_slide(input: Input) -> Output {
    slid(&input, EmitStrategy::on_window_close(), false)
}

fn slid(input: &Input, emit: EmitStrategy, caching: bool) -> Output {
    let windowed =
        input.group_by_key().windowed_by(SlidingWindows::of(millis(12)).grace(millis(15)));
    windowed
        .emit_strategy(emit)
        .reduce_with(|all, value| format!("{all} {value}"), store("slid", caching))
        .to_stream()
        .map(|key, values| (text(&key), values))
}

/// The values of two streams in each session.
pub(crate) fn every_session(input: Input) -> Output {
    sessions(input, false)
}

/// The same, with a cache or without.
pub(crate) fn sessions(input: Input, caching: bool) -> Output {
    let side = |name: char| input.filter(move |_, value| value.starts_with(name)).group_by_key();
    side('l')
        .cogroup(|_, value, so_far: String| format!("{so_far} {value}"))
        .cogroup(&side('r'), |_, value, so_far| format!("{so_far} <{value}>"))
        .windowed_by(SessionWindows::of(millis(8)).grace(millis(15)))
        .aggregate_with(
            String::new,
            |_, earlier, later| format!("({earlier} |{later})"),
            store("sessions", caching),
        )
        .to_stream()
        .map(|key, values| (session(&key), values))
}

/// The values that were in each session in the end.
pub(crate) fn last_session(input: Input) -> Output {
    input
        .group_by_key()
        .windowed_by(SessionWindows::of(millis(8)).grace(millis(15)))
        .emit_strategy(EmitStrategy::on_window_close())
        .reduce_with(|all, value| format!("{all} {value}"), Materialized::named("sessions"))
        .to_stream()
        .map(|key, values| (session(&key), values))
}

/// A session's key as text.
pub(crate) fn session(key: &Windowed<String>) -> String {
    format!("{}-{}", text(key), key.window.end)
}

/// A left join of two streams, where what finds no partner waits for its time.
pub(crate) fn every_pair(input: Input) -> Output {
    pairs(&input).map_values(|_, pair| Some(pair))
}

fn pairs(input: &Input) -> KStream<String, String> {
    let side = |name: char| input.filter(move |_, value| value.starts_with(name));
    let pair = |_: &String, left: &String, right: Option<&String>| match right {
        Some(right) => format!("{left}+{right}"),
        None => format!("{left}+"),
    };
    let windows = JoinWindows::of(millis(15)).grace(millis(10));
    side('l').left_join(&side('r'), pair, windows)
}

/// What a table, made of the right side, says when a record of the left one comes.
pub(crate) fn as_last_said(input: Input) -> Output {
    let side = |name: char| input.filter(move |_, value| value.starts_with(name));
    let right = side('r').map_values(|_, value| (!value.ends_with('7')).then_some(value));
    let table = right.to_table_with::<String>(Materialized::named("last"));
    side('l').left_join_table(&table, |_, left, right| {
        Some(format!("{left}+{}", right.map_or("", String::as_str)))
    })
}

/// What came last of each key, reported as stream time passes.
pub(crate) fn every_report(input: Input) -> Output {
    input.process(Reports)
}

struct Reports;

impl ProcessorSupplier for Reports {
    type Processor = Report;

    fn processor(&self) -> Report {
        Report::default()
    }

    fn stores(&self) -> Vec<StoreSpec> {
        let options = StoreOptions::default();
        vec![StoreSpec::key_value("last", String::serde(), String::serde(), options)]
    }
}

#[derive(Default)]
struct Report(Option<StoreHandle<KeyValueStore<String, String>>>);

impl Report {
    fn last(&self) -> Result<StoreHandle<KeyValueStore<String, String>>, ProcessError> {
        self.0.ok_or_else(|| ProcessError::user("it has no store"))
    }
}

impl Processor for Report {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = Option<String>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("last")?);
        cx.schedule(millis(10), PunctuationKind::StreamTime)?;
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, Option<String>>,
    ) -> Result<(), ProcessError> {
        cx.store(self.last()?).put(record.key, Some(record.value), record.timestamp)?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        _: Schedule,
        now: i64,
        cx: &mut Context<'_, String, Option<String>>,
    ) -> Result<(), ProcessError> {
        for (key, value, _) in cx.store(self.last()?).all()? {
            cx.forward(Record::new(key, Some(format!("{value} at {now}")), now));
        }
        Ok(())
    }
}

/// What a versioned table, made of the right side, said at the time of each record of the left one; or,
/// with a grace, what it says of that time a little later.
pub(crate) fn as_of(input: Input) -> Output {
    versions(&input, Joined::default())
}

/// The same, where the left side waits for late versions.
pub(crate) fn as_of_a_little_later(input: Input) -> Output {
    versions(&input, Joined::named("later").with_grace(millis(20)))
}

fn versions(input: &Input, joined: Joined<String, String, String>) -> Output {
    let side = |name: char| input.filter(move |_, value| value.starts_with(name));
    let history = Materialized::versioned("history", millis(60));
    // Every seventh deletes.
    let right = side('r').map_values(|_, value| (!value.ends_with('7')).then_some(value));
    let pair = |_: &String, left: &String, right: Option<&String>| {
        Some(format!("{left}+{}", right.map_or("", String::as_str)))
    };
    side('l').left_join_table_with(&right.to_table_with::<String>(history), pair, joined)
}

/// An outer join of two tables.
pub(crate) fn every_row(input: Input) -> Output {
    let table = |side: char, store| -> KTable<String, String> {
        let rows = input.filter(move |_, value| value.starts_with(side));
        let rows = rows.map_values(|_, value| (!value.ends_with('7')).then_some(value));
        rows.to_table_with(Materialized::named(store).with_caching_disabled())
    };
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    table('l', "left")
        .outer_join(&table('r', "right"), move |_, l, r| format!("{}+{}", text(l), text(r)))
        .to_stream()
}

/// The pairs of each window, suppressed until it closes: two operators that wait, one behind the other.
pub(crate) fn last_pairs(input: Input) -> Output {
    pairs(&input)
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).grace(millis(30)))
        .reduce_with(
            |all, pair| format!("{all} {pair}"),
            Materialized::named("pairs").with_caching_disabled().in_memory(),
        )
        .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        .to_stream()
        .map(|key, pairs| (text(&key), pairs))
}

/// The values of each window, suppressed until it closes, behind a cache or not.
pub(crate) fn final_values(input: Input, caching: bool) -> Output {
    input
        .group_by_key()
        .windowed_by(TimeWindows::of(millis(20)).grace(millis(15)))
        .reduce_with(|all, value| format!("{all} {value}"), store("values", caching))
        .suppress(Suppressed::until_window_closes(BufferConfig::unbounded()))
        .to_stream()
        .map(|key, values| (text(&key), values))
}

/// The last update of each key within a time, or before there are too many.
pub(crate) fn some_updates(input: Input) -> Output {
    let limit = Suppressed::until_time_limit(millis(25), BufferConfig::max_records(3));
    input.to_table().suppress(limit).to_stream()
}

/// Orders (`l`) joined with the customers (`r`) that they refer to, `>` in front of the key; those without
/// one only if it `is_left`.
pub(crate) fn by_foreign_key(input: &Input, is_left: bool, caching: bool) -> Output {
    let table = |side: char| {
        let kept = store(format!("rows-{side}"), caching);
        let rows = input.filter(move |_, value| value.starts_with(side));
        rows.map_values(|_, value| row(&value)).to_table_with::<String>(kept)
    };
    let (left, right) = (table('l'), table('r'));
    let other = |_: &String, row: &String| refers_to(row);
    match is_left {
        true => left.left_join_on_foreign_key(&right, other, |_, l, r| joined(l, r)),
        false => left.join_on_foreign_key(&right, other, |_, l, r| joined(l, Some(r))),
    }
    .to_stream()
}

/// A row, or its deletion.
pub(crate) fn row(value: &str) -> Option<String> {
    (!value.ends_with('-')).then(|| value.to_owned())
}

/// The row that a left row refers to.
pub(crate) fn refers_to(value: &str) -> Option<String> {
    Some(value.split_once('>')?.1.to_owned())
}

pub(crate) fn joined(left: &str, right: Option<&String>) -> String {
    format!("{left}+{}", right.map_or("", String::as_str))
}

/// Asks for each value, and counts the answers; some are errors.
pub(crate) fn some_calls(input: Input) -> Output {
    let config = AsyncConfig::new().concurrency(3);
    let answered = input.map_values_async_with(
        |_, value: String| async move {
            let refused = value.bytes().map(u32::from).sum::<u32>() % 7 == 0;
            if refused { Err("nobody knows") } else { Ok(format!("answer to {value}")) }
        },
        config,
    );
    let counts = Materialized::named("counts").with_caching_disabled();
    let counted = answered.group_by_key().count_with(counts).to_stream_present();
    let counted = counted.map_values(|_, count| Some(count.to_string()));
    answered.map_values(|_, answer| Some(answer)).merge(&counted)
}
