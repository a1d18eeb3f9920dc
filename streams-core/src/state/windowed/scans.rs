//! Many windows at once: by time, by key, and all.

use std::ops::ControlFlow;

use broker_api::Timestamp;
use bytes::Bytes;

use super::{Entries, Found, WindowKind, WindowedStore};
use crate::error::StateError;
use crate::record::Data;
use crate::state::entry_codec::EntryCodec;
use crate::state::windowed_keys::Parts;
use crate::windowed::Windowed;

impl<K: Data, V: Data, W: WindowKind> WindowedStore<K, V, W> {
    /// What begins (a session: ends) between two times, both included, whatever its key and whether
    /// it has expired or not; ordered by this time and then by key bytes. The store must be found by
    /// time. No more than `at_most` of it, the first ones, or those that come `after` one that was found
    /// before. If they are fewer, that is all.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn find_by_time(
        &mut self,
        from: Timestamp,
        to: Timestamp,
        after: Option<&Windowed<K>>,
        at_most: usize,
    ) -> Result<Vec<Found<K, V>>, StateError> {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        self.layout.put_time(from, &mut begin);
        self.layout.put_time(to.saturating_add(1), &mut end);
        if let Some(after) = after {
            begin = self.place_by_time(after)?;
            begin.push(0); // the next key that there can be
        }
        let mut found = Vec::new();
        while found.len() < at_most {
            let Entries::Ordered(cache) = &mut self.entries else { break };
            let (mut keys, wanted) = (Vec::new(), at_most - found.len());
            cache.visit(&begin, Some(&end), from, |key, _, _| {
                keys.push(Bytes::copy_from_slice(key));
                match keys.len() < wanted {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            })?;
            let is_all = keys.len() < wanted;
            for by_time in keys {
                let mut by_key = Vec::new();
                let is_key = self.layout.put_by_key(&by_time, &mut by_key);
                is_key.ok_or_else(|| self.corrupt(&by_time))?;
                begin.clear();
                begin.extend_from_slice(&by_time);
                begin.push(0);
                let Entries::Ordered(cache) = &mut self.entries else { break };
                // Of what is of no more use, one entry may vanish before the other.
                let Some((value, timestamp)) = cache.get(&by_key)? else { continue };
                let windowed = self.windowed(&by_key.into())?;
                found.push((windowed, self.codec.value(&value)?, timestamp));
            }
            if is_all {
                break;
            }
        }
        Ok(found)
    }

    /// Where a window stands in the order of [`WindowedStore::find_by_time`]: bytes that can be remembered.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn place_by_time(&self, of: &Windowed<K>) -> Result<Vec<u8>, StateError> {
        let (mut by_key, mut place) = (Vec::new(), Vec::new());
        self.layout.begin(&mut by_key);
        self.codec.put_key(&of.key, &mut by_key)?;
        self.layout.kind.put_suffix(of.window.start, of.window.end, 0, &mut by_key);
        self.layout.put_by_time(&by_key, &mut place).ok_or_else(|| self.corrupt(&by_key))?;
        Ok(place)
    }

    /// The window that stands there.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] if it is no place.
    pub fn at_place(&self, place: &[u8]) -> Result<Windowed<K>, StateError> {
        let mut by_key = Vec::new();
        let is_place = self.layout.put_by_key(place, &mut by_key);
        is_place.ok_or_else(|| self.corrupt(place))?;
        self.windowed(&by_key.into())
    }

    /// All windows that have not expired, ordered by key bytes and then by time.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn all(&mut self) -> Result<Vec<Found<K, V>>, StateError> {
        self.range(None, None, 0, Timestamp::MAX)
    }

    /// The windows of the keys between two, both included, by the order of their encoded bytes (`None`:
    /// without bound), that begin (sessions: end) between `first` and `last`, both included, and have
    /// not expired. Ordered as by [`WindowedStore::all`]; looks at all entries of the store.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn range(
        &mut self,
        from: Option<&K>,
        to: Option<&K>,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<Vec<Found<K, V>>, StateError> {
        let bound = |key: Option<&K>| {
            let encode = |key| {
                let mut bytes = Vec::new();
                self.codec.put_key(key, &mut bytes).map(|()| bytes)
            };
            key.map(encode).transpose()
        };
        let (from, to) = (bound(from)?.unwrap_or_default(), bound(to)?);
        let mut found = Vec::new();
        for (bytes, value, timestamp) in self.shown()? {
            let parts = self.layout.parts(&bytes).ok_or_else(|| self.corrupt(&bytes))?;
            let key = &bytes[parts.key.clone()];
            let in_keys = key >= &from[..] && to.as_ref().is_none_or(|to| key <= &to[..]);
            if in_keys && (first..=last).contains(&parts.end) {
                found.push((self.windowed(&bytes)?, self.codec.value(&value)?, timestamp));
            }
        }
        Ok(found)
    }

    /// The encoded entries by key that have not expired.
    pub(super) fn shown(&mut self) -> Result<Vec<(Bytes, Bytes, Timestamp)>, StateError> {
        let mut shown = Vec::new();
        let (layout, oldest) = (self.layout, self.time.saturating_sub(self.options.retention));
        let visit = |key: &[u8], value: &Bytes, timestamp| {
            if layout.is_by_time(key) {
                return ControlFlow::Break(()); // they come after all others
            }
            if layout.expires_by(key) > oldest {
                shown.push((Bytes::copy_from_slice(key), value.clone(), timestamp));
            }
            ControlFlow::Continue(())
        };
        match &mut self.entries {
            Entries::Points(points) => points.visit(&[], None, visit)?,
            Entries::Ordered(cache) => cache.visit_all(oldest.saturating_add(1), visit)?,
        }
        Ok(shown)
    }

    /// Shows what a key has with a first time (start of a window, end of a session) from `from` to
    /// `to`, as far as it has not expired.
    pub(super) fn visit_key(
        &mut self,
        key: &K,
        from: Timestamp,
        to: Timestamp,
        mut visit: impl FnMut(&EntryCodec<K, V>, &Parts, &Bytes, Timestamp) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.visit_from(key, (from, 0), to, |codec, parts, value, timestamp| {
            visit(codec, parts, value, timestamp).map(ControlFlow::Continue)
        })
    }

    /// As [`visit_key`](Self::visit_key), but what the key has at `from` only from a number among equals on,
    /// and until `visit` breaks off.
    pub(super) fn visit_from(
        &mut self,
        key: &K,
        (first, number): (Timestamp, u32),
        to: Timestamp,
        mut visit: impl FnMut(
            &EntryCodec<K, V>,
            &Parts,
            &Bytes,
            Timestamp,
        ) -> Result<ControlFlow<()>, StateError>,
    ) -> Result<(), StateError> {
        let oldest_live = self.time.saturating_sub(self.options.retention).saturating_add(1);
        let from = first.max(oldest_live).max(0);
        if to < from {
            return Ok(());
        }
        let Self { codec, entries, layout, bounds: (begin, end), .. } = self;
        begin.clear();
        layout.begin(begin);
        codec.put_key(key, begin)?;
        let key_ends = begin.len();
        end.clone_from(begin);
        begin.extend_from_slice(&from.to_be_bytes());
        if number > 0 && from == first {
            begin.extend_from_slice(&number.to_be_bytes());
        }
        match to.checked_add(1) {
            Some(above) => end.extend_from_slice(&above.to_be_bytes()),
            None => end.extend_from_slice(&[u8::MAX; 8]), // above every time, as they are positive
        }
        let mut visited = Ok(ControlFlow::Continue(()));
        let visit = |found: &[u8], value: &Bytes, timestamp| {
            // Longer keys may lie in between.
            if let Some(parts) = layout.parts(found).filter(|parts| parts.key.end == key_ends) {
                visited = visit(codec, &parts, value, timestamp);
            }
            match visited {
                Ok(going) => going,
                Err(_) => ControlFlow::Break(()),
            }
        };
        match entries {
            Entries::Points(points) => points.visit(begin, Some(end), visit)?,
            Entries::Ordered(cache) => cache.visit_group(key_ends, begin, end, from, visit)?,
        }
        visited.map(drop)
    }
}
