//! The thread that keeps the global stores of a process: each is the fold of a whole topic, all of its
//! partitions, in a directory of its own.
//!
//! ```text
//!  ask the broker --> trust the position? --> read to the end --> open the gate --> follow
//!                          no: empty it                               the tasks run
//! ```
//! Tasks process nothing before every global store has what was in its topic at the start. From then on
//! the stores follow their topics by themselves; nothing is said about the order between them and
//! the streams that look into them. There is no changelog: the topic is one. Files are written when
//! enough was changed, and never ahead of what is synced in the log, so after a crash a store goes on
//! from its last flush.
//!
//! A store that was behind, or has read over a gap, and has caught up, asks whether deletions that it had
//! not read were compacted away meanwhile. Then it is rebuilt, and the tasks wait as at the start. It
//! also asks before it writes files while it is behind: their position says that no deletion before it
//! was missed.

mod gate;
mod table;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_api::{Error, Fetcher, FetcherConfig, Isolation, Start, TaskId, View};

pub(in crate::runtime) use gate::Gate;

use self::table::GlobalTable;
use super::metrics::add;
use super::{Next, StreamsError, ThreadEnv};
use crate::error::StateError;
use crate::task::Globals;

/// How many bytes one poll asks for.
const FETCH_BYTES: usize = 1 << 20;

/// The directory, within that of the application's state, of all global stores.
pub(super) const DIRECTORY: &str = "global";

/// Keeps the global stores; a step machine.
pub struct GlobalThread {
    env: ThreadEnv,
    waker: Waker,
    fetcher: Box<dyn Fetcher>,
    tables: Vec<GlobalTable>,
    shown: bool,
    nothing_fetched: bool,
    processed: u64,
    flushes: (Sender<FlushDone>, Receiver<FlushDone>),
    stopping: bool,
}

/// A flush of this table has ended.
type FlushDone = (usize, Result<(), StateError>);

impl GlobalThread {
    /// The thread for the global stores of the environment's topology. `waker` is woken when stepping
    /// again may do something.
    ///
    /// # Errors
    /// [`StreamsError`] if the broker or the state directory cannot be used.
    pub fn new(env: ThreadEnv, waker: Waker) -> Result<Self, StreamsError> {
        // What is read goes into store files.
        let config = FetcherConfig { view: View::Durable, isolation: Isolation::ReadCommitted };
        let fetcher = env.broker.fetcher(config, waker.clone())?;
        let parts = env.topology.subtopologies().iter().enumerate();
        let globals: Vec<_> = parts.filter(|(_, part)| part.is_global).collect();
        let names: Vec<String> =
            globals.iter().flat_map(|(_, part)| &part.stores).cloned().collect();
        let engines = env.engines(&env.state_dir.join(DIRECTORY), &names)?;
        let mut tables = Vec::new();
        for ((number, part), engine) in globals.into_iter().zip(engines) {
            let id = TaskId { subtopology: number as u32, partition: 0 };
            for topic in &part.sources {
                let topic = env.plan.topic(topic)?.clone();
                tables.push(GlobalTable::new(&env, id, topic, engine.clone()));
            }
        }
        Ok(Self {
            env,
            waker,
            fetcher,
            tables,
            shown: false,
            nothing_fetched: false,
            processed: 0,
            flushes: channel(),
            stopping: false,
        })
    }

    /// Does a little of whatever is to be done. Never blocks.
    ///
    /// # Errors
    /// [`StreamsError`]: the thread is of no use any more; drop it.
    pub fn step(&mut self) -> Result<Next, StreamsError> {
        let mut busy = self.poll_flushes()?;
        if !self.stopping {
            busy |= self.open()?;
            busy |= self.fetch()?;
            busy |= self.process()?;
            self.turn_gate();
        }
        busy |= self.flush()?;
        if self.stopping && !busy && !self.tables.iter().any(GlobalTable::is_flushing) {
            return Ok(Next::Stopped);
        }
        Ok(if busy { Next::Again } else { Next::Wait(self.deadline()) })
    }

    /// Asks the thread to flush its stores and stop.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether the stores may be read.
    pub fn is_running(&self) -> bool {
        self.env.globals.is_open_now()
    }

    /// Whether everything that could be read is in the stores.
    pub fn is_caught_up(&self) -> bool {
        self.is_running()
            && self.nothing_fetched
            && self.tables.iter().all(GlobalTable::is_caught_up)
    }

    /// How many records it has processed.
    pub fn processed(&self) -> u64 {
        self.processed
    }

    fn open(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        for table in &mut self.tables {
            if let Some(starts) = table.open(&self.env, &self.waker)? {
                let starts = starts.into_iter().map(|(p, from)| (p, Start::At(from)));
                self.fetcher.assign(&starts.collect::<Vec<_>>())?;
                let partitions: Vec<_> = table.partitions().cloned().collect();
                self.fetcher.resume(&partitions);
                busy = true;
            }
        }
        if !self.shown && self.tables.iter().all(|table| table.task().is_some()) {
            self.env.globals.show(Globals::of(self.tables.iter().filter_map(GlobalTable::task)));
            self.shown = true;
        }
        Ok(busy)
    }

    fn fetch(&mut self) -> Result<bool, StreamsError> {
        self.nothing_fetched = true;
        let Poll::Ready(fetched) = self.fetcher.poll(FETCH_BYTES) else {
            return Ok(false);
        };
        self.nothing_fetched = false;
        let fetched = match fetched {
            Err(Error::OffsetOutOfRange { partition, .. }) => {
                // Deleted before it was read.
                self.fetcher.unassign(std::slice::from_ref(&partition));
                for table in self.tables.iter_mut().filter(|table| table.follows(&partition)) {
                    table.open_anew(&self.env);
                }
                return Ok(true);
            }
            fetched => fetched?,
        };
        let most = self.env.settings.input_buffer_bytes;
        for part in fetched {
            let partition = part.partition.clone();
            let mut tables = self.tables.iter_mut();
            if let Some(table) = tables.find(|table| table.follows(&partition))
                && table.take(part, most)
            {
                self.fetcher.pause(&[partition]);
            }
        }
        Ok(true)
    }

    fn process(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        let most = self.env.settings.input_buffer_bytes;
        for table in &mut self.tables {
            let done = table.process(&self.env)?;
            if done > 0 {
                busy = true;
                self.processed += done;
                let resumed = table.resumed(most);
                self.fetcher.resume(&resumed);
            }
            busy |= table.check(&self.env, &self.waker)?;
        }
        Ok(busy)
    }

    /// The gate opens when all stores are whole. That one of them has become long does not close it,
    /// only that it is read anew.
    fn turn_gate(&mut self) {
        let is_open = self.env.globals.is_open_now();
        if is_open && self.tables.iter().any(GlobalTable::is_opening) {
            self.env.globals.close();
        } else if !is_open && self.shown && self.tables.iter().all(GlobalTable::is_whole) {
            tracing::info!("the global stores are there");
            self.env.globals.open();
        }
    }

    fn flush(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        for (number, table) in self.tables.iter_mut().enumerate() {
            let Some((engine, mut batch, position)) =
                table.flush(&self.env, &self.waker, self.stopping)?
            else {
                continue;
            };
            busy = true;
            add(&self.env.counters.flushes, 1);
            let (done, waker) = (self.flushes.0.clone(), self.waker.clone());
            self.env.background.run(Box::new(move || {
                let result = engine.apply(&mut batch, &position).and_then(|()| engine.flush());
                drop(engine);
                // Without a receiver the thread is gone, and its flushes are of no interest.
                if done.send((number, result)).is_ok() {
                    waker.wake();
                }
            }));
        }
        Ok(busy)
    }

    fn poll_flushes(&mut self) -> Result<bool, StreamsError> {
        let mut busy = false;
        while let Ok((table, result)) = self.flushes.1.try_recv() {
            busy = true;
            result?;
            if let Some(table) = self.tables.get_mut(table) {
                table.flushed();
            }
        }
        Ok(busy)
    }

    /// The next moment at which something is due by itself.
    fn deadline(&self) -> Option<Duration> {
        let now = self.env.clock.monotonic();
        let interval = self.env.settings.flush_interval;
        let next = self.tables.iter().filter_map(|table| table.next_flush(interval)).min()?;
        Some(next.saturating_sub(now).max(Duration::from_millis(1)))
    }
}
