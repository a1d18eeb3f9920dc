//! Operators whose function is asynchronous.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use streams_core::Data;
use streams_core::processor::{AsyncCall, AsyncOptions};
use streams_core::topology::NodeSpec;

use crate::config::Named;
use crate::stream::KStream;

/// How an async operator calls: how many at once, for how long, in which order, under which name.
///
/// ```
/// use std::time::Duration;
/// use streams_dsl::AsyncConfig;
///
/// let config = AsyncConfig::<String>::new()
///     .concurrency(16)
///     .timeout(Duration::from_secs(2))
///     .ordered_by_key()
///     .named("look-up");
/// # drop(config);
/// ```
pub struct AsyncConfig<K> {
    options: AsyncOptions<K>,
    name: Named,
}

impl<K> Default for AsyncConfig<K> {
    fn default() -> Self {
        Self { options: AsyncOptions::default(), name: Named::default() }
    }
}

impl<K> AsyncConfig<K> {
    /// 100 calls at once, 30 seconds for each, results in the order of the records.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls run at once in a task, at least 1. With so many records in flight the task takes no
    /// further one of its input.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.options.concurrency = calls;
        self
    }

    /// How long a call may take before it counts as failed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Results are in order for each key only: a slow call holds up its own key.
    pub fn ordered_by_key(mut self) -> Self
    where
        K: Eq + Hash,
    {
        self.options = self.options.ordered_by_key();
        self
    }

    /// The operator's name.
    pub fn named(mut self, name: impl Into<Named>) -> Self {
        self.name = name.into();
        self
    }
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Turns each value into another one by an asynchronous call, as to another service. Many calls
    /// run at once; the results keep the order of the records. A record's result, its offset and what
    /// follows from it are one commit, whenever the application crashes; the call itself is then made
    /// again. An error, a panic or a call that takes too long goes to the `processing_handler`.
    pub fn map_values_async<V2: Data, E: Display, F>(
        &self,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        F: Future<Output = Result<V2, E>> + Send + 'static,
    {
        self.map_values_async_with(call, AsyncConfig::default())
    }

    /// As [`KStream::map_values_async`], with bounds, another order or a name.
    pub fn map_values_async_with<V2: Data, E: Display, F>(
        &self,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
        config: AsyncConfig<K>,
    ) -> KStream<K, V2>
    where
        F: Future<Output = Result<V2, E>> + Send + 'static,
    {
        let call: AsyncCall<K, V, K, V2> = Arc::new(move |key, value| {
            let result = call(key.clone(), value);
            Box::pin(async move {
                let value = result.await.map_err(|error| error.to_string())?;
                Ok((key, value))
            })
        });
        self.then_async("KSTREAM-MAPVALUES-ASYNC-", call, config, self.key.clone())
    }

    /// Turns each record into another one by an asynchronous call. See
    /// [`KStream::map_values_async`].
    pub fn map_async<K2: Data, V2: Data, E: Display, F>(
        &self,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        F: Future<Output = Result<(K2, V2), E>> + Send + 'static,
    {
        self.map_async_with(call, AsyncConfig::default())
    }

    /// As [`KStream::map_async`], with bounds, another order or a name.
    pub fn map_async_with<K2: Data, V2: Data, E: Display, F>(
        &self,
        call: impl Fn(K, V) -> F + Send + Sync + 'static,
        config: AsyncConfig<K>,
    ) -> KStream<K2, V2>
    where
        F: Future<Output = Result<(K2, V2), E>> + Send + 'static,
    {
        let call: AsyncCall<K, V, K2, V2> = Arc::new(move |key, value| {
            let result = call(key, value);
            Box::pin(async move { result.await.map_err(|error| error.to_string()) })
        });
        self.then_async("KSTREAM-MAP-ASYNC-", call, config, None).rekeyed()
    }

    fn then_async<K2: Data, V2: Data>(
        &self,
        prefix: &str,
        call: AsyncCall<K, V, K2, V2>,
        config: AsyncConfig<K>,
        key: Option<streams_core::serde::DynSerde<K2>>,
    ) -> KStream<K2, V2> {
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(config.name.0, prefix);
        let spec = NodeSpec::asynchronous(&name, vec![], call, config.options);
        let node =
            nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
        drop(nodes);
        let (graph, rekeyed) = (self.graph.clone(), self.rekeyed);
        KStream::at(graph, node, name, (key, None), rekeyed)
    }
}
