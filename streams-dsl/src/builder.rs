//! Where a topology begins.

use std::hash::Hash;

use streams_core::serde::nullable;
use streams_core::topology::{NodeSpec, StoreSpec, Topology};
use streams_core::{BuildError, Data, HasSerde};

use crate::config::{Consumed, Materialized, Topics};
use crate::getter;
use crate::graph::{Graph, Reading, TableKind};
use crate::optimization::Optimization;
use crate::stream::KStream;
use crate::table::{KTable, TableSourceNode};

/// Collects streams and tables, and builds their topology.
///
/// ```
/// use streams_dsl::{Materialized, StreamsBuilder};
///
/// let builder = StreamsBuilder::new();
/// builder
///     .stream::<(), String>("lines")
///     .flat_map_values(|_, line| line.split(' ').map(str::to_lowercase).collect::<Vec<_>>())
///     .group_by(|_, word| word.clone())
///     .count_with(Materialized::named("counts"))
///     .to_stream()
///     .to("counts");
/// let topology = builder.build()?;
/// assert_eq!(topology.subtopologies().len(), 2);
/// # Ok::<(), streams_core::BuildError>(())
/// ```
#[derive(Default)]
pub struct StreamsBuilder {
    pub(crate) graph: Graph,
}

impl StreamsBuilder {
    /// An empty topology.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream of the records of one or several topics. Where the types cannot hold a null key or
    /// value, such records are dropped and counted: `Option<T>` keeps them, `()` reads anything.
    pub fn stream<K, V>(&self, topics: impl Into<Topics>) -> KStream<K, V>
    where
        K: Data + HasSerde,
        V: Data + HasSerde,
    {
        self.stream_with(topics, Consumed::default())
    }

    /// As [`StreamsBuilder::stream`], with a name or serdes.
    pub fn stream_with<K: Data, V: Data>(
        &self,
        topics: impl Into<Topics>,
        consumed: Consumed<K, V>,
    ) -> KStream<K, V> {
        let Topics { names: topics, pattern } = topics.into();
        let (inherited_key, inherited_value) =
            (consumed.key.to_inherit(), consumed.value.to_inherit());
        let (key, value) = (consumed.key.or(&None), consumed.value.or(&None));
        let extractor = consumed.extractor;
        let reading =
            Reading { key: key.clone(), value: value.clone(), extractor: extractor.clone() };
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(consumed.name, "KSTREAM-SOURCE-");
        let spec = NodeSpec::source_with(&name, topics.clone(), key, value, extractor);
        let spec = pattern.clone().into_iter().fold(spec, NodeSpec::with_pattern);
        let node = nodes.add(vec![], &name, move |_, builder| builder.add(spec.clone()));
        nodes.reads(node, (topics, pattern), reading);
        drop(nodes);
        KStream::at(self.graph.clone(), node, name, (inherited_key, inherited_value), false)
    }

    /// A table of a topic's last value for each key. A null value deletes the key; records with a
    /// null key are dropped and counted.
    pub fn table<K, V>(&self, topic: impl Into<String>) -> KTable<K, V>
    where
        K: Data + Eq + Hash + HasSerde,
        V: Data + HasSerde,
    {
        self.add_table(topic.into(), Consumed::default(), Materialized::default())
    }

    /// As [`StreamsBuilder::table`], with a name or serdes for reading, and with a store. With a
    /// named store the table is kept in any case, otherwise where something downstream needs it.
    pub fn table_with<K, V>(
        &self,
        topic: impl Into<String>,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V>
    where
        K: Data + Eq + Hash,
        V: Data,
    {
        self.add_table(topic.into(), consumed, materialized)
    }

    fn add_table<K, V>(
        &self,
        topic: String,
        consumed: Consumed<K, V>,
        materialized: Materialized<K, V>,
    ) -> KTable<K, V>
    where
        K: Data + Eq + Hash,
        V: Data,
    {
        let inherited = (
            consumed.key.to_inherit().or(materialized.key.to_inherit()),
            consumed.value.to_inherit().or(materialized.value.to_inherit()),
        );
        let key = consumed.key.or(&inherited.0);
        let value = consumed.value.or(&inherited.1);
        let mut nodes = self.graph.lock();
        let is_named = materialized.name.is_some();
        let store = materialized.store(&mut nodes, &format!("{topic}-"), &key, &value);
        let source = nodes.new_name("KSTREAM-SOURCE-");
        let source = consumed.name.as_ref().map_or(source, |name| format!("{name}-source"));
        let name = nodes.name_or(consumed.name, "KTABLE-SOURCE-");
        // Times that are not the records' own would come back otherwise than they went.
        let copied = consumed.extractor.is_the_records_own().then(|| topic.clone());
        let extractor = consumed.extractor.nullable();
        let source =
            NodeSpec::source_with(&source, vec![topic.clone()], key, nullable(value), extractor);
        let kept_in = store.name.clone();
        let table = TableSourceNode { name: name.clone(), store, topic: copied };
        let node = nodes.add(vec![], &name, move |plan, builder| {
            let parent = source.name.to_string();
            builder.add(source.clone())?;
            table.write::<Option<V>>(plan, builder, vec![parent])
        });
        let getter = getter::stored(&kept_in);
        nodes.is_table(node, TableKind::Source { materialized: is_named, store: kept_in });
        nodes.reads_as_table(node, &topic);
        drop(nodes);
        KTable { graph: self.graph.clone(), node, key: inherited.0, value: inherited.1, getter }
    }

    /// A store for processors, which connect to it by its name (see
    /// [`KStream::process_with`](crate::KStream::process_with)).
    pub fn add_state_store(&self, store: StoreSpec) -> &Self {
        self.graph.lock().add_store(store);
        self
    }

    /// The topology as it is now.
    ///
    /// # Errors
    /// [`BuildError`] for names used twice, topics read twice in different ways, streams of several
    /// builders put together.
    pub fn build(&self) -> Result<Topology, BuildError> {
        self.build_with(Optimization::NONE)
    }

    /// As [`StreamsBuilder::build`], with rewritings of the topology.
    ///
    /// # Errors
    /// As [`StreamsBuilder::build`].
    pub fn build_with(&self, optimization: Optimization) -> Result<Topology, BuildError> {
        self.graph.build(optimization)
    }
}
