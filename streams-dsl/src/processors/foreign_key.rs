//! Joins of tables by a foreign key: both sides of the conversation.
//!
//! The left side subscribes each row to the key that it refers to ([`Subscribe`]); the right side keeps
//! the subscriptions ([`KeepSubscription`]) and answers: to a new subscription with its value
//! ([`AnswerSubscription`]), and with each new value to all who are subscribed ([`AnswerSubscribers`]).
//! Back on the left side an answer counts only if the row still is what it was subscribed with
//! ([`Resolve`]): answers of two partitions may overtake each other.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use streams_core::processor::{Context, InitContext, OperatorTime, Processor, StoreHandle};
use streams_core::serde::DynSerde;
use streams_core::state::SortedStore;
use streams_core::{BuildError, Change, Data, ProcessError, Record, SerdeError};

use super::Nulls;
use super::letting_go::AT_ONCE;
use super::subscription::{
    Instruction, LENGTH, Response, Subscriber, Subscription, combined_key, end_of, prefix,
};
use super::table_join::OUT_OF_ORDER;
use crate::getter::{JoinTables, LookUp};
use crate::murmur3::hash128;

/// The key that a row refers to; `None`: none.
pub(crate) type ForeignKey<K, V, KO> = dyn Fn(&K, &V) -> Option<KO> + Send + Sync;

/// The same, encoded.
pub(crate) type EncodedKey<K, V> =
    dyn Fn(&K, &V) -> Result<Option<Vec<u8>>, SerdeError> + Send + Sync;

/// The subscriptions of a task, below [`combined_key`].
pub(crate) type SubscriptionStore = SortedStore<Subscriber>;

/// Recognises the values of rows.
pub(crate) struct RowHash<V> {
    serde: DynSerde<V>,
    scratch: Vec<u8>,
}

impl<V: 'static> RowHash<V> {
    pub(crate) fn new(serde: &DynSerde<V>) -> Self {
        Self { serde: serde.clone(), scratch: Vec::new() }
    }

    fn of(&mut self, value: Option<&V>) -> Result<Option<u128>, ProcessError> {
        let Some(value) = value else { return Ok(None) };
        self.scratch.clear();
        self.serde.put(value, &mut self.scratch).map_err(|e| failed("a row", e))?;
        Ok(Some(hash128(&self.scratch)))
    }
}

fn failed(what: &str, error: SerdeError) -> ProcessError {
    ProcessError::user(format!("{what} of a foreign-key join: {error}"))
}

/// Whether answers are on the way that delete a result, perhaps. If the row changes before such an
/// answer comes, it is dropped, and then the row's next answer has to say so instead: it must come, also
/// if there is nothing to join with. (Kafka does not ask for it, and keeps results that are over.)
///
/// What is counted rides with the committed offsets, so it is known after a crash.
#[derive(Clone)]
pub(crate) struct Outstanding {
    name: String,
    times: Option<Times>,
}

#[derive(Clone, Copy)]
struct Times {
    /// How many answers are waited for, and how many of them came.
    due: OperatorTime,
    came: OperatorTime,
    /// How many were dropped, and for how many of them the rows that changed have been looked at:
    /// those of a cached table are only at the seal.
    dropped: OperatorTime,
    settled: OperatorTime,
}

impl Outstanding {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), times: None }
    }

    fn init(&mut self, cx: &mut InitContext<'_>) {
        let mut time = |what: &str| cx.operator_time(&format!("{}-{what}", self.name));
        self.times = Some(Times {
            due: time("due"),
            came: time("came"),
            dropped: time("dropped"),
            settled: time("settled"),
        });
    }

    /// An answer will come.
    fn ask<K: Data, V: Data>(&self, cx: &mut Context<'_, K, V>) {
        if let Some(times) = self.times {
            *cx.operator_time(times.due) += 1;
        }
    }

    /// It came.
    fn came<K: Data, V: Data>(&self, is_stale: bool, cx: &mut Context<'_, K, V>) {
        if let Some(times) = self.times {
            *cx.operator_time(if is_stale { times.dropped } else { times.came }) += 1;
        }
    }

    /// All rows that have changed so far were looked at.
    fn settle<K: Data, V: Data>(&self, cx: &mut Context<'_, K, V>) {
        if let Some(times) = self.times {
            *cx.operator_time(times.settled) = *cx.operator_time(times.dropped);
        }
    }

    fn are_there<K: Data, V: Data>(&self, cx: &mut Context<'_, K, V>) -> bool {
        self.times.is_some_and(|times| {
            // They begin at -1.
            let count = |time, cx: &mut Context<'_, K, V>| *cx.operator_time(time) + 1;
            count(times.due, cx) > count(times.came, cx) + count(times.settled, cx)
        })
    }
}

/// Tells the right side of the rows of the left one.
pub(crate) struct Subscribe<K, V, KO> {
    pub(crate) foreign_key: Arc<ForeignKey<K, V, KO>>,
    pub(crate) null_keys: Nulls<KO>,
    pub(crate) hash: RowHash<V>,
    /// Whether rows without a partner have results too.
    pub(crate) is_left: bool,
    pub(crate) outstanding: Outstanding,
}

impl<K: Data, V: Data, KO: Data + Eq> Processor for Subscribe<K, V, KO> {
    type KIn = K;
    type VIn = Change<V>;
    type KOut = Option<KO>;
    type VOut = Subscription<K>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.outstanding.init(cx);
        Ok(())
    }

    fn before_seal(
        &mut self,
        cx: &mut Context<'_, Option<KO>, Subscription<K>>,
    ) -> Result<(), ProcessError> {
        self.outstanding.settle(cx);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        cx: &mut Context<'_, Option<KO>, Subscription<K>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value: Change { new, old, is_latest, .. }, timestamp, headers } = record;
        if !is_latest {
            cx.drop_record(OUT_OF_ORDER);
            return Ok(());
        }
        let foreign_key = |row: Option<&V>| {
            (self.foreign_key)(&key, row?).filter(|foreign| !self.null_keys.is_null(foreign))
        };
        let (to, from) = (foreign_key(new.as_ref()), foreign_key(old.as_ref()));
        let hash = self.hash.of(new.as_ref())?;
        let partition = cx.task_id().partition;
        let must_answer = !self.is_left && self.outstanding.are_there(cx);
        let outstanding = &self.outstanding;
        let mut send = |to, instruction| {
            if matches!(instruction, Instruction::Answer | Instruction::ForgetAndAnswer) {
                outstanding.ask(cx);
            }
            let value = Subscription { instruction, partition, key: key.clone(), hash };
            cx.forward(Record { key: to, value, timestamp, headers: headers.clone() });
        };
        if self.is_left {
            if new.is_none() && old.is_none() {
                return Ok(());
            }
            if from.is_some() && from != to {
                send(from, Instruction::Forget);
            }
            // Also without a key to refer to: the result comes with the answer.
            send(to, Instruction::Answer);
            return Ok(());
        }
        match (from, to) {
            (from, None) => {
                if from.is_some() {
                    send(from, Instruction::ForgetAndAnswer);
                } else if must_answer && (new.is_some() || old.is_some()) {
                    send(None, Instruction::Answer);
                }
                if new.is_some() {
                    cx.drop_record("null foreign key");
                }
            }
            (Some(from), Some(to)) if from != to => {
                send(Some(from), Instruction::Forget);
                // That there is no partner now deletes the result that there perhaps was.
                send(Some(to), Instruction::Answer);
            }
            (_, to) if must_answer => send(to, Instruction::Answer),
            (_, to) => send(to, Instruction::AnswerIfFound),
        }
        Ok(())
    }
}

/// The store of subscriptions, and how its keys are made.
pub(crate) struct Subscribers<K, KO> {
    pub(crate) store: String,
    pub(crate) key: DynSerde<K>,
    pub(crate) foreign_key: DynSerde<KO>,
}

impl<K, KO> Clone for Subscribers<K, KO> {
    fn clone(&self) -> Self {
        let (store, key) = (self.store.clone(), self.key.clone());
        Self { store, key, foreign_key: self.foreign_key.clone() }
    }
}

impl<K: Data, KO: Data> Subscribers<K, KO> {
    fn find(&self, cx: &mut InitContext<'_>) -> Result<StoreHandle<SubscriptionStore>, BuildError> {
        cx.store(&self.store)
    }
}

/// Keeps and forgets subscriptions, and passes them on to be answered.
pub(crate) struct KeepSubscription<K, KO> {
    pub(crate) subscribers: Subscribers<K, KO>,
    pub(crate) handle: Option<StoreHandle<SubscriptionStore>>,
}

impl<K: Data, KO: Data> Processor for KeepSubscription<K, KO> {
    type KIn = Option<KO>;
    type VIn = Subscription<K>;
    type KOut = Option<KO>;
    type VOut = Subscription<K>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handle = Some(self.subscribers.find(cx)?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<Option<KO>, Subscription<K>>,
        cx: &mut Context<'_, Option<KO>, Subscription<K>>,
    ) -> Result<(), ProcessError> {
        let Subscription { instruction, partition, key, hash } = &record.value;
        if let (Some(foreign_key), Some(handle)) = (&record.key, self.handle) {
            let serdes = (&*self.subscribers.foreign_key, &*self.subscribers.key);
            let at = combined_key(serdes, foreign_key, key)
                .map_err(|error| failed("a subscription", error))?;
            let kept = match instruction {
                Instruction::Forget | Instruction::ForgetAndAnswer => None,
                Instruction::Answer | Instruction::AnswerIfFound => {
                    hash.map(|hash| Subscriber { partition: *partition, hash })
                }
            };
            cx.store(handle).put(&at, kept.as_ref(), record.timestamp)?;
        }
        cx.forward(record);
        Ok(())
    }
}

/// Answers a subscription with the value that its key has.
pub(crate) struct AnswerSubscription<K, KO, VO> {
    pub(crate) values: LookUp<KO, VO>,
    pub(crate) marker: std::marker::PhantomData<fn(K)>,
}

impl<K: Data, KO: Data, VO: Data> Processor for AnswerSubscription<K, KO, VO> {
    type KIn = Option<KO>;
    type VIn = Subscription<K>;
    type KOut = K;
    type VOut = Response<VO>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.values.init(cx)
    }

    fn process(
        &mut self,
        record: Record<Option<KO>, Subscription<K>>,
        cx: &mut Context<'_, K, Response<VO>>,
    ) -> Result<(), ProcessError> {
        let Record { key: foreign_key, value, mut timestamp, headers } = record;
        let Subscription { instruction, partition, key, hash } = value;
        let found = match &foreign_key {
            Some(foreign_key) => self.values.get(foreign_key, cx)?,
            None => None,
        };
        if let Some((_, time)) = &found {
            timestamp = timestamp.max(*time);
        }
        let is_due = matches!(instruction, Instruction::Answer | Instruction::ForgetAndAnswer);
        let value = found.map(|(value, _)| value);
        let value = match instruction {
            Instruction::Forget => return Ok(()),
            Instruction::ForgetAndAnswer => None,
            Instruction::Answer => value,
            Instruction::AnswerIfFound if value.is_none() => return Ok(()),
            Instruction::AnswerIfFound => value,
        };
        let value = Response { partition, hash, value, is_due, gone: None };
        cx.forward(Record { key, value, timestamp, headers });
        Ok(())
    }
}

/// Answers all subscribers of a key with its new value, in the order of their keys' bytes.
pub(crate) struct AnswerSubscribers<K, KO, VO> {
    pub(crate) subscribers: Subscribers<K, KO>,
    pub(crate) handle: Option<StoreHandle<SubscriptionStore>>,
    pub(crate) marker: std::marker::PhantomData<fn(VO)>,
}

impl<K: Data, KO: Data, VO: Data> Processor for AnswerSubscribers<K, KO, VO> {
    type KIn = KO;
    type VIn = Change<VO>;
    type KOut = K;
    type VOut = Response<VO>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.handle = Some(self.subscribers.find(cx)?);
        Ok(())
    }

    fn process(
        &mut self,
        record: Record<KO, Change<VO>>,
        cx: &mut Context<'_, K, Response<VO>>,
    ) -> Result<(), ProcessError> {
        let Some(handle) = self.handle else { return Ok(()) };
        if !record.value.is_latest {
            cx.drop_record(OUT_OF_ORDER);
            return Ok(());
        }
        let first = prefix(&*self.subscribers.foreign_key, &record.key)
            .map_err(|error| failed("a key", error))?;
        let (key_at, end) = (first.len(), end_of(first.clone()));
        let gone = record.value.new.is_none().then(|| first[LENGTH..].to_vec().into());
        let mut from = first;
        loop {
            let found = cx.stores().look_into(handle).slice(&from, &end, AT_ONCE)?;
            let is_last = found.len() < AT_ONCE;
            for (combined, Subscriber { partition, hash }) in found {
                let key = self.subscribers.key.get(&combined[key_at..], &combined);
                let key = key.map_err(|error| failed("a subscriber", error))?;
                let value = Response {
                    partition,
                    hash: Some(hash),
                    value: record.value.new.clone(),
                    is_due: false,
                    gone: gone.clone(),
                };
                let (timestamp, headers) = (record.timestamp, record.headers.clone());
                cx.forward(Record { key, value, timestamp, headers });
                from = combined.into();
            }
            if is_last {
                return Ok(());
            }
            from.push(0); // the next key after the last one
        }
    }
}

/// Why an answer is left out to what a row is not any more.
const STALE: &str = "stale answer of a foreign-key join";

/// Makes results of the answers to rows that have not changed since.
pub(crate) struct Resolve<K, V, VO, O> {
    pub(crate) rows: LookUp<K, V>,
    pub(crate) hash: RowHash<V>,
    pub(crate) outstanding: Outstanding,
    pub(crate) join: Arc<JoinTables<K, V, VO, O>>,
    /// The encoded key that a row refers to, where rows without a partner have no result: one with
    /// results is answered in any case.
    pub(crate) refers_to: Option<Arc<EncodedKey<K, V>>>,
    /// Deletions of rows that are there again, until the seal: a cached table forwards nothing of a row that
    /// came and went in between.
    pub(crate) deletions: Vec<Record<K, Option<O>>>,
}

impl<K, V, VO, O> Resolve<K, V, VO, O> {
    /// Whether a row has no result any more, although it has changed since it was subscribed with what this
    /// answers to. The right row was deleted before it heard of the change; if the row still refers to it,
    /// it will not answer to that, as there is nothing to join with. (Kafka drops the answer, and keeps a
    /// result that is over.) If it does answer, that comes later, on the same way. A row that refers to
    /// another one by now is answered from there in any case, perhaps it was already.
    fn loses_its_partner(
        &self,
        key: &K,
        row: Option<&V>,
        gone: Option<Bytes>,
    ) -> Result<bool, ProcessError> {
        let (Some(refers_to), Some(row), Some(gone)) = (&self.refers_to, row, gone) else {
            return Ok(false);
        };
        let to = refers_to(key, row).map_err(|error| failed("a key", error))?;
        Ok(to.is_some_and(|to| to == gone))
    }
}

impl<K: Data + Eq + Hash, V: Data, VO: Data, O: Data> Processor for Resolve<K, V, VO, O> {
    type KIn = K;
    type VIn = Response<VO>;
    type KOut = K;
    type VOut = Option<O>;

    fn init(&mut self, cx: &mut InitContext<'_>) -> Result<(), BuildError> {
        self.outstanding.init(cx);
        self.rows.init(cx)
    }

    fn process(
        &mut self,
        record: Record<K, Response<VO>>,
        cx: &mut Context<'_, K, Option<O>>,
    ) -> Result<(), ProcessError> {
        let Record { key, value, timestamp, headers } = record;
        let Response { hash, value, is_due, gone, .. } = value;
        let row = self.rows.get(&key, cx)?.map(|(row, _)| row);
        let is_stale = self.hash.of(row.as_ref())? != hash;
        if is_stale && is_due && hash.is_none() {
            self.deletions.push(Record { key, value: None, timestamp, headers });
            return Ok(());
        }
        if is_due {
            self.outstanding.came(is_stale, cx);
        }
        if is_stale && !self.loses_its_partner(&key, row.as_ref(), gone)? {
            cx.drop_record(STALE);
            return Ok(());
        }
        let row = row.filter(|_| !is_stale);
        let value = (self.join)(&key, row.as_ref(), value.as_ref());
        cx.forward(Record { key, value, timestamp, headers });
        Ok(())
    }

    fn before_seal(&mut self, cx: &mut Context<'_, K, Option<O>>) -> Result<(), ProcessError> {
        for deletion in std::mem::take(&mut self.deletions) {
            let is_stale = self.rows.get(&deletion.key, cx)?.is_some();
            self.outstanding.came(is_stale, cx);
            match is_stale {
                true => cx.drop_record(STALE),
                false => cx.forward(deletion),
            }
        }
        Ok(())
    }
}
