//! Which rewritings of a topology are made when it is built.

/// Rewritings that Kafka Streams knows as `topology.optimization`. Default: none, as there. They change
/// the names of internal topics, so an application must not change them between two starts without
/// being reset.
///
/// ```
/// use streams_dsl::{Optimization, StreamsBuilder};
///
/// let builder = StreamsBuilder::new();
/// let words = builder.stream::<(), String>("lines").map(|(), line| (line.clone(), line));
/// words.group_by_key().count();
/// words.group_by_key().reduce(|first, _| first);
/// let topics = |optimization| -> Result<usize, streams_core::BuildError> {
///     Ok(builder.build_with(optimization)?.internal_topics().len())
/// };
/// assert_eq!(topics(Optimization::NONE)?, 2);
/// assert_eq!(topics(Optimization::ALL)?, 1);
/// # Ok::<(), streams_core::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optimization {
    /// A stream whose key was changed is repartitioned once for all that follows, right behind that,
    /// through the topic that its first repartition would have. Kafka's `merge.repartition.topics`.
    pub merge_repartition_topics: bool,
    /// A stream that is joined with itself is kept once. Kafka's `single.store.self.join`.
    pub single_store_self_join: bool,
    /// A table's topic stands in for the changelog of its store. The topic must keep what the table has
    /// (`cleanup.policy=compact`). Not for versioned tables. Kafka's `reuse.ktable.source.topics`.
    pub reuse_source_topics: bool,
}

impl Optimization {
    /// None of them.
    pub const NONE: Self = Self {
        merge_repartition_topics: false,
        single_store_self_join: false,
        reuse_source_topics: false,
    };

    /// All of them.
    pub const ALL: Self = Self {
        merge_repartition_topics: true,
        single_store_self_join: true,
        reuse_source_topics: true,
    };
}
