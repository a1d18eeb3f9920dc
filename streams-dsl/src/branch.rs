//! Splitting a stream by predicates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use streams_core::processor::{Context, Processor};
use streams_core::topology::NodeSpec;
use streams_core::{Data, ProcessError, Record};

use crate::config::Named;
use crate::graph::{NodeId, Way};
use crate::processors::stateless;
use crate::stream::KStream;

type Predicate<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;

/// A branch's name, and what it takes; `None`: everything that is left.
type Branch<K, V> = (String, Option<Predicate<K, V>>);

/// A stream that is being split. Each record goes to the first branch whose predicate holds.
pub struct BranchedKStream<K, V> {
    source: KStream<K, V>,
    name: String,
    node: NodeId,
    branches: Arc<Mutex<Vec<Branch<K, V>>>>,
    streams: BTreeMap<String, KStream<K, V>>,
}

impl<K: Data, V: Data> KStream<K, V> {
    /// Splits the stream into branches, which are called by the name of the split and 1, 2, …, and
    /// the default branch 0.
    pub fn split(&self) -> BranchedKStream<K, V> {
        self.split_with(Named::default())
    }

    /// As [`KStream::split`], with a name, which branches carry in front of theirs.
    pub fn split_with(&self, named: impl Into<Named>) -> BranchedKStream<K, V> {
        let branches: Arc<Mutex<Vec<Branch<K, V>>>> = Arc::default();
        let known = branches.clone();
        let mut nodes = self.graph.lock();
        let name = nodes.name_or(named.into().0, "KSTREAM-BRANCH-");
        let split = name.clone();
        let node = nodes.add(vec![self.node], &name, move |plan, builder| {
            let branches = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            builder.add(NodeSpec::processor(&split, plan.parents(), move || Split {
                branches: branches.clone(),
            }))
        });
        nodes.goes(node, Way::Passes);
        drop(nodes);
        BranchedKStream { source: self.clone(), name, node, branches, streams: BTreeMap::new() }
    }
}

impl<K: Data, V: Data> BranchedKStream<K, V> {
    /// A branch for records for which `predicate` holds.
    pub fn branch(self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.branch_with(predicate, Named::default())
    }

    /// As [`BranchedKStream::branch`], with a name.
    pub fn branch_with(
        mut self,
        predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
        named: impl Into<Named>,
    ) -> Self {
        let number = self.known().len() + 1;
        self.add(number, named.into(), Some(Arc::new(predicate)));
        self
    }

    /// The branches by name, with one for the records that no other takes.
    pub fn default_branch(self) -> BTreeMap<String, KStream<K, V>> {
        self.default_branch_with(Named::default())
    }

    /// As [`BranchedKStream::default_branch`], with a name.
    pub fn default_branch_with(
        mut self,
        named: impl Into<Named>,
    ) -> BTreeMap<String, KStream<K, V>> {
        self.add(0, named.into(), None);
        self.streams
    }

    /// The branches by name. Records that none takes are dropped.
    pub fn no_default_branch(self) -> BTreeMap<String, KStream<K, V>> {
        self.streams
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Branch<K, V>>> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&mut self, number: usize, named: Named, predicate: Option<Predicate<K, V>>) {
        let name = match named.0 {
            Some(given) => format!("{}{given}", self.name),
            None => format!("{}{number}", self.name),
        };
        self.known().push((name.clone(), predicate));
        let each = stateless(|record: Record<K, V>, cx| cx.forward(record));
        let spec = NodeSpec::processor(&name, vec![], each);
        let mut nodes = self.source.graph.lock();
        nodes.new_name("KSTREAM-BRANCHCHILD-"); // each branch uses up a number
        let node =
            nodes.add(vec![self.node], &name, move |plan, builder| builder.add(plan.below(&spec)));
        drop(nodes);
        let KStream { graph, key, value, rekeyed, .. } = self.source.clone();
        let stream = KStream::at(graph, node, name.clone(), (key, value), rekeyed).passing();
        self.streams.insert(name, stream);
    }
}

/// Hands each record to the first branch that takes it.
struct Split<K, V> {
    branches: Vec<Branch<K, V>>,
}

impl<K: Data, V: Data> Processor for Split<K, V> {
    type KIn = K;
    type VIn = V;
    type KOut = K;
    type VOut = V;

    fn process(
        &mut self,
        record: Record<K, V>,
        cx: &mut Context<'_, K, V>,
    ) -> Result<(), ProcessError> {
        let takes = |predicate: &Option<Predicate<K, V>>| {
            predicate.as_ref().is_none_or(|takes| takes(&record.key, &record.value))
        };
        match self.branches.iter().find(|(_, predicate)| takes(predicate)) {
            Some((branch, _)) => cx.forward_to(branch, record),
            None => Ok(()),
        }
    }
}
