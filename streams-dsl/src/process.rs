//! Processors written by hand, within a stream.

use streams_core::Data;
use streams_core::processor::{FixedKey, FixedKeyProcessor, Processor};
use streams_core::serde::DynSerde;
use streams_core::topology::{NodeSpec, StoreSpec};

use crate::config::Named;
use crate::stream::KStream;

/// Makes a processor for each task, and may bring stores for it. A closure that returns a processor
/// is a supplier without stores.
///
/// ```
/// use streams_core::processor::{Context, Processor};
/// use streams_core::state::StoreOptions;
/// use streams_core::topology::StoreSpec;
/// use streams_core::{HasSerde, ProcessError, Record};
/// use streams_dsl::{ProcessorSupplier, StreamsBuilder};
///
/// struct Forget;
/// impl Processor for Forget {
///     type KIn = String;
///     type VIn = String;
///     type KOut = String;
///     type VOut = String;
///     fn process(
///         &mut self,
///         _: Record<String, String>,
///         _: &mut Context<'_, String, String>,
///     ) -> Result<(), ProcessError> {
///         Ok(())
///     }
/// }
///
/// struct WithStore;
/// impl ProcessorSupplier for WithStore {
///     type Processor = Forget;
///     fn processor(&self) -> Forget {
///         Forget
///     }
///     fn stores(&self) -> Vec<StoreSpec> {
///         let (key, value) = (String::serde(), i64::serde());
///         vec![StoreSpec::key_value("seen", key, value, StoreOptions::default())]
///     }
/// }
///
/// let builder = StreamsBuilder::new();
/// let events = builder.stream::<String, String>("events");
/// events.process(|| Forget);
/// events.process(WithStore);
/// assert!(builder.build()?.stores().contains_key("seen"));
/// # Ok::<(), streams_core::BuildError>(())
/// ```
pub trait ProcessorSupplier: Send + Sync + 'static {
    /// What it makes.
    type Processor: 'static;

    /// A new processor.
    fn processor(&self) -> Self::Processor;

    /// The stores that come with it, and to which it is connected. Those that are in the topology
    /// already must be the same ones: clones of one [`StoreSpec`].
    fn stores(&self) -> Vec<StoreSpec> {
        Vec::new()
    }
}

impl<P: 'static, F: Fn() -> P + Send + Sync + 'static> ProcessorSupplier for F {
    type Processor = P;

    fn processor(&self) -> P {
        self()
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Hands the records to a processor written by hand; what it forwards is the new stream. Its key
    /// may have changed, so an operator that needs the key reads the stream through a repartition
    /// topic; [`KStream::process_values`] avoids that.
    pub fn process<S, P>(&self, supplier: S) -> KStream<P::KOut, P::VOut>
    where
        S: ProcessorSupplier<Processor = P>,
        P: Processor<KIn = K, VIn = V>,
    {
        self.process_with(supplier, &[], Named::default())
    }

    /// As [`KStream::process`], connected to these stores of the builder
    /// ([`StreamsBuilder::add_state_store`](crate::StreamsBuilder::add_state_store)), with a name.
    pub fn process_with<S, P>(
        &self,
        supplier: S,
        stores: &[&str],
        named: impl Into<Named>,
    ) -> KStream<P::KOut, P::VOut>
    where
        S: ProcessorSupplier<Processor = P>,
        P: Processor<KIn = K, VIn = V>,
    {
        let own = supplier.stores();
        let make = move || supplier.processor();
        let place = Place { prefix: "KSTREAM-PROCESSOR-", named: named.into(), own, stores };
        self.add_processor(place, make, None).rekeyed()
    }

    /// As [`KStream::process`], with a processor that cannot change keys.
    pub fn process_values<S, P>(&self, supplier: S) -> KStream<K, P::VOut>
    where
        S: ProcessorSupplier<Processor = P>,
        P: FixedKeyProcessor<Key = K, VIn = V>,
    {
        self.process_values_with(supplier, &[], Named::default())
    }

    /// As [`KStream::process_values`], connected to these stores of the builder, with a name.
    pub fn process_values_with<S, P>(
        &self,
        supplier: S,
        stores: &[&str],
        named: impl Into<Named>,
    ) -> KStream<K, P::VOut>
    where
        S: ProcessorSupplier<Processor = P>,
        P: FixedKeyProcessor<Key = K, VIn = V>,
    {
        let own = supplier.stores();
        let make = move || FixedKey(supplier.processor());
        let place = Place { prefix: "KSTREAM-PROCESSVALUES-", named: named.into(), own, stores };
        self.add_processor(place, make, self.key.clone())
    }

    fn add_processor<P: Processor<KIn = K, VIn = V>>(
        &self,
        place: Place<'_>,
        make: impl Fn() -> P + Send + Sync + 'static,
        key: Option<DynSerde<P::KOut>>,
    ) -> KStream<P::KOut, P::VOut> {
        let mut nodes = self.graph.lock();
        // A given name uses up no number here, as in Kafka.
        let name = place.named.0.unwrap_or_else(|| nodes.new_name(place.prefix));
        let brought = place.own.iter().map(|store| store.name.clone());
        let mut connected: Vec<String> = place.stores.iter().map(ToString::to_string).collect();
        connected.extend(brought);
        let spec = NodeSpec::processor(&name, vec![], make).with_stores(connected);
        place.own.into_iter().for_each(|store| nodes.add_store(store));
        let node =
            nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
        drop(nodes);
        KStream::at(self.graph.clone(), node, name, (key, None), self.rekeyed)
    }
}

/// Where a processor stands.
struct Place<'a> {
    prefix: &'static str,
    named: Named,
    /// The stores that its supplier brings.
    own: Vec<StoreSpec>,
    /// The names of others that it is connected to.
    stores: &'a [&'a str],
}
