//! Letting go what has waited long enough, as far as there is room.

use std::hash::Hash;

use bytes::Bytes;
use streams_core::processor::{Context, EntryId, StoreHandle};
use streams_core::state::{BufferStore, Buffered, ChangeBuffer, Due, Store};
use streams_core::{Change, Data, ProcessError, Record, StateError};

/// How many entries are taken out of a store at once.
pub(crate) const AT_ONCE: usize = 1024;

/// A store of what waits.
pub(crate) trait Waits: Store {
    /// Says what has waited long enough.
    type Until: ?Sized;
    /// Something that has, and is still there.
    type Found;
    /// The same, taken out.
    type Taken;

    fn due(&mut self, until: &Self::Until, most: usize) -> Result<Vec<Self::Found>, StateError>;

    /// Takes out what was found; `ids` are those of the operator's entries.
    fn take_out(
        &mut self,
        found: &Self::Found,
        ids: EntryId,
    ) -> Result<(EntryId, Self::Taken), StateError>;

    fn not_taken(&mut self, found: &Self::Found);
}

/// Hands what has waited until now to `let_go`, as long as that answers to go on. Answers whether that
/// was all.
pub(crate) fn let_go_due<S: Waits, K: Data, V: Data>(
    (store, ids): (StoreHandle<S>, EntryId),
    until: &S::Until,
    cx: &mut Context<'_, K, V>,
    mut let_go: impl FnMut(EntryId, S::Taken, &mut Context<'_, K, V>) -> Result<bool, ProcessError>,
) -> Result<bool, ProcessError> {
    loop {
        let found = cx.store(store).due(until, AT_ONCE)?;
        for (at, entry) in found.iter().enumerate() {
            let (id, taken) = cx.store(store).take_out(entry, ids)?;
            if !let_go(id, taken, cx)? {
                if let Some(next) = found.get(at + 1) {
                    cx.store(store).not_taken(next);
                }
                return Ok(false);
            }
        }
        if found.len() < AT_ONCE {
            return Ok(true);
        }
    }
}

impl<K: Data, V: Data> Waits for BufferStore<K, V> {
    type Until = [(u8, i64)];
    type Found = Due;
    type Taken = Vec<Buffered<K, V>>;

    fn due(&mut self, until: &[(u8, i64)], most: usize) -> Result<Vec<Due>, StateError> {
        BufferStore::due(self, until, most)
    }

    fn take_out(
        &mut self,
        found: &Due,
        ids: EntryId,
    ) -> Result<(EntryId, Vec<Buffered<K, V>>), StateError> {
        let id = ids.at(found.id()).holding(found.content());
        Ok((id, BufferStore::take(self, found)?))
    }

    fn not_taken(&mut self, found: &Due) {
        BufferStore::not_taken(self, found);
    }
}

impl<K: Data + Eq + Hash, V: Data> Waits for ChangeBuffer<K, V> {
    type Until = i64;
    type Found = Bytes;
    type Taken = Option<Record<K, Change<V>>>;

    fn due(&mut self, until: &i64, most: usize) -> Result<Vec<Bytes>, StateError> {
        ChangeBuffer::due(self, *until, most)
    }

    fn take_out(
        &mut self,
        place: &Bytes,
        ids: EntryId,
    ) -> Result<(EntryId, Self::Taken), StateError> {
        let id = ids.at(place);
        Ok(match ChangeBuffer::take(self, place)? {
            Some(taken) => (id.holding(taken.content), Some(taken.update)),
            None => (id, None),
        })
    }

    fn not_taken(&mut self, place: &Bytes) {
        ChangeBuffer::not_taken(self, place);
    }
}
