//! Joins of a stream with a table.

use std::hash::Hash;
use std::sync::Arc;

use streams_core::serde::with_headers;
use streams_core::topology::{NodeSpec, StoreSpec};
use streams_core::{BuildError, Data, HasSerde};

use crate::config::Joined;
use crate::getter::LookUp;
use crate::processors::{Grace, JoinWithTable, Nulls, TableJoinFn};
use crate::stream::KStream;
use crate::table::KTable;
use crate::windows::millis;

impl<K: Data + Eq + Hash, V: Data> KStream<K, V> {
    /// Joins each record with what a table has, at that moment, for its key. Records without a match,
    /// without a key or without a value give nothing. Only the stream makes results; they have the
    /// time of its records.
    ///
    /// ```
    /// use streams_dsl::StreamsBuilder;
    /// let builder = StreamsBuilder::new();
    /// let orders = builder.stream::<String, String>("orders");
    /// let cities = builder.table::<String, String>("cities");
    /// orders.join_table(&cities, |_, order, city| format!("{order} to {city}")).to("shipments");
    /// # builder.build()?;
    /// # Ok::<(), streams_core::BuildError>(())
    /// ```
    pub fn join_table<T: Data, O: Data>(
        &self,
        table: &KTable<K, T>,
        join: impl Fn(&K, &V, &T) -> O + Send + Sync + 'static,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.join_table_with(table, join, Joined::default())
    }

    /// As [`KStream::join_table`], with a name or serdes.
    pub fn join_table_with<T: Data, O: Data>(
        &self,
        table: &KTable<K, T>,
        join: impl Fn(&K, &V, &T) -> O + Send + Sync + 'static,
        joined: Joined<K, V, T>,
    ) -> KStream<K, O> {
        let join = move |key: &K, value: &V, found: Option<&T>| Some(join(key, value, found?));
        self.add_table_join(table, Arc::new(join), joined, false)
    }

    /// As [`KStream::join_table`], but every record that has a value gives a result.
    pub fn left_join_table<T: Data, O: Data>(
        &self,
        table: &KTable<K, T>,
        join: impl Fn(&K, &V, Option<&T>) -> O + Send + Sync + 'static,
    ) -> KStream<K, O>
    where
        K: HasSerde,
        V: HasSerde,
    {
        self.left_join_table_with(table, join, Joined::default())
    }

    /// As [`KStream::left_join_table`], with a name or serdes.
    pub fn left_join_table_with<T: Data, O: Data>(
        &self,
        table: &KTable<K, T>,
        join: impl Fn(&K, &V, Option<&T>) -> O + Send + Sync + 'static,
        joined: Joined<K, V, T>,
    ) -> KStream<K, O> {
        let join = move |key: &K, value: &V, found: Option<&T>| Some(join(key, value, found));
        self.add_table_join(table, Arc::new(join), joined, true)
    }

    fn add_table_join<T: Data, O: Data>(
        &self,
        table: &KTable<K, T>,
        join: Arc<TableJoinFn<K, V, T, O>>,
        joined: Joined<K, V, T>,
        is_left: bool,
    ) -> KStream<K, O> {
        let key_to_inherit = joined.key.to_inherit().or(self.key.clone());
        let (key, value) = (joined.key.or(&self.key), joined.value.or(&self.value));
        let mut nodes = self.graph.lock();
        let stream = self.for_join(&mut nodes, joined.name.clone(), &key, &value);
        let prefix = if is_left { "KSTREAM-LEFTJOIN-" } else { "KSTREAM-JOIN-" };
        let name = nodes.name_or(joined.name, prefix);
        if !self.graph.is(&table.graph) {
            nodes.fail_for_two_builders(&name, "it joins a stream with a table");
            drop(nodes);
            let (graph, serdes) = (self.graph.clone(), (key_to_inherit, None));
            return KStream::at(graph, self.node, name, serdes, false);
        }
        let grace = joined.grace.map(|grace| Grace::new(&name, millis(grace)));
        if let Some(grace) = &grace
            && let Some(reason) = grace.mistake(nodes.history(table.node))
        {
            nodes.fail(BuildError::Invalid { node: name.clone(), reason });
        }
        let buffer = grace.as_ref().map(|grace| {
            StoreSpec::buffer(&grace.store, key.clone(), with_headers(value.clone()), true)
        });
        let (getter, nulls) = (table.getter.clone(), (Nulls::of(&key), Nulls::of(&value)));
        let supplier = move || JoinWithTable {
            table: LookUp::new(&getter),
            null_keys: nulls.0.clone(),
            null_values: nulls.1.clone(),
            join: join.clone(),
            is_left,
            grace: grace.clone(),
        };
        let spec = NodeSpec::processor(&name, vec![], supplier);
        let spec = spec.with_stores(nodes.look_up(table.node));
        let other = table.node;
        let node = nodes.add(vec![stream], &name, move |plan, builder| {
            builder.copartition(plan.topics_with(other));
            builder.add(plan.below(&spec))?;
            match &buffer {
                Some(buffer) => builder.add_state_store(buffer.clone(), &[&spec.name]),
                None => Ok(()),
            }
        });
        if is_left {
            nodes.keeps_null_keys(node);
        }
        drop(nodes);
        KStream::at(self.graph.clone(), node, name, (key_to_inherit, None), false)
    }
}
