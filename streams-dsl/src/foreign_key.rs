//! Joins of tables by a foreign key: a row of the left table refers to a key of the right one.
//!
//! The left side sends a subscription for each row to the right side, through a topic by the foreign
//! key; the answers come back through another one, to the partition of the row.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use streams_core::processor::{Partitioner, Partitions};
use streams_core::serde::{DynSerde, HasSerde, nullable};
use streams_core::topology::{InternalTopic, NodeSpec, StoreSpec};
use streams_core::{BuildError, Data, TopologyBuilder};

use crate::config::{Given, Materialized};
use crate::getter::{self, JoinTables, LookUp, MakeGetter};
use crate::graph::{NodeId, Nodes, Plan, TableKind};
use crate::optional::Optional;
use crate::processors::{
    AnswerSubscribers, AnswerSubscription, EncodedKey, ForeignKey, KeepSubscription, Nulls,
    Outstanding, Resolve, Response, RowHash, Subscribe, Subscribers, Subscription, responses,
    subscribers, subscriptions,
};
use crate::table::{KTable, TableSourceNode};

/// How two tables are joined by a foreign key: the name of the operator, the serdes, and how the
/// tables' topics are partitioned where that is not by the hash of the key.
pub struct TableJoined<K, V, KO, VO> {
    name: Option<String>,
    key: Given<K>,
    value: Given<V>,
    other_key: Given<KO>,
    other_value: Given<VO>,
    partitioner: Option<KeyPartitioner<K>>,
    other_partitioner: Option<KeyPartitioner<KO>>,
}

type KeyPartitioner<K> = Arc<dyn Fn(&K, u32) -> u32 + Send + Sync>;

impl<K: HasSerde, V: HasSerde, KO: HasSerde, VO: HasSerde> Default for TableJoined<K, V, KO, VO> {
    fn default() -> Self {
        Self {
            name: None,
            key: Given::by_type(),
            value: Given::by_type(),
            other_key: Given::by_type(),
            other_value: Given::by_type(),
            partitioner: None,
            other_partitioner: None,
        }
    }
}

impl<K: HasSerde, V: HasSerde, KO: HasSerde, VO: HasSerde> TableJoined<K, V, KO, VO> {
    /// With a name for the operator, its nodes, its topics and its store.
    pub fn named(name: impl Into<String>) -> Self {
        Self::default().with_name(name)
    }
}

impl<K, V, KO, VO> TableJoined<K, V, KO, VO> {
    /// With these serdes: of this table's keys and values, of the other table's keys and values.
    pub fn with(
        key: DynSerde<K>,
        value: DynSerde<V>,
        other_key: DynSerde<KO>,
        other_value: DynSerde<VO>,
    ) -> Self {
        Self {
            name: None,
            key: Given::by_hand(key),
            value: Given::by_hand(value),
            other_key: Given::by_hand(other_key),
            other_value: Given::by_hand(other_value),
            partitioner: None,
            other_partitioner: None,
        }
    }

    /// The same with this name for the operator, its nodes, its topics and its store.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same, where this table's topic is partitioned like this; the last argument is how many
    /// partitions there are. Without it, answers go back to the partition that the row came from.
    pub fn with_partitioner(
        mut self,
        choose: impl Fn(&K, u32) -> u32 + Send + Sync + 'static,
    ) -> Self {
        self.partitioner = Some(Arc::new(choose));
        self
    }

    /// The same, where the other table's topic is partitioned like this.
    pub fn with_other_partitioner(
        mut self,
        choose: impl Fn(&KO, u32) -> u32 + Send + Sync + 'static,
    ) -> Self {
        self.other_partitioner = Some(Arc::new(choose));
        self
    }
}

impl<K: Data + Eq + Hash, V: Data> KTable<K, V> {
    /// Joins each row of this table with the row of another one that it refers to: `foreign_key` tells
    /// the other row's key, or `None`. Rows that refer to nothing have no result. A result changes
    /// with either row; many rows may refer to the same one.
    pub fn join_on_foreign_key<KO, VO, X, O>(
        &self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> X + Send + Sync + 'static,
        join: impl Fn(&K, &V, &VO) -> O + Send + Sync + 'static,
    ) -> KTable<K, O>
    where
        K: HasSerde,
        V: HasSerde,
        KO: Data + Eq + Hash + HasSerde,
        VO: Data + HasSerde,
        X: Optional<KO>,
        O: Data + HasSerde,
    {
        let (joined, materialized) = (TableJoined::default(), Materialized::default());
        self.join_on_foreign_key_with(other, foreign_key, join, joined, materialized)
    }

    /// As [`KTable::join_on_foreign_key`], with a name or serdes, or kept in a store (which needs a
    /// name).
    pub fn join_on_foreign_key_with<KO, VO, X, O>(
        &self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> X + Send + Sync + 'static,
        join: impl Fn(&K, &V, &VO) -> O + Send + Sync + 'static,
        joined: TableJoined<K, V, KO, VO>,
        materialized: Materialized<K, O>,
    ) -> KTable<K, O>
    where
        KO: Data + Eq + Hash,
        VO: Data,
        X: Optional<KO>,
        O: Data,
    {
        let rule = Rule {
            foreign_key: Arc::new(move |key: &K, row: &V| foreign_key(key, row).into_option()),
            join: Arc::new(move |key: &K, left: Option<&V>, right: Option<&VO>| {
                Some(join(key, left?, right?))
            }),
            is_left: false,
        };
        self.add_foreign_key_join(other, rule, joined, materialized)
    }

    /// As [`KTable::join_on_foreign_key`], and the rows that refer to nothing have results too.
    pub fn left_join_on_foreign_key<KO, VO, X, O>(
        &self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> X + Send + Sync + 'static,
        join: impl Fn(&K, &V, Option<&VO>) -> O + Send + Sync + 'static,
    ) -> KTable<K, O>
    where
        K: HasSerde,
        V: HasSerde,
        KO: Data + Eq + Hash + HasSerde,
        VO: Data + HasSerde,
        X: Optional<KO>,
        O: Data + HasSerde,
    {
        let (joined, materialized) = (TableJoined::default(), Materialized::default());
        self.left_join_on_foreign_key_with(other, foreign_key, join, joined, materialized)
    }

    /// As [`KTable::left_join_on_foreign_key`], with a name or serdes, or kept in a store (which needs
    /// a name).
    pub fn left_join_on_foreign_key_with<KO, VO, X, O>(
        &self,
        other: &KTable<KO, VO>,
        foreign_key: impl Fn(&K, &V) -> X + Send + Sync + 'static,
        join: impl Fn(&K, &V, Option<&VO>) -> O + Send + Sync + 'static,
        joined: TableJoined<K, V, KO, VO>,
        materialized: Materialized<K, O>,
    ) -> KTable<K, O>
    where
        KO: Data + Eq + Hash,
        VO: Data,
        X: Optional<KO>,
        O: Data,
    {
        let rule = Rule {
            foreign_key: Arc::new(move |key: &K, row: &V| foreign_key(key, row).into_option()),
            join: Arc::new(move |key: &K, left: Option<&V>, right: Option<&VO>| {
                Some(join(key, left?, right))
            }),
            is_left: true,
        };
        self.add_foreign_key_join(other, rule, joined, materialized)
    }

    fn add_foreign_key_join<KO: Data + Eq + Hash, VO: Data, O: Data>(
        &self,
        other: &KTable<KO, VO>,
        rule: Rule<K, V, KO, VO, O>,
        joined: TableJoined<K, V, KO, VO>,
        materialized: Materialized<K, O>,
    ) -> KTable<K, O> {
        let mut nodes = self.graph.lock();
        let names = Names::new(&mut nodes, joined.name.as_deref());
        let is_named = materialized.name.is_some();
        let key = joined.key.or(&self.key);
        let result_key = materialized.key.clone().or(&Some(key.clone()));
        let result_value = materialized.value.clone().or(&None);
        let store = materialized.store(&mut nodes, OUTPUT, &result_key, &result_value);
        let inherited =
            (materialized.key.to_inherit().or(self.key.clone()), materialized.value.to_inherit());
        let kept_in = store.name.clone();
        let getter = getter::stored(&kept_in);
        if !self.graph.is(&other.graph) {
            nodes.fail_for_two_builders(&names.result, "it joins tables");
            let (graph, node, (key, value)) = (self.graph.clone(), self.node, inherited);
            return KTable { graph, node, key, value, getter };
        }
        nodes.send_old_values(other.node, true);
        nodes.send_old_values(self.node, true);
        let result = TableSourceNode { name: names.result.clone(), store, topic: None };
        let parts = Arc::new(Parts {
            names,
            rule,
            key,
            value: joined.value.or(&self.value),
            other_key: joined.other_key.or(&other.key),
            other_value: joined.other_value.or(&other.value),
            partitioner: joined.partitioner,
            other_partitioner: joined.other_partitioner,
            rows: (self.getter.clone(), nodes.look_up(self.node)),
            values: (other.getter.clone(), nodes.look_up(other.node)),
        });
        let node = parts.add(&mut nodes, self.node, other.node);
        let node = result.add::<Option<O>>(&mut nodes, node);
        nodes.is_table(node, TableKind::Source { materialized: is_named, store: kept_in });
        drop(nodes);
        let (graph, (key, value)) = (self.graph.clone(), inherited);
        KTable { graph, node, key, value, getter }
    }
}

const OUTPUT: &str = "KTABLE-FK-JOIN-OUTPUT-";

/// What the application says of a join.
struct Rule<K, V, KO, VO, O> {
    foreign_key: Arc<ForeignKey<K, V, KO>>,
    join: Arc<JoinTables<K, V, VO, O>>,
    is_left: bool,
}

/// The names of a join's topics, nodes and store.
struct Names {
    subscription_topic: String,
    subscribe: String,
    subscription_sink: String,
    subscription_source: String,
    store: String,
    keep: String,
    answer_subscription: String,
    answer_subscribers: String,
    response_topic: String,
    response_sink: String,
    response_source: String,
    resolve: String,
    result: String,
}

impl Names {
    fn new(nodes: &mut Nodes, name: Option<&str>) -> Self {
        let mut take = |suffix: &str, prefix: &str| {
            nodes.name_or(name.map(|name| format!("{name}{suffix}")), prefix)
        };
        let registration = "KTABLE-FK-JOIN-SUBSCRIPTION-REGISTRATION-";
        let processor = "KTABLE-FK-JOIN-SUBSCRIPTION-PROCESSOR-";
        let response = "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-";
        let resolver = "KTABLE-FK-JOIN-SUBSCRIPTION-RESPONSE-RESOLVER-PROCESSOR-";
        let store = "KTABLE-FK-JOIN-SUBSCRIPTION-STATE-STORE-";
        // In the order of their numbers.
        Self {
            subscription_topic: take("-subscription-registration", registration) + "-topic",
            subscribe: take("-subscription-registration-processor", registration),
            subscription_sink: take("-subscription-registration-sink", "KTABLE-SINK-"),
            subscription_source: take("-subscription-registration-source", "KTABLE-SOURCE-"),
            store: take("-subscription-store", store),
            keep: take("-subscription-receive", processor),
            answer_subscription: take("-subscription-join-foreign", processor),
            answer_subscribers: take("-foreign-join-subscription", processor),
            response_topic: take("-subscription-response", response) + "-topic",
            response_sink: take("-subscription-response-sink", "KTABLE-SINK-"),
            response_source: take("-subscription-response-source", "KTABLE-SOURCE-"),
            resolve: take("-subscription-response-resolver", resolver),
            result: take("-result", OUTPUT),
        }
    }
}

/// A table's getter, and the stores that it takes.
type Values<K, V> = (MakeGetter<K, V>, BTreeSet<String>);

/// What the nodes of a join are made of.
struct Parts<K, V, KO, VO, O> {
    names: Names,
    rule: Rule<K, V, KO, VO, O>,
    key: DynSerde<K>,
    value: DynSerde<V>,
    other_key: DynSerde<KO>,
    other_value: DynSerde<VO>,
    partitioner: Option<KeyPartitioner<K>>,
    other_partitioner: Option<KeyPartitioner<KO>>,
    rows: Values<K, V>,
    values: Values<KO, VO>,
}

impl<K, V, KO, VO, O> Parts<K, V, KO, VO, O>
where
    K: Data + Eq + Hash,
    V: Data,
    KO: Data + Eq + Hash,
    VO: Data,
    O: Data,
{
    /// Adds the nodes in Kafka's order; answers the one whose records are the results. A node that looks
    /// a table up has it as a parent too: its topics must have as many partitions as the other's.
    fn add(self: Arc<Self>, nodes: &mut Nodes, left: NodeId, right: NodeId) -> NodeId {
        let names = &self.names;
        let this = self.clone();
        let subscribe = nodes.add(vec![left], &names.subscribe, move |plan, builder| {
            builder.add(this.subscribe(plan))
        });
        let this = self.clone();
        let topic = nodes.add(vec![subscribe], &names.subscription_source, move |_, builder| {
            this.subscription_topic(builder)
        });
        nodes.is_repartition(topic, &names.subscription_topic);
        let this = self.clone();
        let keep =
            nodes.add(vec![topic], &names.keep, move |plan, builder| this.keep(plan, builder));
        let this = self.clone();
        let answer = nodes.add(vec![keep, right], &names.answer_subscription, move |plan, b| {
            this.answer_subscription(plan, b)
        });
        let this = self.clone();
        let answers = nodes.add(vec![right], &names.answer_subscribers, move |plan, builder| {
            this.answer_subscribers(plan, builder)
        });
        let this = self.clone();
        let topic = nodes.add(vec![answer, answers], &names.response_source, move |plan, b| {
            this.response_topic(plan, b)
        });
        nodes.is_repartition(topic, &names.response_topic);
        let this = self.clone();
        nodes.add(vec![topic, left], &names.resolve, move |plan, b| this.resolve(plan, b))
    }

    fn subscribe(&self, plan: &Plan<'_>) -> NodeSpec {
        let foreign_key = self.rule.foreign_key.clone();
        let (null_keys, value) = (Nulls::of(&self.other_key), self.value.clone());
        let (is_left, outstanding) = (self.rule.is_left, Outstanding::new(&self.names.resolve));
        NodeSpec::processor(&self.names.subscribe, plan.parents(), move || Subscribe {
            foreign_key: foreign_key.clone(),
            null_keys: null_keys.clone(),
            hash: RowHash::new(&value),
            is_left,
            outstanding: outstanding.clone(),
        })
    }

    fn subscription_topic(&self, builder: &mut TopologyBuilder) -> Result<(), BuildError> {
        let Names { subscribe, subscription_topic: topic, subscription_sink: sink, .. } =
            &self.names;
        let (key, value) = (nullable(self.other_key.clone()), subscriptions(self.key.clone()));
        let choose = self.other_partitioner.clone();
        let choose = choose.map(|choose| -> Partitioner<Option<KO>, Subscription<K>> {
            Arc::new(move |key, _, partitions| {
                Partitions::One(key.as_ref().map_or(0, |key| choose(key, partitions)))
            })
        });
        builder.add_internal_topic(topic, InternalTopic::default());
        let parents = vec![subscribe.clone()];
        builder.add(NodeSpec::sink(sink, parents, topic, key.clone(), value.clone(), choose))?;
        let topics = vec![topic.clone()];
        builder.add(NodeSpec::source(&self.names.subscription_source, topics, key, value))
    }

    fn subscribers(&self) -> Subscribers<K, KO> {
        let (store, key) = (self.names.store.clone(), self.key.clone());
        Subscribers { store, key, foreign_key: self.other_key.clone() }
    }

    fn keep(&self, plan: &Plan<'_>, builder: &mut TopologyBuilder) -> Result<(), BuildError> {
        let Names { keep, store, .. } = &self.names;
        let known = self.subscribers();
        let parents = plan.parents();
        builder.add(NodeSpec::processor(keep, parents, move || KeepSubscription {
            subscribers: known.clone(),
            handle: None,
        }))?;
        builder.add_state_store(StoreSpec::sorted(store, subscribers(), true), &[keep])
    }

    /// The right table's topics and the subscriptions' meet here.
    fn answer_subscription(
        &self,
        plan: &Plan<'_>,
        builder: &mut TopologyBuilder,
    ) -> Result<(), BuildError> {
        let Names { keep, answer_subscription: name, .. } = &self.names;
        let values = self.values.0.clone();
        builder.copartition(plan.topics());
        let make = move || {
            let values = LookUp::new(&values);
            AnswerSubscription::<K, KO, VO> { values, marker: PhantomData }
        };
        let spec = NodeSpec::processor(name, vec![keep.clone()], make);
        builder.add(spec.with_stores(&self.values.1))
    }

    fn answer_subscribers(
        &self,
        plan: &Plan<'_>,
        builder: &mut TopologyBuilder,
    ) -> Result<(), BuildError> {
        let Names { answer_subscribers: name, store, .. } = &self.names;
        let known = self.subscribers();
        let make = move || {
            let (subscribers, handle) = (known.clone(), None);
            AnswerSubscribers::<K, KO, VO> { subscribers, handle, marker: PhantomData }
        };
        builder.add(NodeSpec::processor(name, plan.parents(), make).with_stores([store]))
    }

    fn response_topic(
        &self,
        plan: &Plan<'_>,
        builder: &mut TopologyBuilder,
    ) -> Result<(), BuildError> {
        let Names { response_topic: topic, response_sink: sink, response_source, .. } = &self.names;
        let (key, value) = (self.key.clone(), responses(self.other_value.clone()));
        let partitioner = self.partitioner.clone();
        let choose: Partitioner<K, Response<VO>> =
            Arc::new(move |key, response, partitions| match &partitioner {
                Some(choose) => Partitions::One(choose(key, partitions)),
                None => Partitions::One(response.partition),
            });
        builder.add_internal_topic(topic, InternalTopic::default());
        let (parents, choose) = (plan.parents(), Some(choose));
        builder.add(NodeSpec::sink(sink, parents, topic, key.clone(), value.clone(), choose))?;
        builder.add(NodeSpec::source(response_source, vec![topic.clone()], key, value))
    }

    /// The key that a row refers to, as the right side encodes it.
    fn encoded_key(&self) -> Arc<EncodedKey<K, V>> {
        let (find, serde) = (self.rule.foreign_key.clone(), self.other_key.clone());
        let null_keys = Nulls::of(&self.other_key);
        Arc::new(move |key: &K, row: &V| {
            let found = find(key, row).filter(|foreign| !null_keys.is_null(foreign));
            let mut out = Vec::new();
            found.map(|foreign| serde.put(&foreign, &mut out).map(|()| out)).transpose()
        })
    }

    /// The left table's topics and the responses' meet here.
    fn resolve(&self, plan: &Plan<'_>, builder: &mut TopologyBuilder) -> Result<(), BuildError> {
        let Names { resolve: name, response_source, .. } = &self.names;
        let (rows, value, join) = (self.rows.0.clone(), self.value.clone(), self.rule.join.clone());
        let outstanding = Outstanding::new(name);
        let refers_to = (!self.rule.is_left).then(|| self.encoded_key());
        builder.copartition(plan.topics());
        let make = move || Resolve {
            rows: LookUp::new(&rows),
            hash: RowHash::new(&value),
            outstanding: outstanding.clone(),
            join: join.clone(),
            refers_to: refers_to.clone(),
            deletions: Vec::new(),
        };
        let spec = NodeSpec::processor(name, vec![response_source.clone()], make);
        builder.add(spec.with_stores(&self.rows.1))
    }
}
