//! What operators can be told beyond their closures: names, serdes, stores.
//!
//! The common case needs none of it. A configuration made without serdes takes those of its types
//! ([`HasSerde`]), or those given by hand upstream; types without a serde of their own are given one
//! with a `with` constructor, and then the compiler asks for nothing.

use streams_core::processor::{Partitioner, Partitions, TimestampExtractor};
use streams_core::serde::DynSerde;
use streams_core::topology::Pattern;
use streams_core::{BuildError, HasSerde};

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::graph::Nodes;
use crate::processors::TableStore;
use crate::windows::millis;

/// A serde, and whether it was given by hand or comes from the type.
pub(crate) struct Given<T> {
    serde: DynSerde<T>,
    by_hand: bool,
}

impl<T> Clone for Given<T> {
    fn clone(&self) -> Self {
        Self { serde: self.serde.clone(), by_hand: self.by_hand }
    }
}

impl<T: HasSerde> Given<T> {
    pub(crate) fn by_type() -> Self {
        Self { serde: T::serde(), by_hand: false }
    }
}

impl<T> Given<T> {
    pub(crate) fn by_hand(serde: DynSerde<T>) -> Self {
        Self { serde, by_hand: true }
    }

    /// What was given here, or else upstream, or else comes from the type.
    pub(crate) fn or(self, upstream: &Option<DynSerde<T>>) -> DynSerde<T> {
        match upstream {
            Some(upstream) if !self.by_hand => upstream.clone(),
            _ => self.serde,
        }
    }

    /// The serde for what follows to inherit: only one given by hand.
    pub(crate) fn to_inherit(&self) -> Option<DynSerde<T>> {
        self.by_hand.then(|| self.serde.clone())
    }
}

/// Defines a configuration with a key and a value serde and a name.
macro_rules! with_serdes {
    ($type:ident { $($field:ident: $init:expr),* }) => {
        impl<K: HasSerde, V: HasSerde> Default for $type<K, V> {
            fn default() -> Self {
                Self { name: None, key: Given::by_type(), value: Given::by_type() $(, $field: $init)* }
            }
        }

        impl<K, V> Clone for $type<K, V> {
            fn clone(&self) -> Self {
                Self {
                    name: self.name.clone(),
                    key: self.key.clone(),
                    value: self.value.clone()
                    $(, $field: self.$field.clone())*
                }
            }
        }

        impl<K: HasSerde, V: HasSerde> $type<K, V> {
            /// Only a name, with the serdes of the types (Kafka's `as`).
            pub fn named(name: impl Into<String>) -> Self {
                Self { name: Some(name.into()), ..Self::default() }
            }
        }

        impl<K, V> $type<K, V> {
            /// These serdes.
            pub fn with(key: DynSerde<K>, value: DynSerde<V>) -> Self {
                Self {
                    name: None,
                    key: Given::by_hand(key),
                    value: Given::by_hand(value)
                    $(, $field: $init)*
                }
            }

            /// The same with this name.
            pub fn with_name(mut self, name: impl Into<String>) -> Self {
                self.name = Some(name.into());
                self
            }

            /// The same with this serde for keys.
            pub fn with_key_serde(mut self, serde: DynSerde<K>) -> Self {
                self.key = Given::by_hand(serde);
                self
            }

            /// The same with this serde for values.
            pub fn with_value_serde(mut self, serde: DynSerde<V>) -> Self {
                self.value = Given::by_hand(serde);
                self
            }
        }
    };
}

/// Lets a configuration choose partitions.
macro_rules! with_partitioner {
    ($type:ident) => {
        impl<K, V> $type<K, V> {
            /// The same with this choice of partitions; the last argument is how many there are. It
            /// answers a number, or [`Partitions`]: several, or none, which leaves the record out.
            pub fn with_partitioner<P: Into<Partitions>>(
                mut self,
                choose: impl Fn(&K, &V, u32) -> P + Send + Sync + 'static,
            ) -> Self {
                self.partitioner =
                    Some(Arc::new(move |key, value, count| choose(key, value, count).into()));
                self
            }
        }
    };
}

/// The name of an operator in the topology. A plain string is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(pub(crate) Option<String>);

impl Named {
    /// This name instead of an automatic one.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Some(name.into()))
    }
}

impl<S: Into<String>> From<S> for Named {
    fn from(name: S) -> Self {
        Self::new(name)
    }
}

/// How a topic is read. Its name is the source's.
pub struct Consumed<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) key: Given<K>,
    pub(crate) value: Given<V>,
    pub(crate) extractor: TimestampExtractor<K, V>,
}

with_serdes!(Consumed { extractor: TimestampExtractor::default() });

impl<K, V> Consumed<K, V> {
    /// The same with this way to find a record's event time.
    pub fn with_timestamp_extractor(mut self, extractor: TimestampExtractor<K, V>) -> Self {
        self.extractor = extractor;
        self
    }
}

/// How a topic is written. Its name is the sink's.
pub struct Produced<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) key: Given<K>,
    pub(crate) value: Given<V>,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
}

with_serdes!(Produced { partitioner: None });
with_partitioner!(Produced);

/// How a stream is joined with a table. Its name is the operator's, and that of the repartition topic
/// if the stream needs one.
pub struct Joined<K, V, T> {
    pub(crate) name: Option<String>,
    pub(crate) key: Given<K>,
    pub(crate) value: Given<V>,
    pub(crate) grace: Option<Duration>,
    marker: PhantomData<fn() -> T>,
}

impl<K: HasSerde, V: HasSerde, T> Default for Joined<K, V, T> {
    fn default() -> Self {
        let (key, value) = (Given::by_type(), Given::by_type());
        Self { name: None, key, value, grace: None, marker: PhantomData }
    }
}

impl<K: HasSerde, V: HasSerde, T> Joined<K, V, T> {
    /// Only a name, with the serdes of the types.
    pub fn named(name: impl Into<String>) -> Self {
        Self::default().with_name(name)
    }
}

impl<K, V, T> Joined<K, V, T> {
    /// These serdes for the stream's keys and values; the table has its own.
    pub fn with(key: DynSerde<K>, value: DynSerde<V>) -> Self {
        let (key, value) = (Given::by_hand(key), Given::by_hand(value));
        Self { name: None, key, value, grace: None, marker: PhantomData }
    }

    /// The same with this name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same, but the stream's records wait for this long, in event time, before they look into the
    /// table, which must be versioned: so that updates of the table which come later than they should are
    /// seen. It must not be longer than the table's history. A global table has none: a join with one
    /// cannot have a grace.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }
}

/// How a stream is grouped. Its name is that of the repartition topic, which then is shared by all
/// aggregations of the grouping, and of the node that selects the key.
pub struct Grouped<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) key: Given<K>,
    pub(crate) value: Given<V>,
}

with_serdes!(Grouped {});

/// How a stream is repartitioned. Its name is that of the topic (with `-repartition` behind it).
pub struct Repartitioned<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) key: Given<K>,
    pub(crate) value: Given<V>,
    pub(crate) partitions: Option<u32>,
    pub(crate) partitioner: Option<Partitioner<K, V>>,
}

with_serdes!(Repartitioned { partitions: None, partitioner: None });
with_partitioner!(Repartitioned);

impl<K, V> Repartitioned<K, V> {
    /// The same with this many partitions; otherwise as many as the input has.
    pub fn with_number_of_partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }
}

/// How a table is kept. Its name is the store's.
pub struct Materialized<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) key: Given<K>,
    pub(crate) value: Given<V>,
    pub(crate) caching: bool,
    pub(crate) logging: bool,
    pub(crate) in_memory: bool,
    pub(crate) retention: Option<Duration>,
    pub(crate) history: Option<Duration>,
    pub(crate) max_entries: Option<usize>,
}

with_serdes!(Materialized {
    caching: true,
    logging: true,
    in_memory: false,
    retention: None,
    history: None,
    max_entries: None
});

impl<K: HasSerde, V: HasSerde> Materialized<K, V> {
    /// A versioned table in a store of this name, with the serdes of the types. See
    /// [`Materialized::with_history`].
    pub fn versioned(name: impl Into<String>, history: Duration) -> Self {
        Self::named(name).with_history(history)
    }
}

impl<K, V> Materialized<K, V> {
    /// The same as a versioned table: it remembers what each key had, and when. `history` is how long a
    /// value is kept after it was replaced, and how late updates may come, in event time. It is never
    /// cached: each update is forwarded at once. Its store needs a name.
    pub fn with_history(mut self, history: Duration) -> Self {
        self.history = Some(history);
        self
    }

    /// The same without merging updates between commits: each is forwarded at once.
    pub fn with_caching_disabled(mut self) -> Self {
        self.caching = false;
        self
    }

    /// The same without a changelog topic: what the store holds is lost with its files.
    pub fn with_logging_disabled(mut self) -> Self {
        self.logging = false;
        self
    }

    /// The same without files: all entries are in memory, whatever `state_memory_bytes` says, and come
    /// from the changelog at each start. For small tables, and where the disk is slow.
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// The same with `max_entries` keys at most, 1 or more, in memory. When another one comes, that which was
    /// used least recently is dropped, also from the changelog, and nothing is forwarded for it: should it
    /// come again, it is new. See [`StoreOptions::max_entries`](streams_core::state::StoreOptions). It is
    /// never cached: each update is forwarded at once. Not for windows, sessions and versioned tables.
    pub fn lru_map(mut self, max_entries: usize) -> Self {
        self.max_entries = Some(max_entries);
        self
    }

    /// The same, but windows (and sessions) are kept for this long as stream time goes, from their
    /// start (of a session: its end); at least as long as records can fall into them, which is the default.
    /// Tables without windows keep everything.
    pub fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }
}

impl<K, V> Materialized<K, V> {
    /// How the table is kept, with an automatic name where none was given.
    pub(crate) fn store(
        &self,
        nodes: &mut Nodes,
        prefix: &str,
        key: &DynSerde<K>,
        value: &DynSerde<V>,
    ) -> TableStore<K, V> {
        let name = self.name.clone().unwrap_or_else(|| nodes.new_store_name(prefix));
        if let Some(history) = self.history {
            nodes.keeps_history(&name, millis(history));
            if self.max_entries.is_some() {
                nodes.fail(BuildError::Invalid {
                    node: name.clone(),
                    reason: "a versioned table keeps every key; keep it without lru_map".into(),
                });
            }
        }
        TableStore {
            name,
            key: key.clone(),
            value: value.clone(),
            caching: self.caching && self.history.is_none() && self.max_entries.is_none(),
            logging: self.logging,
            in_memory: self.in_memory,
            retention: self.retention.map(millis),
            history: self.history.map(millis),
            max_entries: self.max_entries,
        }
    }
}

/// The name of a table operator, how its table is kept, or both: made from a [`Named`], a
/// [`Materialized`] or a pair of them.
pub struct TableConfig<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) materialized: Materialized<K, V>,
    /// Whether anything but the name was given.
    pub(crate) is_materialized: bool,
}

/// What can configure a table: a [`Named`], a [`Materialized`] or a pair of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot configure a table of keys `{K}` and values `{V}`",
    label = "needs a `Named`, a `Materialized<{K}, {V}>`, or a pair of them",
    note = "the types of a `Materialized` are those of the resulting table: `Materialized::named(\"…\")` finds them by itself"
)]
pub trait IntoTableConfig<K, V> {
    /// The configuration.
    fn into_table_config(self) -> TableConfig<K, V>;
}

impl<K: HasSerde, V: HasSerde> IntoTableConfig<K, V> for Named {
    fn into_table_config(self) -> TableConfig<K, V> {
        let materialized = Materialized::default();
        TableConfig { name: self.0, materialized, is_materialized: false }
    }
}

impl<K, V> IntoTableConfig<K, V> for Materialized<K, V> {
    fn into_table_config(self) -> TableConfig<K, V> {
        TableConfig { name: None, materialized: self, is_materialized: true }
    }
}

impl<K, V> IntoTableConfig<K, V> for (Named, Materialized<K, V>) {
    fn into_table_config(self) -> TableConfig<K, V> {
        let (named, materialized) = self;
        TableConfig { name: named.0, materialized, is_materialized: true }
    }
}

impl<K, V> IntoTableConfig<K, V> for TableConfig<K, V> {
    fn into_table_config(self) -> Self {
        self
    }
}

/// What a table operator makes of its configuration.
pub(crate) struct TableParts<K, V> {
    pub(crate) name: Option<String>,
    pub(crate) store: TableStore<K, V>,
    /// The serdes for what follows.
    pub(crate) inherited: (Option<DynSerde<K>>, Option<DynSerde<V>>),
}

impl<K, V> TableConfig<K, V> {
    /// Takes the number that a count loses where it is materialized without a name, as in Kafka.
    pub(crate) fn waste_number(config: Option<&Self>, nodes: &mut Nodes) {
        if config.is_some_and(|config| config.is_materialized && config.materialized.name.is_none())
        {
            nodes.new_name("");
        }
    }

    /// The parts of a configuration, or those where none was given: with the key serde from upstream, which
    /// was given by hand or not, and this serde for values.
    pub(crate) fn parts(
        config: Option<Self>,
        nodes: &mut Nodes,
        prefix: &str,
        (key, key_to_inherit, value): (&DynSerde<K>, &Option<DynSerde<K>>, DynSerde<V>),
    ) -> TableParts<K, V> {
        let Some(Self { name, materialized, .. }) = config else {
            let (name, key) = (nodes.new_store_name(prefix), key.clone());
            let store = TableStore {
                name,
                key,
                value,
                caching: true,
                logging: true,
                in_memory: false,
                retention: None,
                history: None,
                max_entries: None,
            };
            return TableParts { name: None, store, inherited: (key_to_inherit.clone(), None) };
        };
        let inherited = (
            materialized.key.to_inherit().or(key_to_inherit.clone()),
            materialized.value.to_inherit(),
        );
        let key = materialized.key.clone().or(&Some(key.clone()));
        let value = materialized.value.clone().or(&Some(value));
        let store = materialized.store(nodes, prefix, &key, &value);
        TableParts { name, store, inherited }
    }
}

/// Which topics a stream reads: one, several, or all that are like a [`Pattern`].
#[derive(Clone, Debug)]
pub struct Topics {
    pub(crate) names: Vec<String>,
    pub(crate) pattern: Option<Pattern>,
}

impl Topics {
    fn named(names: Vec<String>) -> Self {
        Self { names, pattern: None }
    }
}

impl From<&str> for Topics {
    fn from(topic: &str) -> Self {
        Self::named(vec![topic.into()])
    }
}

impl From<String> for Topics {
    fn from(topic: String) -> Self {
        Self::named(vec![topic])
    }
}

impl<const N: usize> From<[&str; N]> for Topics {
    fn from(topics: [&str; N]) -> Self {
        Self::named(topics.map(Into::into).into())
    }
}

impl From<Vec<String>> for Topics {
    fn from(topics: Vec<String>) -> Self {
        Self::named(topics)
    }
}

impl From<Pattern> for Topics {
    fn from(pattern: Pattern) -> Self {
        Self { names: Vec::new(), pattern: Some(pattern) }
    }
}
