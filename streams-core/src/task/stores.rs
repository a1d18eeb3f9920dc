//! The stores of a task.

use std::any::Any;

use crate::processor::StoreHandle;
use crate::state::Store;

/// The stores of a task, by number.
#[derive(Default)]
pub struct Stores {
    all: Vec<Box<dyn Store>>,
}

impl Stores {
    /// Adds a store.
    pub fn add(&mut self, store: Box<dyn Store>) {
        self.all.push(store);
    }

    /// The number of the store of this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|store| store.name() == name)
    }

    /// The store of this number, which must exist.
    pub fn at(&mut self, index: usize) -> &mut dyn Store {
        &mut *self.all[index]
    }

    /// The stores, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Store>> {
        self.all.iter_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The store that a handle stands for.
    pub fn get<S: Store>(&mut self, handle: StoreHandle<S>) -> &mut S {
        let store: &mut dyn Any = &mut *self.all[handle.index];
        match store.downcast_mut() {
            Some(store) => store,
            // A handle is only made after the same check, for the same task.
            None => unreachable!("a store handle of another task"),
        }
    }
}
