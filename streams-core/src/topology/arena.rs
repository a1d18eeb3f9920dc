//! Nodes with several parents: they stand in the task's arena, and each parent has a link.

use std::any::Any;

use crate::processor::{Erased, Push, Signal};
use crate::record::{Data, Record};
use crate::task::TaskCore;

/// A node in the arena.
pub(crate) trait ArenaNode: Send {
    /// Passes a signal to the node and what it owns.
    fn signal(&mut self, signal: &Signal, task: &mut TaskCore);

    /// For a link, which knows the types.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

struct Slot<K, V>(Box<dyn Push<K, V>>);

impl<K: Data, V: Data> ArenaNode for Slot<K, V> {
    fn signal(&mut self, signal: &Signal, task: &mut TaskCore) {
        self.0.signal(signal, task);
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Stands for an arena node as the child of one of its parents.
struct Link<K, V> {
    slot: usize,
    marker: std::marker::PhantomData<fn() -> (K, V)>,
}

impl<K: Data, V: Data> Push<K, V> for Link<K, V> {
    fn push(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        // Taken out while it works, because it works on the task that holds it. The graph has no
        // cycle, so nobody looks for it meanwhile.
        let Some(mut node) = task.arena[self.slot].take() else {
            return;
        };
        if let Some(Slot(push)) = node.as_any_mut().downcast_mut::<Slot<K, V>>() {
            push.push(record, task);
        }
        task.arena[self.slot] = Some(node);
    }

    /// The task itself passes signals to its arena, after the trees and once only.
    fn signal(&mut self, _: &Signal, _: &mut TaskCore) {}
}

/// Puts a `Box<dyn Push<K, V>>` into an arena; `None` if it has other types.
pub(crate) fn slot<K: Data, V: Data>(node: Erased) -> Option<Box<dyn ArenaNode>> {
    let push = node.downcast::<Box<dyn Push<K, V>>>().ok()?;
    Some(Box::new(Slot(*push)))
}

/// A link to an arena node, as an erased `Box<dyn Push<K, V>>`.
pub(crate) fn link<K: Data, V: Data>(slot: usize) -> Erased {
    let link: Box<dyn Push<K, V>> =
        Box::new(Link::<K, V> { slot, marker: std::marker::PhantomData });
    Box::new(link)
}
