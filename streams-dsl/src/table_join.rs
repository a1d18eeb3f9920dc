//! Joins of tables by their keys.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use streams_core::topology::NodeSpec;
use streams_core::{BuildError, Change, Data, Record, TopologyBuilder};

use crate::config::{IntoTableConfig, TableConfig};
use crate::getter::{self, JoinTables, LookUp, MakeGetter};
use crate::graph::{Nodes, Plan, TableKind};
use crate::processors::{KeepJoined, TableJoin, TableStore, stateless};
use crate::table::KTable;

/// Of which tables a key must be for a result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

impl<K: Data + Eq + Hash, V: Data> KTable<K, V> {
    /// A table of what `join` makes of the values that a key has in both tables. The topics of the
    /// tables must have equal numbers of partitions.
    pub fn join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, &V, &V2) -> O + Send + Sync + 'static,
    ) -> KTable<K, O> {
        self.add_inner_join(other, join, None)
    }

    /// As [`KTable::join`], with a name, or kept in a store.
    pub fn join_with<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, &V, &V2) -> O + Send + Sync + 'static,
        config: impl IntoTableConfig<K, O>,
    ) -> KTable<K, O> {
        self.add_inner_join(other, join, Some(config.into_table_config()))
    }

    fn add_inner_join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, &V, &V2) -> O + Send + Sync + 'static,
        config: Option<TableConfig<K, O>>,
    ) -> KTable<K, O> {
        let join =
            move |key: &K, left: Option<&V>, right: Option<&V2>| Some(join(key, left?, right?));
        self.add_join(other, Arc::new(join), Kind::Inner, config)
    }

    /// As [`KTable::join`], for every key of this table, whether the other one has it or not.
    pub fn left_join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, &V, Option<&V2>) -> O + Send + Sync + 'static,
    ) -> KTable<K, O> {
        self.add_left_join(other, join, None)
    }

    /// As [`KTable::left_join`], with a name, or kept in a store.
    pub fn left_join_with<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, &V, Option<&V2>) -> O + Send + Sync + 'static,
        config: impl IntoTableConfig<K, O>,
    ) -> KTable<K, O> {
        self.add_left_join(other, join, Some(config.into_table_config()))
    }

    fn add_left_join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, &V, Option<&V2>) -> O + Send + Sync + 'static,
        config: Option<TableConfig<K, O>>,
    ) -> KTable<K, O> {
        let join =
            move |key: &K, left: Option<&V>, right: Option<&V2>| Some(join(key, left?, right));
        self.add_join(other, Arc::new(join), Kind::Left, config)
    }

    /// As [`KTable::join`], for every key that one of the tables has.
    pub fn outer_join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, Option<&V>, Option<&V2>) -> O + Send + Sync + 'static,
    ) -> KTable<K, O> {
        self.add_outer_join(other, join, None)
    }

    /// As [`KTable::outer_join`], with a name, or kept in a store.
    pub fn outer_join_with<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, Option<&V>, Option<&V2>) -> O + Send + Sync + 'static,
        config: impl IntoTableConfig<K, O>,
    ) -> KTable<K, O> {
        self.add_outer_join(other, join, Some(config.into_table_config()))
    }

    fn add_outer_join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: impl Fn(&K, Option<&V>, Option<&V2>) -> O + Send + Sync + 'static,
        config: Option<TableConfig<K, O>>,
    ) -> KTable<K, O> {
        let join = move |key: &K, left: Option<&V>, right: Option<&V2>| {
            (left.is_some() || right.is_some()).then(|| join(key, left, right))
        };
        self.add_join(other, Arc::new(join), Kind::Outer, config)
    }

    fn add_join<V2: Data, O: Data>(
        &self,
        other: &KTable<K, V2>,
        join: Arc<JoinTables<K, V, V2, O>>,
        kind: Kind,
        config: Option<TableConfig<K, O>>,
    ) -> KTable<K, O> {
        let mut nodes = self.graph.lock();
        let (name, materialized) = match config {
            Some(config) => (config.name, config.is_materialized.then_some(config.materialized)),
            None => (None, None),
        };
        let given = materialized.as_ref();
        let key = given.and_then(|given| given.key.to_inherit()).or(self.key.clone());
        let value = given.and_then(|given| given.value.to_inherit());
        let store = materialized.map(|given| {
            let (key, value) = (given.key.clone().or(&self.key), given.value.clone().or(&None));
            given.store(&mut nodes, MERGE, &key, &value)
        });
        let names = Names::new(&mut nodes, name);
        let mut parents = vec![self.node, other.node];
        if !self.graph.is(&other.graph) {
            nodes.fail_for_two_builders(&names.merge, "it joins tables");
            parents = vec![self.node; 2];
        }
        if kind != Kind::Inner {
            nodes.send_old_values(parents[0], true);
        }
        if kind == Kind::Outer {
            nodes.send_old_values(parents[1], true);
        }
        let table = TableKind::Joined(store.as_ref().map(|store| store.name.clone()));
        let getter = match &store {
            Some(store) => getter::stored(&store.name),
            None => getter::joined(self.getter.clone(), other.getter.clone(), join.clone()),
        };
        let output = names.merge.clone();
        let join = Join {
            names,
            kind,
            join,
            left: Side { getter: self.getter.clone(), stores: nodes.look_up(parents[0]) },
            right: Side { getter: other.getter.clone(), stores: nodes.look_up(parents[1]) },
            store,
        };
        let node = nodes.add(parents, &output, move |plan, builder| join.write(plan, builder));
        nodes.is_table(node, table);
        drop(nodes);
        KTable { graph: self.graph.clone(), node, key, value, getter }
    }
}

const MERGE: &str = "KTABLE-MERGE-";

/// The names of a join's nodes.
struct Names {
    merge: String,
    this: String,
    other: String,
}

impl Names {
    fn new(nodes: &mut Nodes, name: Option<String>) -> Self {
        let suffixed = |suffix: &str| name.as_ref().map(|name| format!("{name}{suffix}"));
        Self {
            merge: nodes.name_or(name.clone(), MERGE),
            this: nodes.name_or(suffixed("-join-this"), "KTABLE-JOINTHIS-"),
            other: nodes.name_or(suffixed("-join-other"), "KTABLE-JOINOTHER-"),
        }
    }
}

/// A table, as the other one looks into it.
struct Side<K, V> {
    getter: MakeGetter<K, V>,
    stores: BTreeSet<String>,
}

struct Join<K, L, R, O> {
    names: Names,
    kind: Kind,
    join: Arc<JoinTables<K, L, R, O>>,
    left: Side<K, L>,
    right: Side<K, R>,
    store: Option<TableStore<K, O>>,
}

impl<K: Data + Eq + Hash, L: Data, R: Data, O: Data> Join<K, L, R, O> {
    fn write(&self, plan: &Plan<'_>, builder: &mut TopologyBuilder) -> Result<(), BuildError> {
        let Self { names: Names { merge, this, other }, kind, left, right, .. } = self;
        builder.copartition(plan.topics());
        let (parents, sends_old) = (plan.parents(), plan.sends_old_values());
        // Of tables in the same store a row goes with that of the other, in silence as in Kafka.
        let tells_both_gone = *kind == Kind::Inner && left.stores.is_disjoint(&right.stores);

        let join = self.join.clone();
        let parent = parents[0].clone();
        builder.add(side(
            this,
            parent,
            join,
            right,
            (*kind == Kind::Inner, tells_both_gone),
            sends_old,
        ))?;
        let join = self.join.clone();
        let join: Arc<JoinTables<K, R, L, O>> =
            Arc::new(move |key: &K, right: Option<&R>, left: Option<&L>| join(key, left, right));
        let parent = parents[1].clone();
        builder.add(side(
            other,
            parent,
            join,
            left,
            (*kind != Kind::Outer, tells_both_gone),
            sends_old,
        ))?;

        let sides = vec![this.clone(), other.clone()];
        match &self.store {
            Some(store) => {
                let updates = store.updates();
                let keep = move || KeepJoined { updates: updates.clone() };
                builder.add(NodeSpec::processor(merge, sides, keep))?;
                builder.add_state_store(store.spec(sends_old), &[merge])
            }
            None => {
                let pass = stateless(|record: Record<K, Change<O>>, cx| cx.forward(record));
                builder.add(NodeSpec::processor(merge, sides, pass))
            }
        }
    }
}

/// The node that joins the updates of one table with the values of the other.
fn side<K: Data, T: Data, X: Data, O: Data>(
    name: &str,
    parent: String,
    join: Arc<JoinTables<K, T, X, O>>,
    other: &Side<K, X>,
    (needs_other, tells_both_gone): (bool, bool),
    sends_old_values: bool,
) -> NodeSpec {
    let getter = other.getter.clone();
    let make = move || TableJoin {
        join: join.clone(),
        other: LookUp::new(&getter),
        needs_other,
        tells_both_gone,
        sends_old_values,
    };
    NodeSpec::processor(name, vec![parent], make).with_stores(&other.stores)
}
