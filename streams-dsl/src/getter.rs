//! Looking values of a table up, from an operator downstream or beside it.
//!
//! A table may be kept in a store, or be computed from tables that are. Its [`MakeGetter`] knows how; the
//! operator that uses it asks the graph once, when it is added, for the stores that this takes
//! ([`Nodes::look_up`](crate::graph::Nodes::look_up)), is connected to them when it is written, and makes
//! its getter in `init`, by a [`LookUp`]:
//!
//! ```text
//! let stores = nodes.look_up(table.node);             // when the operator is added
//! builder.connect_processor_and_state_stores(..)      // when it is written
//! let look_up = LookUp::new(&table.getter);           // when its processor is made
//! look_up.init(cx)?                                   // in Processor::init
//! look_up.get(&key, cx)?                              // for a record
//! ```

use std::hash::Hash;
use std::sync::Arc;

use streams_core::processor::{Context, InitContext, OperatorTime, StoreAccess, StoreHandle};
use streams_core::state::{ChangeBuffer, KeyValueStore, SessionStore, VersionedStore, WindowStore};
use streams_core::{BuildError, Data, ProcessError, Windowed};

use crate::processors::{Place, SuppressConfig};

/// A value and its time.
pub(crate) type Found<V> = Option<(V, i64)>;

/// Looks the values of a table up.
pub(crate) trait Getter<K, V>: Send {
    /// The value of a key: the latest one, or the one that was valid at a time. Only versioned tables
    /// know the past; the others answer the latest value in any case.
    fn get(
        &mut self,
        key: &K,
        as_of: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V>, ProcessError>;

    /// What the table has told of a key whose present value waits in a cache to be told. The time is not
    /// known, and the value only where old values are asked for. The outer `None`: nothing waits.
    fn told(
        &mut self,
        _key: &K,
        _stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<V>>, ProcessError> {
        Ok(None)
    }
}

/// When a value was set, where that is not known.
const LONG_AGO: i64 = -1;

/// Makes the getter of a task.
pub(crate) type MakeGetter<K, V> =
    Arc<dyn Fn(&mut InitContext<'_>) -> Result<Box<dyn Getter<K, V>>, BuildError> + Send + Sync>;

/// A processor's side of a getter.
pub(crate) struct LookUp<K, V> {
    make: MakeGetter<K, V>,
    getter: Option<Box<dyn Getter<K, V>>>,
}

impl<K, V> LookUp<K, V> {
    pub(crate) fn new(make: &MakeGetter<K, V>) -> Self {
        Self { make: make.clone(), getter: None }
    }

    /// To be called in the processor's `init`.
    pub(crate) fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.getter = Some((self.make)(cx)?);
        Ok(())
    }

    /// The latest value of a key.
    pub(crate) fn get<K2: Data, V2: Data>(
        &mut self,
        key: &K,
        cx: &mut Context<'_, K2, V2>,
    ) -> Result<Found<V>, ProcessError> {
        self.get_as_of(key, None, cx)
    }

    /// What the table has told of a key whose present value waits in a cache: see [`Getter::told`].
    pub(crate) fn told<K2: Data, V2: Data>(
        &mut self,
        key: &K,
        cx: &mut Context<'_, K2, V2>,
    ) -> Result<Option<Option<V>>, ProcessError> {
        let told = self.getter()?.told(key, &mut cx.stores())?;
        Ok(told.map(|found| found.map(|(value, _)| value)))
    }

    /// The value that a key had at a time, as far as the table knows the past.
    pub(crate) fn get_as_of<K2: Data, V2: Data>(
        &mut self,
        key: &K,
        time: Option<i64>,
        cx: &mut Context<'_, K2, V2>,
    ) -> Result<Found<V>, ProcessError> {
        self.getter()?.get(key, time, &mut cx.stores())
    }

    fn getter(&mut self) -> Result<&mut dyn Getter<K, V>, ProcessError> {
        match &mut self.getter {
            Some(getter) => Ok(&mut **getter),
            None => Err(ProcessError::user("a table was looked into before it was there")),
        }
    }
}

/// The getter of a table that is kept in this store: of latest values, or of versions.
pub(crate) fn stored<K: Data + Eq + Hash, V: Data>(store: &str) -> MakeGetter<K, V> {
    let store = store.to_string();
    Arc::new(move |cx| match cx.store::<VersionedStore<K, V>>(&store) {
        Ok(versions) => Ok(Box::new(Versions(versions))),
        Err(_) => Ok(Box::new(Stored(cx.store::<KeyValueStore<K, V>>(&store)?))),
    })
}

struct Versions<K, V>(StoreHandle<VersionedStore<K, V>>);

impl<K: Data + Eq + Hash, V: Data> Getter<K, V> for Versions<K, V> {
    fn get(
        &mut self,
        key: &K,
        as_of: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V>, ProcessError> {
        let store = stores.look_into(self.0);
        Ok(match as_of {
            Some(time) => store.get_as_of(key, time)?,
            None => store.get(key)?,
        })
    }
}

struct Stored<K, V>(StoreHandle<KeyValueStore<K, V>>);

impl<K: Data + Eq + Hash, V: Data> Getter<K, V> for Stored<K, V> {
    fn get(
        &mut self,
        key: &K,
        _: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V>, ProcessError> {
        let found = stores.look_into(self.0).look_up(key)?;
        Ok(found.map(|(value, time)| (value.clone(), time)))
    }

    fn told(
        &mut self,
        key: &K,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<V>>, ProcessError> {
        let told = stores.look_into(self.0).forwarded(key);
        Ok(told.map(|value| value.map(|value| (value.clone(), LONG_AGO))))
    }
}

/// The getter of a table that is kept in this window store.
pub(crate) fn in_windows<K: Data, V: Data>(store: &str) -> MakeGetter<Windowed<K>, V> {
    let store = store.to_string();
    Arc::new(move |cx| Ok(Box::new(InWindows(cx.store::<WindowStore<K, V>>(&store)?))))
}

struct InWindows<K, V>(StoreHandle<WindowStore<K, V>>);

impl<K: Data, V: Data> Getter<Windowed<K>, V> for InWindows<K, V> {
    fn get(
        &mut self,
        key: &Windowed<K>,
        _: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V>, ProcessError> {
        let drains = stores.drains();
        Ok(stores.look_into(self.0).look_up(&key.key, key.window.start, drains)?)
    }

    fn told(
        &mut self,
        key: &Windowed<K>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<V>>, ProcessError> {
        let told = stores.look_into(self.0).forwarded(&key.key, key.window)?;
        Ok(told.map(|value| value.map(|value| (value, LONG_AGO))))
    }
}

/// The getter of a table that is kept in this session store.
pub(crate) fn in_sessions<K: Data, V: Data>(store: &str) -> MakeGetter<Windowed<K>, V> {
    let store = store.to_string();
    Arc::new(move |cx| Ok(Box::new(InSessions(cx.store::<SessionStore<K, V>>(&store)?))))
}

struct InSessions<K, V>(StoreHandle<SessionStore<K, V>>);

impl<K: Data, V: Data> Getter<Windowed<K>, V> for InSessions<K, V> {
    fn get(
        &mut self,
        key: &Windowed<K>,
        _: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V>, ProcessError> {
        let drains = stores.drains();
        Ok(stores.look_into(self.0).look_up(&key.key, key.window, drains)?)
    }

    fn told(
        &mut self,
        key: &Windowed<K>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<V>>, ProcessError> {
        let told = stores.look_into(self.0).forwarded(&key.key, key.window)?;
        Ok(told.map(|value| value.map(|value| (value, LONG_AGO))))
    }
}

/// The getter of a suppressed table: what it forwarded last. When that was is not known where an update
/// waits.
pub(crate) fn held_back<K: Data + Eq + Hash, V: Data>(
    parent: MakeGetter<K, V>,
    config: SuppressConfig<K>,
) -> MakeGetter<K, V> {
    Arc::new(move |cx| {
        let (place, wait) = (config.place, config.wait);
        let (buffer, time) = (cx.store(&config.store)?, cx.operator_time(&config.time));
        Ok(Box::new(HeldBack { parent: parent(cx)?, buffer, time, place, wait }))
    })
}

struct HeldBack<K, V> {
    parent: Box<dyn Getter<K, V>>,
    buffer: StoreHandle<ChangeBuffer<K, V>>,
    time: OperatorTime,
    place: Place<K>,
    wait: i64,
}

impl<K: Data, V> HeldBack<K, V> {
    /// Whether nothing was forwarded of a key so far: it is a window that has not closed. Its updates
    /// may not even have come here, but be in a cache above.
    fn is_open(&self, key: &K, stores: &mut StoreAccess<'_>) -> bool {
        match self.place {
            Place::Arrival => false,
            Place::End(end) => end(key).saturating_add(self.wait) > stores.operator_time(self.time),
        }
    }
}

impl<K: Data + Eq + Hash, V: Data> Getter<K, V> for HeldBack<K, V> {
    fn get(
        &mut self,
        key: &K,
        as_of: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V>, ProcessError> {
        match stores.look_into(self.buffer).get(key)? {
            Some(waiting) => Ok(waiting.value.old.map(|old| (old, LONG_AGO))),
            None if self.is_open(key, stores) => Ok(None),
            None => match self.parent.told(key, stores)? {
                Some(told) => Ok(told),
                None => self.parent.get(key, as_of, stores),
            },
        }
    }
}

/// The getter of a table that is computed from another one, value by value.
pub(crate) fn derived<K, V, V2, F>(parent: MakeGetter<K, V>, derive: F) -> MakeGetter<K, V2>
where
    K: Data,
    V: Data,
    V2: Data,
    F: Fn(&K, V) -> Option<V2> + Clone + Send + Sync + 'static,
{
    Arc::new(move |cx| Ok(Box::new(Derived { parent: parent(cx)?, derive: derive.clone() })))
}

struct Derived<K, V, F> {
    parent: Box<dyn Getter<K, V>>,
    derive: F,
}

impl<K, V, V2, F> Getter<K, V2> for Derived<K, V, F>
where
    F: Fn(&K, V) -> Option<V2> + Send,
{
    fn get(
        &mut self,
        key: &K,
        as_of: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<V2>, ProcessError> {
        let found = self.parent.get(key, as_of, stores)?;
        Ok(found.and_then(|(value, time)| Some(((self.derive)(key, value)?, time))))
    }

    fn told(
        &mut self,
        key: &K,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<V2>>, ProcessError> {
        let told = self.parent.told(key, stores)?;
        Ok(told
            .map(|found| found.and_then(|(value, time)| Some(((self.derive)(key, value)?, time)))))
    }
}

/// How the values of two tables become one, where there is one; `None`: there is none for the key.
pub(crate) type JoinTables<K, L, R, O> =
    dyn Fn(&K, Option<&L>, Option<&R>) -> Option<O> + Send + Sync;

/// The getter of two tables that are joined, which is not versioned even if both are, as in Kafka. Its results have the later time of both.
pub(crate) fn joined<K: 'static, L: 'static, R: 'static, O: 'static>(
    left: MakeGetter<K, L>,
    right: MakeGetter<K, R>,
    join: Arc<JoinTables<K, L, R, O>>,
) -> MakeGetter<K, O> {
    Arc::new(move |cx| {
        Ok(Box::new(Joined { left: left(cx)?, right: right(cx)?, join: join.clone() }))
    })
}

struct Joined<K, L, R, O> {
    left: Box<dyn Getter<K, L>>,
    right: Box<dyn Getter<K, R>>,
    join: Arc<JoinTables<K, L, R, O>>,
}

impl<K, L, R, O> Getter<K, O> for Joined<K, L, R, O> {
    fn get(
        &mut self,
        key: &K,
        _: Option<i64>,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Found<O>, ProcessError> {
        let left = self.left.get(key, None, stores)?;
        let right = self.right.get(key, None, stores)?;
        Ok(self.join(key, left, right))
    }

    fn told(
        &mut self,
        key: &K,
        stores: &mut StoreAccess<'_>,
    ) -> Result<Option<Found<O>>, ProcessError> {
        let (left, right) = (self.left.told(key, stores)?, self.right.told(key, stores)?);
        if left.is_none() && right.is_none() {
            return Ok(None);
        }
        let left = match left {
            Some(told) => told,
            None => self.left.get(key, None, stores)?,
        };
        let right = match right {
            Some(told) => told,
            None => self.right.get(key, None, stores)?,
        };
        Ok(Some(self.join(key, left, right)))
    }
}

impl<K, L, R, O> Joined<K, L, R, O> {
    fn join(&self, key: &K, left: Found<L>, right: Found<R>) -> Found<O> {
        let time = left.as_ref().map(|(_, time)| *time).max(right.as_ref().map(|(_, time)| *time));
        let (left, right) = (left.map(|(value, _)| value), right.map(|(value, _)| value));
        (self.join)(key, left.as_ref(), right.as_ref()).zip(time)
    }
}
