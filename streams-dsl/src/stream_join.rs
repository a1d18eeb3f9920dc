//! Joins of a stream with another stream.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::serde::DynSerde;
use streams_core::state::WindowedOptions;
use streams_core::topology::{InternalTopic, NodeSpec, StoreSpec};
use streams_core::{BuildError, Data, HasSerde, Record, TopologyBuilder};

use crate::config::Given;
use crate::graph::{NodeId, Nodes, Plan, Way};
use crate::processors::{
    Join, JoinFn, JoinSide, JoinWithKept, KeepForJoin, LeftSide, Nulls, RightSide, SelfJoin,
    SideSerde, stateless,
};
use crate::repartition::{Names, Repartition};
use crate::stream::KStream;
use crate::windows::JoinWindows;

/// How two streams are joined: the name of the operator, the name of its stores, the serdes.
pub struct StreamJoined<K, V, V2> {
    name: Option<String>,
    store: Option<String>,
    key: Given<K>,
    value: Given<V>,
    other: Given<V2>,
    logging: bool,
}

impl<K: HasSerde, V: HasSerde, V2: HasSerde> Default for StreamJoined<K, V, V2> {
    fn default() -> Self {
        Self {
            name: None,
            store: None,
            key: Given::by_type(),
            value: Given::by_type(),
            other: Given::by_type(),
            logging: true,
        }
    }
}

impl<K: HasSerde, V: HasSerde, V2: HasSerde> StreamJoined<K, V, V2> {
    /// With a name for the operator, its nodes and its repartition topics.
    pub fn named(name: impl Into<String>) -> Self {
        Self::default().with_name(name)
    }
}

impl<K, V, V2> StreamJoined<K, V, V2> {
    /// With these serdes: of keys, of this stream's values, of the other stream's values.
    pub fn with(key: DynSerde<K>, value: DynSerde<V>, other: DynSerde<V2>) -> Self {
        Self {
            name: None,
            store: None,
            key: Given::by_hand(key),
            value: Given::by_hand(value),
            other: Given::by_hand(other),
            logging: true,
        }
    }

    /// The same with this name for the operator, its nodes and its repartition topics.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same with names of stores, and so of changelog topics, that begin with this.
    pub fn with_store_name(mut self, name: impl Into<String>) -> Self {
        self.store = Some(name.into());
        self
    }

    /// The same without changelog topics: what waits for partners is lost with the stores' files.
    pub fn with_logging_disabled(mut self) -> Self {
        self.logging = false;
        self
    }
}

/// Which sides come out without a partner too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Joins the records of two streams that have equal keys and are near in time: each pair gives a
    /// result, with the later of the two timestamps. Records without a key or value are dropped.
    ///
    /// ```
    /// use std::time::Duration;
    /// use streams_dsl::{JoinWindows, StreamsBuilder};
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.stream::<String, String>("orders");
    /// let payments = builder.stream::<String, i64>("payments");
    /// let windows = JoinWindows::of(Duration::from_secs(3600));
    /// orders.join(&payments, |_, order, paid| format!("{order}: {paid}"), windows).to("paid");
    /// # builder.build()?;
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn join<V2: Data + HasSerde, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: impl Fn(&K, &V, &V2) -> O + Send + Sync + 'static,
        windows: JoinWindows,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.join_with(other, join, windows, StreamJoined::default())
    }

    /// As [`KStream::join`], with names or serdes.
    pub fn join_with<V2: Data, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: impl Fn(&K, &V, &V2) -> O + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, V2>,
    ) -> KStream<K, O> {
        let join =
            move |key: &K, left: Option<&V>, right: Option<&V2>| Some(join(key, left?, right?));
        self.add_join(other, Arc::new(join), windows, joined, Kind::Inner)
    }

    /// As [`KStream::join`], but every record of this stream gives a result. If it has no partner,
    /// that comes when no more can come: once stream time has passed its window and grace. A record
    /// of this stream without a key has no partner, and its result comes at once.
    pub fn left_join<V2: Data + HasSerde, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: impl Fn(&K, &V, Option<&V2>) -> O + Send + Sync + 'static,
        windows: JoinWindows,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.left_join_with(other, join, windows, StreamJoined::default())
    }

    /// As [`KStream::left_join`], with names or serdes.
    pub fn left_join_with<V2: Data, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: impl Fn(&K, &V, Option<&V2>) -> O + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, V2>,
    ) -> KStream<K, O> {
        let join =
            move |key: &K, left: Option<&V>, right: Option<&V2>| Some(join(key, left?, right));
        self.add_join(other, Arc::new(join), windows, joined, Kind::Left)
    }

    /// As [`KStream::left_join`], but for the records of both streams.
    pub fn outer_join<V2: Data + HasSerde, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: impl Fn(&K, Option<&V>, Option<&V2>) -> O + Send + Sync + 'static,
        windows: JoinWindows,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.outer_join_with(other, join, windows, StreamJoined::default())
    }

    /// As [`KStream::outer_join`], with names or serdes.
    pub fn outer_join_with<V2: Data, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: impl Fn(&K, Option<&V>, Option<&V2>) -> O + Send + Sync + 'static,
        windows: JoinWindows,
        joined: StreamJoined<K, V, V2>,
    ) -> KStream<K, O> {
        let join =
            move |key: &K, left: Option<&V>, right: Option<&V2>| Some(join(key, left, right));
        self.add_join(other, Arc::new(join), windows, joined, Kind::Outer)
    }

    fn add_join<V2: Data, O: Data>(
        &self,
        other: &KStream<K, V2>,
        join: Arc<JoinFn<K, V, V2, O>>,
        windows: JoinWindows,
        joined: StreamJoined<K, V, V2>,
        kind: Kind,
    ) -> KStream<K, O> {
        let key_to_inherit = joined.key.to_inherit().or(self.key.clone());
        let key = joined.key.or(&self.key);
        let (left, right) = (joined.value.or(&self.value), joined.other.or(&other.value));
        let mut nodes = self.graph.lock();
        let name = joined.name.as_deref();
        let topic = |side: &str| name.map(|name| format!("{name}-{side}"));
        let left_node = self.for_join(&mut nodes, topic("left"), &key, &left);
        let right_node = other.for_join(&mut nodes, topic("right"), &key, &right);
        let names = JoinNames::new(&mut nodes, name, joined.store.as_deref(), kind);
        if !self.graph.is(&other.graph) {
            nodes.fail_for_two_builders(&names.merge, "it joins streams");
        }
        let retention = windows.retention();
        let left = Kept {
            retention,
            windowed: names.left_windowed.clone(),
            store: names.left_store.clone(),
            key: key.clone(),
            value: left,
            logging: joined.logging,
        };
        let right = Kept {
            retention,
            windowed: names.right_windowed.clone(),
            store: names.right_store.clone(),
            key: key.clone(),
            value: right,
            logging: joined.logging,
        };
        if let Some(reason) = windows.mistake() {
            nodes.fail(BuildError::Invalid { node: names.merge.clone(), reason });
        }
        // Of one stream, both sides have values of one type.
        let one_type = Box::new(join.clone()) as Box<dyn Any>;
        let with_itself = one_type.downcast().ok().map(|join| *join);
        let (left_role, right_role) = match with_itself {
            Some(_) => (Role::First, Role::Second),
            None => (Role::Own, Role::Own),
        };
        let left_side = left.clone().add(&mut nodes, left_node, left_role);
        let right_side = right.clone().add(&mut nodes, right_node, right_role);
        nodes.are_sides(left_side, right_side);
        let merge = names.merge.clone();
        let join = StreamJoin { names, left, right, windows, kind, join, with_itself };
        let node = join.add(&mut nodes, vec![left_node, right_node]);
        if kind != Kind::Inner {
            nodes.keeps_null_keys(node);
        }
        drop(nodes);
        KStream::at(self.graph.clone(), node, merge, (key_to_inherit, None), false)
    }

    /// The node that a join hangs on: this stream, read through a repartition topic if its key may
    /// have changed. Joins without a name share the topic.
    pub(crate) fn for_join(
        &self,
        nodes: &mut Nodes,
        topic: Option<String>,
        key: &DynSerde<K>,
        value: &DynSerde<V>,
    ) -> NodeId {
        if !self.rekeyed {
            return self.node;
        }
        let names = Names::new(nodes, topic.as_ref().unwrap_or(&self.name));
        if let Some(&shared) = self.join_repartition.get().filter(|_| topic.is_none()) {
            nodes.use_again(shared);
            return shared;
        }
        let repartition = Repartition {
            names,
            key: key.clone(),
            value: value.clone(),
            topic: InternalTopic::default(),
            partitioner: None,
        };
        let node = repartition.add(nodes, self.node, |value: V| value);
        nodes.goes(node, Way::Repartitions);
        if topic.is_none() {
            self.join_repartition.get_or_init(|| node);
        }
        node
    }
}

/// The names of a join's nodes and stores.
#[derive(Clone)]
struct JoinNames {
    left_windowed: String,
    right_windowed: String,
    left: String,
    right: String,
    merge: String,
    left_store: String,
    right_store: String,
    buffer: String,
    time: String,
}

impl JoinNames {
    fn new(nodes: &mut Nodes, name: Option<&str>, store: Option<&str>, kind: Kind) -> Self {
        let (this, this_suffix) = match kind {
            Kind::Outer => ("KSTREAM-OUTERTHIS-", "-outer-this-join"),
            _ => ("KSTREAM-JOINTHIS-", "-this-join"),
        };
        let (other, other_suffix) = match kind {
            Kind::Inner => ("KSTREAM-JOINOTHER-", "-other-join"),
            _ => ("KSTREAM-OUTEROTHER-", "-outer-other-join"),
        };
        let mut given_or = |suffix: &str, prefix: &str| match name {
            Some(name) => format!("{name}{suffix}"),
            None => nodes.new_name(prefix),
        };
        let left_windowed = given_or("-this-windowed", "KSTREAM-WINDOWED-");
        let right_windowed = given_or("-other-windowed", "KSTREAM-WINDOWED-");
        // These use up a number even if a name is given: the stores are named after them.
        let (left, right) = (nodes.new_name(this), nodes.new_name(other));
        let merge = match name {
            Some(name) => format!("{name}-merge"),
            None => nodes.new_name("KSTREAM-MERGE-"),
        };
        let number = left.rsplit('-').next().unwrap_or_default();
        let buffer = match (store, kind) {
            (Some(store), Kind::Outer) => format!("{store}-outer-shared-join-store"),
            (Some(store), _) => format!("{store}-left-shared-join-store"),
            (None, _) => format!("KSTREAM-OUTERSHARED-{number}-store"),
        };
        let of = |suffix: &str, generated: &str, given: Option<&str>| match given {
            Some(given) => format!("{given}{suffix}"),
            None => generated.to_string(),
        };
        Self {
            left_windowed,
            right_windowed,
            merge,
            left_store: of(this_suffix, &left, store) + "-store",
            right_store: of(other_suffix, &right, store) + "-store",
            buffer,
            time: format!("{}-time", of(this_suffix, &left, name)),
            left: of(this_suffix, &left, name),
            right: of(other_suffix, &right, name),
        }
    }
}

/// What a side is if a stream is joined with itself, which can do with one store. Whether it is shows
/// when the topology is written: two streams of one topic are one then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It cannot be: their types differ.
    Own,
    First,
    Second,
}

/// One side's records, kept for the other.
struct Kept<K, V> {
    windowed: String,
    store: String,
    key: DynSerde<K>,
    value: DynSerde<V>,
    retention: i64,
    logging: bool,
}

impl<K, V> Clone for Kept<K, V> {
    fn clone(&self) -> Self {
        Self {
            windowed: self.windowed.clone(),
            store: self.store.clone(),
            key: self.key.clone(),
            value: self.value.clone(),
            ..*self
        }
    }
}

impl<K: Data, V: Data> Kept<K, V> {
    /// Adds the node that keeps them, behind `parent`.
    fn add(self, nodes: &mut Nodes, parent: NodeId, role: Role) -> NodeId {
        let output = self.windowed.clone();
        nodes.add(vec![parent], &output, move |plan, builder| {
            let one_store =
                plan.optimization().single_store_self_join && plan.is_beside_other_side();
            if one_store && role == Role::Second {
                return Ok(());
            }
            let (nulls, store) = (self.nulls(), self.store.clone());
            let afterwards = one_store && role == Role::First;
            let keep = move || KeepForJoin {
                store: store.clone(),
                null_keys: nulls.0.clone(),
                null_values: nulls.1.clone(),
                afterwards,
                handle: None,
            };
            builder.add(NodeSpec::processor(&self.windowed, plan.parents(), keep))
        })
    }

    fn nulls(&self) -> (Nulls<K>, Nulls<V>) {
        (Nulls::of(&self.key), Nulls::of(&self.value))
    }

    fn spec(&self) -> StoreSpec {
        let options = WindowedOptions {
            logged: self.logging,
            duplicates: true,
            ..WindowedOptions::new(self.retention)
        };
        StoreSpec::window(&self.store, self.key.clone(), self.value.clone(), 0, options)
    }
}

/// The nodes that join, and the one where their results meet.
struct StreamJoin<K, L, R, O> {
    names: JoinNames,
    left: Kept<K, L>,
    right: Kept<K, R>,
    windows: JoinWindows,
    kind: Kind,
    join: Arc<JoinFn<K, L, R, O>>,
    /// The same, if it can be the join of a stream with itself.
    with_itself: Option<Arc<JoinFn<K, L, L, O>>>,
}

impl<K: Data, L: Data, R: Data, O: Data> StreamJoin<K, L, R, O> {
    fn add(self, nodes: &mut Nodes, parents: Vec<NodeId>) -> NodeId {
        let output = self.names.merge.clone();
        nodes.add(parents, &output, move |plan, builder| {
            builder.copartition(plan.topics());
            self.write(plan, builder)
        })
    }

    fn write(&self, plan: &Plan<'_>, builder: &mut TopologyBuilder) -> Result<(), BuildError> {
        let Self { names, left, right, kind, .. } = self;
        if let ([parent, other], Some(join)) = (&plan.parents()[..], &self.with_itself)
            && parent == other
            && plan.optimization().single_store_self_join
        {
            builder.add(self.with_itself(join))?;
            return builder.add_state_store(left.spec(), &[&names.left_windowed, &names.merge]);
        }
        builder.add(self.side::<LeftSide>(*kind != Kind::Inner, left.nulls()))?;
        builder.add(self.side::<RightSide>(*kind == Kind::Outer, right.nulls()))?;
        let pass = stateless(|record: Record<K, O>, cx| cx.forward(record));
        let sides = vec![names.left.clone(), names.right.clone()];
        builder.add(NodeSpec::processor(&names.merge, sides, pass))?;

        builder.add_state_store(left.spec(), &[&names.left_windowed, &names.right])?;
        builder.add_state_store(right.spec(), &[&names.right_windowed, &names.left])?;
        if *kind == Kind::Inner {
            return Ok(());
        }
        let (key, logging) = (left.key.clone(), left.logging);
        let value = SideSerde { left: left.value.clone(), right: right.value.clone() };
        let buffer = StoreSpec::buffer(&names.buffer, key, Arc::new(value), logging);
        builder.add_state_store(buffer, &[&names.left, &names.right])
    }

    /// The node that joins the records of a stream with each other.
    fn with_itself(&self, join: &Arc<JoinFn<K, L, L, O>>) -> NodeSpec {
        let (names, join, windows) = (self.names.clone(), join.clone(), self.windows);
        let (null_keys, null_values) = self.left.nulls();
        let store = self.left.store.clone();
        let (name, parent) = (&self.names.merge, vec![names.left_windowed]);
        NodeSpec::processor(name, parent, move || SelfJoin {
            windows,
            time: names.time.clone(),
            join: join.clone(),
            store: store.clone(),
            null_keys: null_keys.clone(),
            null_values: null_values.clone(),
            handles: None,
        })
    }

    /// The node that joins the records of one side with those of the other.
    fn side<S: JoinSide<L, R>>(
        &self,
        is_outer: bool,
        (null_keys, null_values): (Nulls<K>, Nulls<S::This>),
    ) -> NodeSpec {
        let names = &self.names;
        let (name, parent, other_store) = match S::IS_LEFT {
            true => (&names.left, &names.left_windowed, &names.right_store),
            false => (&names.right, &names.right_windowed, &names.left_store),
        };
        let join = Join {
            windows: self.windows,
            time: names.time.clone(),
            join: self.join.clone(),
            buffer: (self.kind != Kind::Inner).then(|| names.buffer.clone()),
        };
        let other_store = other_store.clone();
        NodeSpec::processor(name, vec![parent.clone()], move || JoinWithKept::<K, L, R, O, S> {
            join: join.clone(),
            other_store: other_store.clone(),
            is_outer,
            null_keys: null_keys.clone(),
            null_values: null_values.clone(),
            handles: None,
            marker: PhantomData,
        })
    }
}
