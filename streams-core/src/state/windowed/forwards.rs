//! What is forwarded at the seal.

use bytes::Bytes;

use super::{Entries, WindowKind, WindowedStore};
use crate::error::StateError;
use crate::record::{Data, Headers};
use crate::state::Forward;
use crate::windowed::Windowed;

impl<K: Data, V: Data, W: WindowKind> WindowedStore<K, V, W> {
    /// The change that was made last is to be forwarded at the seal with these headers, unless the same
    /// window is changed again.
    pub fn forward_with(&mut self, headers: Headers) {
        if let Entries::Points(points) = &mut self.entries {
            points.store.forward_with(headers);
        } else if !headers.as_slice().is_empty() {
            self.headers.insert(self.changed.clone(), headers);
        } else if !self.headers.is_empty() {
            self.headers.remove(&self.changed);
        }
    }

    /// The next change to be forwarded. To be called before [`seal`](crate::state::Store::seal) until it yields nothing,
    /// by the operator of a store that forwards at the seal.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn next_forward(&mut self) -> Result<Option<Forward<Windowed<K>, V>>, StateError> {
        let cache = match &mut self.entries {
            Entries::Ordered(cache) => cache,
            Entries::Points(points) => {
                let Some(forward) = points.next_forward()? else { return Ok(None) };
                let Forward { key, new, old, was_seen, timestamp, headers } = forward;
                let key = self.windowed(&key)?;
                return Ok(Some(Forward { key, new, old, was_seen, timestamp, headers }));
            }
        };
        while let Some(changed) = cache.next_changed() {
            if self.layout.is_by_time(&changed.key) {
                continue;
            }
            let key = self.windowed(&Bytes::copy_from_slice(&changed.key))?;
            let value = |bytes: Bytes| self.codec.value(&bytes);
            let new = changed.new.map(value).transpose()?;
            let old = changed.old.filter(|_| self.options.keep_old);
            let old = old.map(|(bytes, _)| value(bytes)).transpose()?;
            let headers = self.headers.remove(&*changed.key).unwrap_or_default();
            let (was_seen, timestamp) = (changed.was_seen, changed.timestamp);
            return Ok(Some(Forward { key, new, old, was_seen, timestamp, headers }));
        }
        self.headers.clear(); // those of what was not forwarded after all
        Ok(None)
    }
}
