//! Reference models of the operators that differ from Kafka Streams on purpose. Each is short, slow and has a switch: with Kafka's quirk on, it must
//! answer what Kafka Streams answered; with it off, what Vltava answers.

mod cogroup_tumbling;
mod sessions;
mod sliding_on_close;
mod stream_join;
mod suppress_sessions;

pub(crate) use cogroup_tumbling::CogroupTumbling;
pub(crate) use sessions::Sessions;
pub(crate) use sliding_on_close::SlidingOnClose;
pub(crate) use stream_join::StreamJoin;
pub(crate) use suppress_sessions::SuppressSessions;

/// Key, value and timestamp of a record.
pub(crate) type Row = (Option<String>, Option<String>, i64);

/// An operator, as simple as can be.
pub(crate) trait Reference {
    /// What comes out when a record of a topic goes in.
    fn process(
        &mut self,
        topic: &str,
        key: Option<String>,
        value: Option<String>,
        time: i64,
    ) -> Vec<Row>;
}

/// The model of a case, if there is a difference in it; `quirk`: as Kafka has it.
pub(crate) fn reference(case: &str, quirk: bool) -> Option<Box<dyn Reference>> {
    fn model(model: impl Reference + 'static) -> Box<dyn Reference> {
        Box::new(model)
    }
    let join = || StreamJoin::of_case(case, quirk).map(model);
    let sliding = || SlidingOnClose::of_case(case, quirk).map(model);
    let cogroup = || CogroupTumbling::of_case(case, quirk).map(model);
    let sessions = || Sessions::of_case(case, quirk).map(model);
    let suppressed = || SuppressSessions::of_case(case, quirk).map(model);
    join().or_else(sliding).or_else(cogroup).or_else(sessions).or_else(suppressed)
}
