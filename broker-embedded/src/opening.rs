//! Opening a directory: the newest good checkpoint, the journal after it, the segments.

use std::path::Path;
use std::sync::Arc;

use broker_api::Error;

use crate::checkpoint::{self, Files, Newest};
use crate::closed::{self, JournalEnd};
use crate::directory::{CHECKPOINT, JOURNAL, TOPICS};
use crate::disk::{corrupt, io_error};
use crate::housekeeping::segments::Segments;
use crate::journal::file::{self, JournalFile};
use crate::journal::recovery;
use crate::journal::writer::Writer;
use crate::random::Random;
use crate::sequencer::extent::Place;
use crate::sequencer::state::State;
use crate::vfs::Vfs;

/// What was found.
pub(crate) struct Opened {
    pub(crate) state: State,
    pub(crate) writer: Writer,
    /// The journal's files; the last is the one that is written to.
    pub(crate) files: Vec<Arc<JournalFile>>,
}

/// Reads what the directory `dir` holds; an empty one is begun.
pub(crate) fn open(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    segments: &Segments,
    random: &mut Random,
) -> Result<Opened, Error> {
    let (journal, checkpoints) = (dir.join(JOURNAL), dir.join(CHECKPOINT));
    // The folder of checkpoints is made last, when the first journal file is durable.
    let begun = vfs.exists(&checkpoints).map_err(|e| io_error("reading", &checkpoints, e))?;
    prepare(&**vfs, &dir.join(TOPICS))?;
    prepare(&**vfs, &journal)?;
    let names = vfs.list(&journal).map_err(|e| io_error("listing", &journal, e))?;
    let mut found = Files::new();
    for first_lsn in names.iter().filter_map(|name| file::parse_name(name)) {
        found.insert(first_lsn, JournalFile::open(&**vfs, &journal, first_lsn)?);
    }
    let files: Vec<Arc<JournalFile>> = found.values().cloned().collect();
    if files.is_empty() && !begun {
        let file = JournalFile::create(&**vfs, &journal, random.next(), 0, 1)?;
        prepare(&**vfs, &checkpoints)?;
        let writer = Writer::new(file.clone(), file::HEAD_LEN, file::HEAD_LEN, 1, true);
        return Ok(Opened { state: State::default(), writer, files: vec![file] });
    }
    prepare(&**vfs, &checkpoints)?;
    let mut state = start(&**vfs, &checkpoints, &journal, &mut found)?;
    let Some(newest) = files.last().cloned() else {
        return Err(corrupt(&journal, 0, None, "the journal's files are missing"));
    };
    let first = files.partition_point(|file| file.first_lsn < state.next_lsn);
    for pair in files[first..].windows(2) {
        follows(&pair[0], &state)?;
        recovery::replay_retired(&pair[0], pair[1].first_seq, &mut state)?;
    }
    follows(&newest, &state)?;
    let end = recovery::replay_newest(&newest, &mut state)?;
    let (at, next_seq) = end.place();
    let found = JournalEnd { first_lsn: newest.first_lsn, at, next_seq };
    closed::check(&**vfs, dir, &newest.path, found)?;
    closed::remove(&**vfs, dir)?;
    let writer = recovery::repair(newest, end)?;
    nothing_missing(&state)?;
    segments.attach(&state)?;
    Ok(Opened { state, writer, files })
}

/// Makes a folder, if it is missing.
fn prepare(vfs: &dyn Vfs, dir: &Path) -> Result<(), Error> {
    let io = |e| io_error("opening", dir, e);
    vfs.create_dir_all(dir).map_err(io)?;
    // What was created just before a crash may be here without its name being durable.
    vfs.sync_dir(dir).map_err(io)
}

/// The state at the newest checkpoint that can be read, or at the beginning. Damaged ones that are
/// newer are removed: nobody is to trip over them again.
fn start(vfs: &dyn Vfs, dir: &Path, journal: &Path, files: &mut Files) -> Result<State, Error> {
    let present: Vec<u64> = files.keys().copied().collect();
    let Newest { state, damaged } = checkpoint::newest(vfs, dir, journal, files)?;
    let state = match (state, present.first()) {
        (Some(state), _) if present.is_empty() || present.contains(&state.next_lsn) => state,
        (Some(state), _) => {
            let path = journal.join(file::name(state.next_lsn));
            return Err(corrupt(&path, 0, None, "this journal file is missing"));
        }
        (None, Some(0)) => State::default(),
        (None, first) => match (damaged.into_iter().next(), first) {
            (Some((_, error)), _) => return Err(error),
            (None, None) => return Ok(State::default()),
            (None, Some(first)) => {
                let path = journal.join(file::name(0));
                let reason = format!("the journal begins at entry {first}, without a checkpoint");
                return Err(corrupt(&path, 0, None, reason));
            }
        },
    };
    checkpoint::remove_damaged(vfs, dir, damaged)?;
    Ok(state)
}

/// Whether the file goes on where the state ends.
fn follows(file: &JournalFile, state: &State) -> Result<(), Error> {
    if file.first_lsn == state.next_lsn {
        return Ok(());
    }
    let reason = format!("it begins at entry {} instead of {}", file.first_lsn, state.next_lsn);
    Err(corrupt(&file.path, 0, None, reason))
}

/// Whether all journal files are there that records are in.
fn nothing_missing(state: &State) -> Result<(), Error> {
    for (_, partition) in state.partitions() {
        for extent in &partition.lock().extents {
            if let Place::Journal { file, .. } = &extent.place
                && file.is_missing()
            {
                let name = partition.name.clone();
                return Err(corrupt(&file.path, 0, Some(name), "this journal file is missing"));
            }
        }
    }
    Ok(())
}
