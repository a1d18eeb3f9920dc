//! An application some of whose records fail when they have left something behind already.

use streams_core::processor::{Context, Processor};
use streams_core::{ProcessError, Record};
use streams_dsl::Materialized;

use crate::applications::{Input, Output};

/// Counts each key; then some records fail, with the count changed and a result written.
pub(crate) fn some_fail(input: Input) -> Output {
    let counts = Materialized::named("counts").with_caching_disabled();
    let counted = input.map_values(|_, value| value.len() as i64).group_by_key();
    let counted = counted.count_with(counts).to_stream_present();
    let written = counted.map_values(|_, count| Some(count.to_string()));
    written.merge(&input.process(|| Picky))
}

/// Refuses one of so many records.
struct Picky;

impl Processor for Picky {
    type KIn = String;
    type VIn = String;
    type KOut = String;
    type VOut = Option<String>;

    fn process(
        &mut self,
        record: Record<String, String>,
        cx: &mut Context<'_, String, Option<String>>,
    ) -> Result<(), ProcessError> {
        let refused = record.value.bytes().map(u32::from).sum::<u32>() % 7 == 0;
        let said = format!("seen {}", record.value);
        cx.forward(record.with_value(Some(said)));
        if refused { Err(ProcessError::user("one of seven")) } else { Ok(()) }
    }
}
