//! Repartition topics: a filter, a sink and a source.

use std::sync::Arc;

use streams_core::processor::Partitioner;
use streams_core::serde::{DynSerde, HasSerde};
use streams_core::topology::{InternalTopic, NodeSpec};
use streams_core::{BuildError, Data, Record, TopologyBuilder};

use crate::graph::{NodeId, Nodes, Plan};
use crate::processors::{Nulls, stateless};

/// The names that a repartition takes.
#[derive(Clone)]
pub(crate) struct Names {
    topic: String,
    filter: String,
    sink: String,
    source: String,
}

impl Names {
    /// The names for a topic `<prefix>-repartition`. Three numbers are used up; the names that they
    /// make stand only where the prefix is an automatic one, as in Kafka.
    pub(crate) fn new(nodes: &mut Nodes, prefix: &str) -> Self {
        let sink = nodes.new_name("KSTREAM-SINK-");
        let filter = nodes.new_name("KSTREAM-FILTER-");
        let source = nodes.new_name("KSTREAM-SOURCE-");
        let topic = match prefix.ends_with("-repartition") {
            true => prefix.to_string(),
            false => format!("{prefix}-repartition"),
        };
        if is_automatic(prefix) {
            return Self { topic, filter, sink, source };
        }
        Self::merged(&topic)
    }

    /// The names for a topic that stands for several repartitions: as of a name that is not automatic.
    pub(crate) fn merged(topic: &str) -> Self {
        Self {
            filter: format!("{topic}-filter"),
            sink: format!("{topic}-sink"),
            source: format!("{topic}-source"),
            topic: topic.into(),
        }
    }

    /// The source, on which what follows hangs.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }
}

/// Whether a whole name looks like `KSTREAM…-0000000000`.
fn is_automatic(name: &str) -> bool {
    let digits = name.len().checked_sub(10).map(|at| name.as_bytes().split_at(at));
    digits.is_some_and(|(before, digits)| {
        digits.iter().all(u8::is_ascii_digit)
            && before.ends_with(b"-")
            && before.starts_with(b"KSTREAM")
    })
}

/// What a repartition topic carries, made from the values of the stream.
pub(crate) struct Repartition<K, V> {
    pub(crate) names: Names,
    pub(crate) key: DynSerde<K>,
    pub(crate) value: DynSerde<V>,
    pub(crate) topic: InternalTopic,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
}

impl<K: Data, V: Data> Repartition<K, V> {
    /// Adds the repartition behind `parent`, whose values become `V` on the way.
    pub(crate) fn add<X: Data>(
        self,
        nodes: &mut Nodes,
        parent: NodeId,
        convert: impl Fn(X) -> V + Send + Sync + 'static,
    ) -> NodeId {
        let convert = Arc::new(convert);
        let (output, topic) = (self.names.source.clone(), self.names.topic.clone());
        let node = nodes.add(vec![parent], &output, move |plan, b| self.write(plan, b, &convert));
        nodes.is_repartition(node, &topic);
        node
    }

    fn write<X: Data>(
        &self,
        plan: &Plan<'_>,
        builder: &mut TopologyBuilder,
        convert: &Arc<impl Fn(X) -> V + Send + Sync + 'static>,
    ) -> Result<(), BuildError> {
        let merged = plan.is_merged().then(|| Names::merged(&self.names.topic));
        let Names { topic, filter, sink, source } = merged.as_ref().unwrap_or(&self.names);
        builder.add_internal_topic(topic, self.topic);
        let (nulls, convert) = (Nulls::of(&self.key), convert.clone());
        let keeps_null_keys = plan.null_keys_are_kept();
        let drop_null_keys = stateless(move |record: Record<K, X>, cx| {
            if keeps_null_keys || !nulls.is_null(&record.key) {
                let Record { key, value, timestamp, headers } = record;
                cx.forward(Record { key, value: convert(value), timestamp, headers });
            }
        });
        builder.add(NodeSpec::processor(filter, plan.parents(), drop_null_keys))?;
        let (key, value) = (self.key.clone(), self.value.clone());
        let partitioner = self.partitioner.clone();
        builder.add(NodeSpec::sink(sink, vec![filter.clone()], topic, key, value, partitioner))?;
        let (key, topics) = (self.key.clone(), vec![topic.clone()]);
        builder.add(match plan.values_are_ignored() {
            true => NodeSpec::source(source, topics, key, Option::<()>::serde()),
            false => NodeSpec::source(source, topics, key, self.value.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::is_automatic;

    #[test]
    fn names_look_automatic_as_kafkas_pattern_says() {
        assert!(is_automatic("KSTREAM-AGGREGATE-STATE-STORE-0000000003"));
        assert!(is_automatic("KSTREAM-0000000003"));
        for other in
            ["counts", "KSTREAM-3", "KTABLE-X-0000000003", "KSTREAM0000000003", "0000000003"]
        {
            assert!(!is_automatic(other), "{other}");
        }
    }
}
