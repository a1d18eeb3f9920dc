//! Values of tables, transformed by code with stores of its own.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use streams_core::processor::{InitContext, StoreAccess};
use streams_core::topology::NodeSpec;
use streams_core::{BuildError, Data, ProcessError};

use crate::config::{IntoTableConfig, TableConfig};
use crate::getter;
use crate::graph::TableKind;
use crate::process::ProcessorSupplier;
use crate::processors::{TableTransform, Transformed};
use crate::table::{Derived, KTable};

/// Makes the values of a table out of those of another one. Unlike a function it sees deletions, and
/// may use stores.
///
/// It is called for each update, and wherever the table is looked up or the value before an update is
/// asked for; so its answer should depend on its arguments alone, or the table be kept in a store.
pub trait ValueTransformer: Send + 'static {
    /// The table's keys.
    type Key: Data;
    /// The values that it takes.
    type VIn: Data;
    /// The values that it makes.
    type VOut: Data;

    /// Called once, before the first value: find stores.
    ///
    /// # Errors
    /// [`BuildError`] if the topology lacks something; found when it is built.
    fn init(&mut self, _cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        Ok(())
    }

    /// The value for a key; `None`: the table has none. `value` is `None` where the key is deleted or
    /// was never there.
    ///
    /// # Errors
    /// [`ProcessError`]: nothing of the generation takes effect.
    fn transform(
        &mut self,
        key: &Self::Key,
        value: Option<Self::VIn>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Self::VOut>, ProcessError>;
}

impl<K: Data + Eq + Hash, V: Data> KTable<K, V> {
    /// A table of what a transformer makes of the values.
    pub fn transform_values<S, T>(&self, supplier: S) -> KTable<K, T::VOut>
    where
        S: ProcessorSupplier<Processor = T>,
        T: ValueTransformer<Key = K, VIn = V>,
    {
        self.add_transform(supplier, &[], None)
    }

    /// As [`KTable::transform_values`], connected to these stores of the builder
    /// ([`StreamsBuilder::add_state_store`](crate::StreamsBuilder::add_state_store)), with a name, or
    /// kept in a store (which needs a name).
    pub fn transform_values_with<S, T>(
        &self,
        supplier: S,
        stores: &[&str],
        config: impl IntoTableConfig<K, T::VOut>,
    ) -> KTable<K, T::VOut>
    where
        S: ProcessorSupplier<Processor = T>,
        T: ValueTransformer<Key = K, VIn = V>,
    {
        self.add_transform(supplier, stores, Some(config.into_table_config()))
    }

    fn add_transform<S, T>(
        &self,
        supplier: S,
        stores: &[&str],
        config: Option<TableConfig<K, T::VOut>>,
    ) -> KTable<K, T::VOut>
    where
        S: ProcessorSupplier<Processor = T>,
        T: ValueTransformer<Key = K, VIn = V>,
    {
        let mut nodes = self.graph.lock();
        let Derived { name, store, key, value } =
            self.derived(&mut nodes, "KTABLE-TRANSFORMVALUES-", config, &None);
        let own = supplier.stores();
        let connected: BTreeSet<String> = stores
            .iter()
            .map(ToString::to_string)
            .chain(own.iter().map(|store| store.name.clone()))
            .collect();
        own.into_iter().for_each(|store| nodes.add_store(store));
        let supplier = Arc::new(supplier);
        let (getter, kind) = match &store {
            Some(store) => (getter::stored(&store.name), TableKind::Stored(store.name.clone())),
            None => {
                let (parent, supplier) = (self.getter.clone(), supplier.clone());
                let make: getter::MakeGetter<K, T::VOut> = Arc::new(move |cx| {
                    let (parent, mut transformer) = (parent(cx)?, supplier.processor());
                    transformer.init(cx)?;
                    Ok(Box::new(Transformed { parent, transformer }))
                });
                (make, TableKind::DerivedWith(connected.clone()))
            }
        };
        let node = self.add_derived(&mut nodes, name, store, move |name, old_values, updates| {
            let supplier = supplier.clone();
            let make = move || TableTransform {
                transformer: supplier.processor(),
                sends_old_values: old_values,
                updates: updates.clone(),
            };
            NodeSpec::processor(name, vec![], make).with_stores(connected.clone())
        });
        nodes.is_table(node, kind);
        drop(nodes);
        KTable { graph: self.graph.clone(), node, key, value, getter }
    }
}
