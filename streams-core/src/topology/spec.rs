//! What a topology knows of a node, a store and an internal topic.

use std::any::TypeId;
use std::hash::Hash;
use std::sync::Arc;

use broker_api::{Timestamp, TopicConfig};

use super::Pattern;
use super::arena::{self, ArenaNode};
use crate::error::{BuildError, SerdeError};
use crate::processor::{
    AsyncCall, AsyncNode, AsyncOptions, Child, Erased, Partitioner, Processor, ProcessorNode, Push,
    SinkNode, Source, SourceNode, Target, TimestampExtractor, TopicChooser,
};
use crate::record::Data;
use crate::serde::DynSerde;
use crate::state::{
    BufferStore, ChangeBuffer, ChangelogFormat, KeyValueFormat, KeyValueStore, SessionStore,
    SortedStore, Store, StoreEngine, StoreKind, StoreOptions, TopicFormat, VersionedOptions,
    VersionedStore, WindowStore, WindowedOptions,
};
use crate::task::{OutputTopic, TaskCore};

/// The types of keys and values, compared when a topology is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeTag {
    id: TypeId,
    /// How they are called.
    pub name: &'static str,
}

impl TypeTag {
    /// The tag of keys `K` and values `V`.
    pub fn of<K: Data, V: Data>() -> Self {
        Self { id: TypeId::of::<(K, V)>(), name: std::any::type_name::<(K, V)>() }
    }
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Reads these topics.
    Source {
        /// Their names; those of internal topics without the application's id.
        topics: Vec<String>,
    },
    /// Processes records.
    Processor,
    /// Writes this topic.
    Sink {
        /// Its name; that of an internal topic without the application's id.
        topic: String,
    },
    /// Writes the topic that is chosen for each record.
    DynamicSink {
        /// What chooses it, as `describe()` shows it.
        extractor: String,
    },
}

/// Tells of a topic that the topology names what writing it needs.
pub type TopicResolver<'a> = &'a dyn Fn(&str) -> Result<OutputTopic, BuildError>;

type MakeSource = dyn Fn(Vec<Child>) -> Result<Box<dyn Source>, BuildError> + Send + Sync;
type MakePush =
    dyn Fn(&mut MakeContext<'_>, Vec<Child>) -> Result<Erased, BuildError> + Send + Sync;

/// What making a node needs.
pub(crate) struct MakeContext<'a> {
    pub(crate) name: &'a str,
    pub(crate) stores: &'a [String],
    pub(crate) topics: TopicResolver<'a>,
    pub(crate) task: &'a mut TaskCore,
}

#[derive(Clone)]
pub(crate) enum Make {
    Source(Arc<MakeSource>),
    Push {
        make: Arc<MakePush>,
        slot: fn(Erased) -> Option<Box<dyn ArenaNode>>,
        link: fn(usize) -> Erased,
    },
}

/// A node as declared.
#[derive(Clone)]
pub struct NodeSpec {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: NodeKind,
    /// The nodes that forward to it.
    pub parents: Vec<String>,
    /// The stores that it is connected to.
    pub stores: Vec<String>,
    /// The records that it takes; `None` for a source.
    pub input: Option<TypeTag>,
    /// The records that it forwards; `None` for a sink.
    pub output: Option<TypeTag>,
    /// Of a source that reads whatever topics there are like this.
    pub pattern: Option<Pattern>,
    pub(crate) make: Make,
}

impl NodeSpec {
    /// A source.
    pub fn source<K: Data, V: Data>(
        name: &str,
        topics: Vec<String>,
        key: DynSerde<K>,
        value: DynSerde<V>,
    ) -> Self {
        Self::source_with(name, topics, key, value, TimestampExtractor::default())
    }

    /// A source that finds its records' event times in this way.
    pub fn source_with<K: Data, V: Data>(
        name: &str,
        topics: Vec<String>,
        key: DynSerde<K>,
        value: DynSerde<V>,
        extractor: TimestampExtractor<K, V>,
    ) -> Self {
        let node = name.to_string();
        let make = move |children| -> Result<Box<dyn Source>, BuildError> {
            check(&node, &key, &value)?;
            let (key, value, extractor) = (key.clone(), value.clone(), extractor.clone());
            Ok(Box::new(SourceNode::new(&node, key, value, extractor, children)?))
        };
        Self {
            name: name.into(),
            kind: NodeKind::Source { topics },
            parents: Vec::new(),
            stores: Vec::new(),
            pattern: None,
            input: None,
            output: Some(TypeTag::of::<K, V>()),
            make: Make::Source(Arc::new(make)),
        }
    }

    /// The same source for all topics like this, instead of those that it names.
    pub fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.kind = NodeKind::Source { topics: Vec::new() };
        self.pattern = Some(pattern);
        self
    }

    /// A processor; the supplier makes one for each task.
    pub fn processor<P: Processor>(
        name: &str,
        parents: Vec<String>,
        supplier: impl Fn() -> P + Send + Sync + 'static,
    ) -> Self {
        let make = move |cx: &mut MakeContext<'_>, children| -> Result<Erased, BuildError> {
            let node = ProcessorNode::new(cx.name, supplier(), cx.stores, children, cx.task)?;
            let push: Box<dyn Push<P::KIn, P::VIn>> = Box::new(node);
            Ok(Box::new(push))
        };
        Self {
            name: name.into(),
            kind: NodeKind::Processor,
            parents,
            stores: Vec::new(),
            pattern: None,
            input: Some(TypeTag::of::<P::KIn, P::VIn>()),
            output: Some(TypeTag::of::<P::KOut, P::VOut>()),
            make: Make::Push {
                make: Arc::new(make),
                slot: arena::slot::<P::KIn, P::VIn>,
                link: arena::link::<P::KIn, P::VIn>,
            },
        }
    }

    /// An operator whose function is asynchronous.
    pub fn asynchronous<K: Data, V: Data, K2: Data, V2: Data>(
        name: &str,
        parents: Vec<String>,
        call: AsyncCall<K, V, K2, V2>,
        options: AsyncOptions<K>,
    ) -> Self {
        let make = move |cx: &mut MakeContext<'_>, children| -> Result<Erased, BuildError> {
            let node = AsyncNode::new(cx.name, call.clone(), options, children, cx.task)?;
            let push: Box<dyn Push<K, V>> = Box::new(node);
            Ok(Box::new(push))
        };
        Self {
            name: name.into(),
            kind: NodeKind::Processor,
            parents,
            stores: Vec::new(),
            pattern: None,
            input: Some(TypeTag::of::<K, V>()),
            output: Some(TypeTag::of::<K2, V2>()),
            make: Make::Push {
                make: Arc::new(make),
                slot: arena::slot::<K, V>,
                link: arena::link::<K, V>,
            },
        }
    }

    /// A sink.
    pub fn sink<K: Data, V: Data>(
        name: &str,
        parents: Vec<String>,
        topic: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        partitioner: Option<Partitioner<K, V>>,
    ) -> Self {
        let to = topic.to_string();
        let target = move |cx: &mut MakeContext<'_>| {
            let output = (cx.topics)(&to)?;
            Ok(Target::Output(cx.task.outputs_mut().add(output)))
        };
        let kind = NodeKind::Sink { topic: topic.into() };
        Self::sink_to(name, parents, kind, target, (key, value, partitioner))
    }

    /// A sink whose topic `choose` tells for each record: one that exists when the record is written, else
    /// the production handler is asked. `extractor` is how `describe()` shows that function.
    pub fn dynamic_sink<K: Data, V: Data>(
        name: &str,
        parents: Vec<String>,
        extractor: &str,
        choose: TopicChooser<K, V>,
        serdes: (DynSerde<K>, DynSerde<V>),
        partitioner: Option<Partitioner<K, V>>,
    ) -> Self {
        let kind = NodeKind::DynamicSink { extractor: extractor.into() };
        let target = move |_: &mut MakeContext<'_>| Ok(Target::Chosen(choose.clone()));
        let (key, value) = serdes;
        Self::sink_to(name, parents, kind, target, (key, value, partitioner))
    }

    fn sink_to<K: Data, V: Data>(
        name: &str,
        parents: Vec<String>,
        kind: NodeKind,
        target: impl Fn(&mut MakeContext<'_>) -> Result<Target<K, V>, BuildError>
        + Send
        + Sync
        + 'static,
        (key, value, partitioner): (DynSerde<K>, DynSerde<V>, Option<Partitioner<K, V>>),
    ) -> Self {
        let make = move |cx: &mut MakeContext<'_>, _| -> Result<Erased, BuildError> {
            check(cx.name, &key, &value)?;
            let partitioner = partitioner.clone();
            let target = target(cx)?;
            let node = SinkNode::new(cx.name, target, key.clone(), value.clone(), partitioner);
            let push: Box<dyn Push<K, V>> = Box::new(node);
            Ok(Box::new(push))
        };
        Self {
            name: name.into(),
            kind,
            parents,
            stores: Vec::new(),
            pattern: None,
            input: Some(TypeTag::of::<K, V>()),
            output: None,
            make: Make::Push {
                make: Arc::new(make),
                slot: arena::slot::<K, V>,
                link: arena::link::<K, V>,
            },
        }
    }

    /// The same node connected to these stores too.
    pub fn with_stores<S: Into<String>>(mut self, stores: impl IntoIterator<Item = S>) -> Self {
        self.stores.extend(stores.into_iter().map(Into::into));
        self
    }
}

/// Whether a source or sink can read or write anything with its serdes.
fn check<K: 'static, V: 'static>(
    node: &str,
    key: &DynSerde<K>,
    value: &DynSerde<V>,
) -> Result<(), BuildError> {
    let invalid = |e: SerdeError| BuildError::Invalid { node: node.into(), reason: e.reason };
    key.check().and_then(|()| value.check()).map_err(invalid)
}

/// In milliseconds.
const DAY: Timestamp = 24 * 60 * 60 * 1000;

/// Makes a store on the engine of a task.
pub type MakeStore = Arc<dyn Fn(Arc<dyn StoreEngine>) -> Box<dyn Store> + Send + Sync>;

/// A store as declared.
#[derive(Clone)]
pub struct StoreSpec {
    /// Its name.
    pub name: String,
    /// The settings of its changelog topic; `None`: it has none, and what it holds is gone when
    /// its files are.
    pub changelog: Option<TopicConfig>,
    /// The input topic that stands in for a changelog: the store is the fold of what its task has
    /// consumed of it.
    pub source_topic: Option<String>,
    /// What it is.
    pub kind: StoreKind,
    /// How changelog records become entries.
    pub format: Arc<dyn ChangelogFormat>,
    /// Makes the store of a task on its engine.
    pub make: MakeStore,
    /// It has no files, see [`StoreSpec::in_memory`].
    pub in_memory: bool,
    /// How records of a topic become entries, if the store can be the copy of one.
    pub(crate) copy: Option<Arc<dyn ChangelogFormat>>,
    /// What is wrong with its options.
    pub(crate) mistake: Option<&'static str>,
}

impl StoreSpec {
    /// The same store without files: all its entries are in memory, beyond the budget for state memory,
    /// and come from its changelog whenever its task is opened. The commit protocol is the same. One
    /// that is not logged begins empty.
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// The same store as the copy of a topic that its task reads: without a changelog, but restored from
    /// the topic, as far as that is consumed. What cannot be decoded, or has no key, is left out then too.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] if it is no key-value store, or one that holds only so many entries.
    pub fn copy_of(self, topic: &str) -> Result<Self, BuildError> {
        let Some(format) = self.copy.clone() else {
            let reason = "only a key-value store, without max_entries, is a copy of a topic; keep a \
                          table of it, or fill this store in a processor";
            return Err(BuildError::Invalid { node: self.name, reason: reason.into() });
        };
        Ok(Self { changelog: None, source_topic: Some(topic.into()), format, ..self })
    }

    /// A key-value store; a logged one has a compacted changelog. One that holds only so many entries
    /// ([`StoreOptions::max_entries`]) is in memory.
    pub fn key_value<K: Data + Eq + Hash, V: Data>(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        options: StoreOptions,
    ) -> Self {
        let store = name.to_string();
        let copy: Arc<dyn ChangelogFormat> = Arc::new(TopicFormat::new(key.clone(), value.clone()));
        let make = move |engine| -> Box<dyn Store> {
            Box::new(KeyValueStore::new(&store, key.clone(), value.clone(), engine, options))
        };
        Self {
            name: name.into(),
            changelog: options.logged.then(TopicConfig::compacted),
            source_topic: None,
            kind: StoreKind::KeyValue,
            format: Arc::new(KeyValueFormat),
            make: Arc::new(make),
            in_memory: options.max_entries.is_some(),
            copy: options.max_entries.is_none().then_some(copy),
            mistake: options.mistake(),
        }
    }

    /// A window store; windows are `size` milliseconds long. Its changelog keeps what the store may
    /// still show, see [`WindowedOptions::changelog`].
    pub fn window<K: Data, V: Data>(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        size: Timestamp,
        options: WindowedOptions,
    ) -> Self {
        let format = WindowStore::<K, V>::changelog_format(&options);
        let changelog = options.logged.then(|| options.changelog(size));
        let kind = if options.by_time { StoreKind::WindowByTime } else { StoreKind::Window };
        Self::ordered(name, kind, changelog, format, move |store, engine| -> Box<dyn Store> {
            let (key, value) = (key.clone(), value.clone());
            Box::new(WindowStore::<K, V>::new(store, key, value, engine, size, options))
        })
    }

    /// A session store. Its changelog keeps what the store may still show, see
    /// [`WindowedOptions::changelog`].
    pub fn session<K: Data, V: Data>(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        options: WindowedOptions,
    ) -> Self {
        let format = SessionStore::<K, V>::changelog_format(&options);
        let changelog = options.logged.then(|| options.changelog(0));
        let kind = if options.by_time { StoreKind::SessionByTime } else { StoreKind::Session };
        Self::ordered(name, kind, changelog, format, move |store, engine| -> Box<dyn Store> {
            let (key, value) = (key.clone(), value.clone());
            Box::new(SessionStore::<K, V>::new(store, key, value, engine, options))
        })
    }

    /// A store of what waits for its time.
    pub fn buffer<K: Data, V: Data>(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        logged: bool,
    ) -> Self {
        let format = Arc::new(KeyValueFormat);
        let changelog = logged.then(TopicConfig::compacted);
        let kind = StoreKind::Buffer;
        Self::ordered(name, kind, changelog, format, move |store, engine| -> Box<dyn Store> {
            Box::new(BufferStore::new(store, key.clone(), value.clone(), engine, logged))
        })
    }

    /// A versioned store; its changelog lets nothing be compacted away that is younger than its history
    /// and a day.
    pub fn versioned<K: Data, V: Data>(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        options: VersionedOptions,
    ) -> Self {
        let format = VersionedStore::<K, V>::changelog_format();
        let lag = options.retention.saturating_add(DAY).unsigned_abs();
        let changelog = options
            .logged
            .then(|| TopicConfig { min_compaction_lag_ms: lag, ..TopicConfig::compacted() });
        let kind = StoreKind::Versioned;
        Self::ordered(name, kind, changelog, format, move |store, engine| -> Box<dyn Store> {
            Box::new(VersionedStore::new(store, key.clone(), value.clone(), engine, options))
        })
    }

    /// A store of a table's updates that wait, one for each key.
    pub fn change_buffer<K: Data + Eq + Hash, V: Data>(
        name: &str,
        key: DynSerde<K>,
        value: DynSerde<V>,
        logged: bool,
    ) -> Self {
        let format = Arc::new(KeyValueFormat);
        let changelog = logged.then(TopicConfig::compacted);
        let kind = StoreKind::ChangeBuffer;
        Self::ordered(name, kind, changelog, format, move |store, engine| -> Box<dyn Store> {
            Box::new(ChangeBuffer::new(store, key.clone(), value.clone(), engine, logged))
        })
    }

    /// A key-value store that is read in the order of its keys' bytes, in slices.
    pub fn sorted<V: Data>(name: &str, value: DynSerde<V>, logged: bool) -> Self {
        let format = Arc::new(KeyValueFormat);
        let changelog = logged.then(TopicConfig::compacted);
        let kind = StoreKind::Sorted;
        Self::ordered(name, kind, changelog, format, move |store, engine| -> Box<dyn Store> {
            Box::new(SortedStore::new(store, value.clone(), engine, logged))
        })
    }

    fn ordered(
        name: &str,
        kind: StoreKind,
        changelog: Option<TopicConfig>,
        format: Arc<dyn ChangelogFormat>,
        make: impl Fn(&str, Arc<dyn StoreEngine>) -> Box<dyn Store> + Send + Sync + 'static,
    ) -> Self {
        let store = name.to_string();
        Self {
            name: name.into(),
            changelog,
            source_topic: None,
            kind,
            format,
            make: Arc::new(move |engine| make(&store, engine)),
            in_memory: false,
            copy: None,
            mistake: None,
        }
    }
}

/// A topic between two sub-topologies, which the application creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InternalTopic {
    /// How many partitions; `None`: as many as the sub-topology that writes it has tasks.
    pub partitions: Option<u32>,
}
