//! What a task asks of the store.

use std::any::Any;

use broker_api::Timestamp;
use bytes::Bytes;

use super::{Entries, WindowKind, WindowedOptions, WindowedStore};
use crate::error::StateError;
use crate::record::Data;
use crate::state::{ChangelogWriter, EntryBatch, Expiry, RawEntry, Store};

impl<K: Data, V: Data, W: WindowKind> Store for WindowedStore<K, V, W> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        let cache = match &mut self.entries {
            Entries::Ordered(cache) => cache,
            Entries::Points(points) => return points.store.seal(changelog),
        };
        debug_assert!(
            !cache.has_changed(),
            "store '{}' is sealed before its changes were forwarded",
            self.codec.store()
        );
        let (layout, logged) = (self.layout, self.options.logged);
        cache.commit(|key, value, timestamp| {
            if !logged || layout.is_by_time(key) {
                return Ok(());
            }
            changelog.put(layout.logged(key), value.map(|value| &value[..]), timestamp)
        })
    }

    fn begin_flush(&mut self) -> Result<EntryBatch, StateError> {
        match &mut self.entries {
            Entries::Points(points) => points.store.begin_flush(),
            Entries::Ordered(cache) => Ok(cache.begin_flush()),
        }
    }

    fn flushed(&mut self) {
        match &mut self.entries {
            Entries::Points(points) => points.store.flushed(),
            Entries::Ordered(cache) => cache.flushed(),
        }
    }

    fn has_uncommitted(&self) -> bool {
        match &self.entries {
            Entries::Points(points) => points.store.has_uncommitted(),
            Entries::Ordered(cache) => cache.has_uncommitted(),
        }
    }

    fn unsealed_bytes(&self) -> usize {
        let WindowedOptions { logged, forward_on_seal, .. } = self.options;
        match &self.entries {
            Entries::Points(points) => points.store.unsealed_bytes(),
            Entries::Ordered(cache) => {
                cache.uncommitted_bytes() * (usize::from(logged) + usize::from(forward_on_seal))
            }
        }
    }

    fn dirty_bytes(&self) -> usize {
        match &self.entries {
            Entries::Points(points) => points.store.dirty_bytes(),
            Entries::Ordered(cache) => cache.dirty_bytes(),
        }
    }

    fn cached_bytes(&self) -> usize {
        match &self.entries {
            Entries::Points(points) => points.store.cached_bytes(),
            Entries::Ordered(cache) => cache.bytes(),
        }
    }

    fn set_budget(&mut self, bytes: usize) {
        match &mut self.entries {
            Entries::Points(points) => points.store.set_budget(bytes),
            Entries::Ordered(cache) => cache.set_budget(bytes),
        }
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn advance_time(&mut self, to: Timestamp) {
        self.time = self.time.max(to);
        self.expire();
    }

    fn expiry(&self) -> Option<Expiry> {
        Some(Expiry { expires_by: self.layout.time_of(), up_to: self.gone() })
    }

    fn dump(&mut self) -> Result<Vec<RawEntry>, StateError> {
        let layout = self.layout;
        let raw = |(key, value, time): (Bytes, Bytes, Timestamp)| {
            (layout.logged(&key).to_vec(), value.to_vec(), time)
        };
        Ok(self.shown()?.into_iter().map(raw).collect())
    }
}
