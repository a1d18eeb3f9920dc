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

/// Makes the model of a case, if it is one of its own; `quirk`: as Kafka has it.
type Make = fn(case: &str, quirk: bool) -> Option<Box<dyn Reference>>;

fn boxed(model: impl Reference + 'static) -> Box<dyn Reference> {
    Box::new(model)
}

/// Every deliberate difference that the oracle knows of. The book tells of each, with its reason, by the
/// name of the model.
pub(crate) const DIFFERENCES: [(&str, Make); 5] = [
    ("stream_join", |case, quirk| StreamJoin::of_case(case, quirk).map(boxed)),
    ("sliding_on_close", |case, quirk| SlidingOnClose::of_case(case, quirk).map(boxed)),
    ("cogroup_tumbling", |case, quirk| CogroupTumbling::of_case(case, quirk).map(boxed)),
    ("sessions", |case, quirk| Sessions::of_case(case, quirk).map(boxed)),
    ("suppress_sessions", |case, quirk| SuppressSessions::of_case(case, quirk).map(boxed)),
];

/// The model of a case, if there is a difference in it.
pub(crate) fn reference(case: &str, quirk: bool) -> Option<Box<dyn Reference>> {
    DIFFERENCES.iter().find_map(|(_, make)| make(case, quirk))
}
