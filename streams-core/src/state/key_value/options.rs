//! What a key-value store does beyond storing.

/// What a [`KeyValueStore`](super::KeyValueStore) does beyond storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Changes are written to a changelog.
    pub logged: bool,
    /// Updates are forwarded at the seal, merged by key (caching): the processor of the store has to
    /// take them from [`next_forward`](super::KeyValueStore::next_forward) in `before_seal`. Otherwise it forwards what it
    /// wants, when it wants.
    pub forward_on_seal: bool,
    /// Updates come with the value before.
    pub keep_old: bool,
    /// The store holds at most so many entries, 1 or more (Kafka's `lruMap`). When another one comes, that
    /// which was used least recently is deleted, also in the changelog, and nothing is forwarded for it.
    /// Uses are [`get`](super::KeyValueStore::get), and whatever changes an entry; scans are none. After a restart
    /// entries count as used in the order of their times. A store that held more before gets rid of the rest
    /// by and by. Not together with `forward_on_seal`: what was dropped could no longer be forwarded.
    pub max_entries: Option<usize>,
}

impl Default for StoreOptions {
    /// Logged; an operator forwards what it wants, when it wants; as many entries as come.
    fn default() -> Self {
        Self { logged: true, forward_on_seal: false, keep_old: false, max_entries: None }
    }
}

impl StoreOptions {
    /// What is wrong with them, if something is.
    pub(crate) fn mistake(&self) -> Option<&'static str> {
        match self.max_entries {
            Some(0) => Some("it holds no entry at all; let its max_entries be 1 or more"),
            Some(_) if self.forward_on_seal => Some(
                "a store with max_entries cannot forward at the seal, as it may have dropped what is to be \
                 forwarded; forward at once (forward_on_seal: false)",
            ),
            _ => None,
        }
    }
}
