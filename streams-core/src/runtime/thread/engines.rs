//! Where the stores of a task keep their bytes: most in files, some in memory alone.

use std::path::Path;
use std::sync::Arc;

use super::ThreadEnv;
use crate::error::StateError;
use crate::state::{LossyEngine, StateEngine, StoreEngine};

impl ThreadEnv {
    /// The engines of a task's stores; those in memory begin empty.
    pub(in super::super) fn engines(
        &self,
        dir: &Path,
        stores: &[String],
    ) -> Result<Vec<Arc<dyn StoreEngine>>, StateError> {
        let specs = self.topology.stores();
        let in_memory = |name: &&String| specs.get(*name).is_some_and(|spec| spec.in_memory);
        let open = |engine: &dyn StateEngine, names: Vec<&String>| {
            let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
            if names.is_empty() { Ok(Vec::new()) } else { engine.open(dir, &names) }
        };
        let (without, with): (Vec<&String>, Vec<&String>) = stores.iter().partition(in_memory);
        let mut without = open(&LossyEngine::new(), without)?.into_iter();
        let mut with = open(&*self.engine, with)?.into_iter();
        let engines =
            stores.iter().map(|name| if in_memory(&name) { without.next() } else { with.next() });
        Ok(engines.flatten().collect())
    }
}
