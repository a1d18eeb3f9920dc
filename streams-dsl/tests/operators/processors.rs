//! Processors written by hand: schedules, stores, children by name.

use std::time::Duration;

use streams_core::processor::{
    Context, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, InitContext, Processor,
    PunctuationKind, Schedule, StoreHandle,
};
use streams_core::state::{KeyValueStore, StoreOptions};
use streams_core::test_driver::TopologyTestDriver;
use streams_core::topology::StoreSpec;
use streams_core::{BuildError, HasSerde, ProcessError, Record};
use streams_dsl::{Consumed, ProcessorSupplier, StreamsBuilder};

use crate::{driver, s, step};

/// Forwards the time of each call of its schedule, and cancels that after some calls.
#[derive(Default)]
struct Clock {
    kind: Option<PunctuationKind>,
    start: Option<i64>,
    calls_left: Option<u32>,
}

impl Processor for Clock {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        let (every, kind) = (Duration::from_millis(10), self.kind.unwrap());
        match self.start {
            Some(start) => cx.schedule_from(start, every, kind)?,
            None => cx.schedule(every, kind)?,
        };
        Ok(())
    }

    fn process(
        &mut self,
        _: Record<String, String>,
        _: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        Ok(())
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        timestamp: i64,
        cx: &mut Context<'_, String, i64>,
    ) -> Result<(), ProcessError> {
        assert_eq!(Some(schedule.kind()), self.kind);
        cx.forward(Record::new(s("at"), timestamp, timestamp));
        if let Some(left) = &mut self.calls_left {
            *left -= 1;
            if *left == 0 {
                cx.cancel(schedule);
            }
        }
        Ok(())
    }
}

fn clock(start: Option<i64>, calls_left: Option<u32>, kind: PunctuationKind) -> TopologyTestDriver {
    let b = StreamsBuilder::new();
    let kind = Some(kind);
    b.stream::<String, String>("a").process(move || Clock { kind, start, calls_left }).to("out");
    driver(&b)
}

fn calls_at(driver: &TopologyTestDriver, times: &[i64]) -> Vec<i64> {
    let called = |&ts: &i64| step::<_, _, String, i64>(driver, s("k"), s("v"), ts);
    times.iter().flat_map(called).map(|(_, value, _)| value).collect()
}

#[test]
fn f24_stream_time_punctuation_comes_with_the_first_record_and_then_at_multiples() {
    let driver = clock(None, None, PunctuationKind::StreamTime);
    let times = [20, 25, 142, 145, 155, 159, 160, 161];
    assert_eq!(calls_at(&driver, &times), [20, 142, 155, 160]);
}

#[test]
fn f24_wall_clock_punctuation_comes_one_interval_from_the_start_and_missed_calls_become_one() {
    let driver = clock(None, None, PunctuationKind::WallClock);
    let called = |by: &u64| {
        driver.advance_wall_clock(Duration::from_millis(*by)).unwrap();
        let out = driver.output_topic::<String, i64>("out").read_all().unwrap();
        out.into_iter().map(|record| record.value).collect::<Vec<_>>()
    };
    let calls: Vec<i64> = [100, 10, 12, 8, 105, 5].iter().flat_map(called).collect();
    assert_eq!(calls, [100, 110, 122, 130, 235, 240]);
}

#[test]
fn an_anchored_schedule_counts_from_its_start() {
    let driver = clock(Some(23), None, PunctuationKind::StreamTime);
    assert_eq!(calls_at(&driver, &[20, 23, 30, 33, 60, 62, 63]), [23, 33, 60, 63]);
}

#[test]
fn a_cancelled_schedule_is_called_no_more() {
    let driver = clock(None, Some(2), PunctuationKind::StreamTime);
    assert_eq!(calls_at(&driver, &[0, 10, 20, 30]), [0, 10]);
}

/// Sums the lengths of values by key.
#[derive(Default)]
struct Sum(Option<StoreHandle<KeyValueStore<String, i64>>>);

impl FixedKeyProcessor for Sum {
    type Key = String;
    type VIn = String;
    type VOut = i64;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("sums")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: FixedKeyRecord<String, String>,
        cx: &mut FixedKeyContext<'_, '_, String, i64>,
    ) -> Result<(), ProcessError> {
        let (length, time) = (record.value().len() as i64, record.timestamp());
        let store = cx.store(self.0.unwrap());
        let sum = store.get(record.key())?.map_or(0, |(sum, _)| *sum) + length;
        store.put(record.key().clone(), Some(sum), time)?;
        cx.forward(record.with_value(sum));
        Ok(())
    }
}

fn sums() -> StoreSpec {
    let options = StoreOptions::default();
    StoreSpec::key_value("sums", String::serde(), i64::serde(), options)
}

struct SumWithStore;

impl ProcessorSupplier for SumWithStore {
    type Processor = Sum;

    fn processor(&self) -> Sum {
        Sum::default()
    }

    fn stores(&self) -> Vec<StoreSpec> {
        vec![sums()]
    }
}

#[test]
fn a_store_is_connected_by_its_name_or_comes_with_the_supplier() {
    for brought in [false, true] {
        let b = StreamsBuilder::new();
        let values = b.stream::<String, String>("a");
        let values = match brought {
            true => values.process_values(SumWithStore),
            false => {
                b.add_state_store(sums());
                values.process_values_with(Sum::default, &["sums"], "sum")
            }
        };
        values.group_by_key().count();
        let topology = b.build().unwrap();
        assert!(topology.internal_topics().is_empty(), "the key is as it was");
        let driver = TopologyTestDriver::new(topology).unwrap();
        let values = driver.input_topic("a");
        values.pipe(s("k"), s("four"), 1).unwrap();
        values.pipe(s("k"), s("five!"), 2).unwrap();
        let store = driver.key_value_store::<String, i64>("sums").unwrap();
        assert_eq!(store.get(&s("k")).unwrap(), Some(9));
    }
}

#[test]
fn a_processor_that_uses_a_store_to_which_it_is_not_connected_is_refused() {
    let b = StreamsBuilder::new();
    b.add_state_store(sums());
    b.stream::<String, String>("a").process_values(Sum::default);
    let error = b.build().err().unwrap();
    assert!(matches!(error, BuildError::NotConnected { ref store, .. } if store == "sums"));
}

/// Sends each record to the child that its key names.
struct Route;

impl Processor for Route {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = String;

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let child = record.key.clone();
        cx.forward_to(&child, record)
    }
}

#[test]
fn a_record_is_forwarded_to_one_child_by_its_name() {
    let b = StreamsBuilder::new();
    let routed = b.stream::<String, String>("a").process(|| Route);
    for child in ["left", "right"] {
        let mark = move |_: &String, value: String| format!("{child}: {value}");
        routed.map_values_with(mark, child).to("out");
    }
    let driver = driver(&b);
    let out = step::<_, _, String, String>(&driver, s("left"), s("v"), 1);
    assert_eq!(out, [(s("left"), s("left: v"), 1)]);
    let unknown = driver.input_topic("a").pipe(s("nobody"), s("v"), 1).unwrap_err();
    assert!(unknown.to_string().contains("no child 'nobody'"), "{unknown}");
}

#[test]
fn a_processed_stream_is_repartitioned_before_its_key_is_used() {
    let b = StreamsBuilder::new();
    b.stream::<String, String>("a").process(|| Route).group_by_key().count();
    assert_eq!(b.build().unwrap().internal_topics().len(), 1);
}

/// Keeps what it gets.
#[derive(Default)]
struct Copy(Option<StoreHandle<KeyValueStore<String, i64>>>);

impl Processor for Copy {
    type KIn = String;
    type VIn = Option<i64>;
    type KOut = ();
    type VOut = ();

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.0 = Some(cx.store("sums")?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<String, Option<i64>>,
        cx: &mut Context<'_, (), ()>,
    ) -> Result<(), ProcessError> {
        cx.store(self.0.unwrap()).put(record.key, record.value, record.timestamp)?;
        Ok(())
    }
}

#[test]
fn a_read_only_store_or_a_global_one_is_filled_from_a_topic_by_a_processor() {
    for is_global in [false, true] {
        let b = StreamsBuilder::new();
        match is_global {
            true => b.add_global_store(sums(), "r", Consumed::default(), Copy::default),
            false => b.add_read_only_state_store(sums(), "r", Consumed::default(), Copy::default),
        };
        let topology = b.build().unwrap();
        assert!(topology.stores()["sums"].changelog.is_none());
        assert_eq!(topology.has_globals(), is_global);
        let driver = TopologyTestDriver::new(topology).unwrap();
        let input = driver.input_topic::<String, Option<i64>>("r");
        input.pipe(s("a"), Some(1), 1).unwrap();
        input.pipe(s("b"), Some(2), 1).unwrap();
        input.pipe(s("a"), None, 2).unwrap();
        let store = driver.key_value_store::<String, i64>("sums").unwrap();
        assert_eq!(store.all().unwrap(), [(s("b"), 2)]);
        assert!(driver.produced_topic_names().is_empty());
    }
}
