//! What of a task survives that it is opened again in its thread: what no commit has, and what must not
//! begin anew because a record failed that is none of its business.

use std::sync::Arc;

use super::running::Running;
use crate::state::StoreEngine;
use crate::task::WallClocks;

#[derive(Default)]
pub(super) struct Surviving {
    /// Its stores' engines, which stay open; `None`: they are opened, too.
    pub(super) engines: Option<Vec<Arc<dyn StoreEngine>>>,
    /// When its schedules of the wall clock are due, and what its operators note by that.
    pub(super) wall_clocks: WallClocks,
}

impl Surviving {
    /// Of a task that is given up alone. What its engines lack of its commits is in the changelogs.
    pub(super) fn of(mut running: Running) -> Self {
        let engines = running.task.stores_mut().iter().map(|store| store.engine.clone()).collect();
        Self { engines: Some(engines), ..Self::without_engines(&running) }
    }

    /// Of a task whose commits are in doubt.
    pub(super) fn without_engines(running: &Running) -> Self {
        let wall_clocks = running.task.core().wall_clocks();
        Self { engines: None, wall_clocks }
    }
}
