//! What a task asks of the store.

use broker_api::Timestamp;
use bytes::Bytes;

use super::{Entries, WindowKind, WindowedStore};
use crate::error::StateError;
use crate::record::Data;
use crate::state::{ChangelogWriter, Expiry, RawEntry, Store, StoreCache};

impl<K: Data, V: Data, W: WindowKind> Store for WindowedStore<K, V, W> {
    fn name(&self) -> &str {
        self.codec.store()
    }

    fn cache(&self) -> &dyn StoreCache {
        match &self.entries {
            Entries::Points(points) => points.store.cache(),
            Entries::Ordered(cache) => &**cache,
        }
    }

    fn cache_mut(&mut self) -> &mut dyn StoreCache {
        match &mut self.entries {
            Entries::Points(points) => points.store.cache_mut(),
            Entries::Ordered(cache) => &mut **cache,
        }
    }

    fn all_told(&mut self) {
        if let Some(look_back) = &mut self.look_back {
            look_back.told();
        }
    }

    fn seal(&mut self, changelog: &mut dyn ChangelogWriter) -> Result<(), StateError> {
        if self.look_back.is_some() {
            self.expire();
        }
        let cache = match &mut self.entries {
            Entries::Ordered(cache) => cache,
            Entries::Points(points) => return points.store.cache_mut().seal(changelog),
        };
        debug_assert!(
            !cache.has_changed(),
            "store '{}' is sealed before its changes were forwarded",
            self.codec.store()
        );
        let layout = self.layout;
        cache.commit(|key, value, timestamp| {
            if layout.is_by_time(key) {
                return Ok(());
            }
            changelog.put(layout.logged(key), value, timestamp)
        })
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn advance_time(&mut self, to: Timestamp) {
        self.time = self.time.max(to);
        self.expire_at_once();
    }

    fn further_times(&self) -> &[Timestamp] {
        self.look_back.as_ref().map_or(&[], |look_back| look_back.times())
    }

    fn resume_further_times(&mut self, times: &[Timestamp]) {
        if let Some(look_back) = &mut self.look_back {
            look_back.resume(times);
        }
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
