//! Topics `a` and `b` in one aggregate, in tumbling windows of 10 with a grace of 5.
//!
//! The quirk: each stream has a stream time of its own, so whether a window is closed depends on the
//! stream by which a record comes. (What such a record finds depends on the cache, as the store hides it.)

use std::collections::BTreeMap;

use super::{Reference, Row};

const SIZE: i64 = 10;
const GRACE: i64 = 5;

pub(crate) struct CogroupTumbling {
    quirk: bool,
    /// By topic; ours is one for all.
    stream_times: BTreeMap<String, i64>,
    /// By key and start: the aggregate and its time.
    windows: BTreeMap<(String, i64), (String, i64)>,
}

impl CogroupTumbling {
    pub(crate) fn of_case(case: &str, quirk: bool) -> Option<Self> {
        let model = Self { quirk, stream_times: BTreeMap::new(), windows: BTreeMap::new() };
        (case == "cogroup-tumbling").then_some(model)
    }
}

impl Reference for CogroupTumbling {
    fn process(
        &mut self,
        topic: &str,
        key: Option<String>,
        value: Option<String>,
        time: i64,
    ) -> Vec<Row> {
        let Some(key) = key else { return vec![] };
        let whose = if self.quirk { topic } else { "all" };
        let stream_time = self.stream_times.entry(whose.into()).or_insert(-1);
        *stream_time = time.max(*stream_time);
        let start = time / SIZE * SIZE;
        if start + SIZE <= *stream_time - GRACE {
            return vec![];
        }
        let value = value.as_deref().unwrap_or("null");
        let value = if topic == "b" { format!("<{value}>") } else { value.into() };
        let (aggregate, newest) = self.windows.entry((key.clone(), start)).or_default();
        *aggregate += &value;
        *newest = time.max(*newest);
        vec![(Some(format!("{key}@{start}/{}", start + SIZE)), Some(aggregate.clone()), *newest)]
    }
}
