//! Processors written by hand.

use std::time::Duration;

use streams_core::processor::{
    Context, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, InitContext, Processor,
    PunctuationKind, Schedule,
};
use streams_core::{BuildError, ProcessError, Record};
use streams_dsl::StreamsBuilder;

use super::{Text, stream};

pub(super) fn build(case: &str, b: &StreamsBuilder) -> bool {
    match case {
        "punctuate" => stream(b).process(Ticker::default).to("out"),
        "fixed-key-headers" => stream(b).process_values(|| Whereabouts).to("out"),
        _ => return false,
    }
    true
}

/// Counts records; reports on stream time every 10 ms and on the wall clock every 100 ms.
#[derive(Default)]
struct Ticker {
    n: u64,
}

impl Processor for Ticker {
    type KIn = Text;
    type VIn = Text;
    type KOut = String;
    type VOut = String;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        cx.schedule(Duration::from_millis(10), PunctuationKind::StreamTime)?;
        cx.schedule(Duration::from_millis(100), PunctuationKind::WallClock)?;
        Ok(())
    }

    fn process(
        &mut self,
        _: Record<Text, Text>,
        _: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        self.n += 1;
        Ok(())
    }

    fn punctuate(
        &mut self,
        schedule: Schedule,
        timestamp: i64,
        cx: &mut Context<'_, String, String>,
    ) -> Result<(), ProcessError> {
        let key = match schedule.kind() {
            PunctuationKind::StreamTime => "stream",
            PunctuationKind::WallClock => "wall",
        };
        cx.forward(Record::new(key.into(), format!("{timestamp}:{}", self.n), timestamp));
        Ok(())
    }
}

/// Says where each record came from.
struct Whereabouts;

impl FixedKeyProcessor for Whereabouts {
    type Key = Text;
    type VIn = Text;
    type VOut = String;

    fn process(
        &mut self,
        record: FixedKeyRecord<Text, Text>,
        cx: &mut FixedKeyContext<'_, '_, Text, String>,
    ) -> Result<(), ProcessError> {
        let from = cx.source().ok_or_else(|| ProcessError::user("it came from nowhere"))?;
        let (topic, partition) = (&from.partition.topic, from.partition.partition);
        let text = format!("{topic}/{partition}/{}/{}", from.offset, cx.stream_time());
        cx.forward(record.with_value(text));
        Ok(())
    }
}
