//! The children of a node.

use std::any::Any;
use std::sync::Arc;

use broker_api::Timestamp;

use super::{Push, Signal};
use crate::error::{BuildError, ProcessError};
use crate::record::{Data, Record};
use crate::task::TaskCore;

/// A `Box<dyn Push<K, V>>` whose types are not known at this place. It is given its types back
/// once, when a task is built; never for a record.
pub type Erased = Box<dyn Any + Send>;

/// A built child and its name.
pub struct Child {
    /// The node's name.
    pub name: Arc<str>,
    /// The node: a `Box<dyn Push<K, V>>`.
    pub node: Erased,
}

/// Where a node forwards to.
pub struct Children<K, V> {
    parent: Box<str>,
    nodes: Vec<Named<K, V>>,
}

/// A child with its types, by its name.
type Named<K, V> = (Arc<str>, Box<dyn Push<K, V>>);

impl<K: Data, V: Data> Children<K, V> {
    /// Gives the children of `node` their types back.
    ///
    /// # Errors
    /// [`BuildError::TypeMismatch`] if one takes other records.
    pub fn new(node: &str, children: Vec<Child>) -> Result<Self, BuildError> {
        let nodes = children
            .into_iter()
            .map(|child| match child.node.downcast::<Box<dyn Push<K, V>>>() {
                Ok(push) => Ok((child.name, *push)),
                Err(_) => Err(BuildError::TypeMismatch {
                    node: child.name.to_string(),
                    takes: "records of another type",
                    parent: node.into(),
                    gives: std::any::type_name::<(K, V)>(),
                }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { parent: node.into(), nodes })
    }

    /// Whether a record that the application's code made may go on.
    #[inline]
    pub(super) fn accept(&self, record: &Record<K, V>, task: &mut TaskCore) -> bool {
        let accepted = record.timestamp >= 0;
        if !accepted {
            self.refuse(record.timestamp, task);
        }
        accepted
    }

    /// It must not reach a topic: whoever reads that could not go on.
    #[cold]
    fn refuse(&self, timestamp: Timestamp, task: &mut TaskCore) {
        let node = self.parent.to_string();
        task.fail(ProcessError::ForwardedTimestamp { node, timestamp });
    }

    /// Hands a record to all children; the last gets the original.
    pub fn forward(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        if task.is_traced() {
            return self.forward_traced(record, task);
        }
        if let Some(((_, last), others)) = self.nodes.split_last_mut() {
            for (_, child) in others {
                child.push(record.clone(), task);
            }
            last.push(record, task);
        }
    }

    #[cold]
    fn forward_traced(&mut self, record: Record<K, V>, task: &mut TaskCore) {
        for (name, child) in &mut self.nodes {
            task.trace_enter(name);
            child.push(record.clone(), task);
            task.trace_leave();
        }
    }

    /// Hands a record to the child of this name; `false` if there is none.
    pub fn forward_to(&mut self, name: &str, record: Record<K, V>, task: &mut TaskCore) -> bool {
        match self.nodes.iter_mut().find(|(child, _)| &**child == name) {
            Some((name, child)) => {
                task.trace_enter(name);
                child.push(record, task);
                task.trace_leave();
                true
            }
            None => false,
        }
    }

    /// Passes a signal on.
    pub fn signal(&mut self, signal: &Signal, task: &mut TaskCore) {
        for (_, child) in &mut self.nodes {
            child.signal(signal, task);
        }
    }
}
