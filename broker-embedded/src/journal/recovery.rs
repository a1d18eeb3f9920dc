//! Reading the journal back: fold its entries into the state, cut a torn tail, refuse damage.
//!
//! A frame that does not verify is either *torn* (it was being written when the power went; nobody
//! was told that it was durable) or *damaged*. It is damaged if anything later proves that it was
//! durable once: a frame whose `durable_seq` reaches it, or a following file. Damage is refused;
//! a torn tail is cut, and its place filled with zeros, so that nothing of it comes back.
//!
//! What was found intact may still be in the page cache only, so the frames that nothing proves
//! durable are written again and synced before anybody sees them.

use std::collections::VecDeque;
use std::sync::Arc;

use broker_api::{Error, TopicPartition};
use bytes::Bytes;

use super::entry::Entry;
use super::file::{HEAD_LEN, JournalFile};
use super::frame::{self, ALIGN, FrameHead};
use super::writer::Writer;
use crate::codec::{Malformed, Take};
use crate::disk::{corrupt, io_error, read_exact};
use crate::sequencer::state::State;

/// A place between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Byte in the file.
    pub(crate) at: u64,
    /// The number that the frame there has.
    pub(crate) seq: u64,
}

/// How a file's frames end.
pub(crate) struct End {
    position: Position,
    unproven: Unproven,
    sealed: bool,
    /// Where the file ends.
    len: u64,
}

impl End {
    /// Where the next frame goes, and its number.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.position.at, self.position.seq)
    }
}

/// The last frames of a file, which nothing proves durable, with the bytes that were verified: to
/// read them again could give others.
#[derive(Default)]
struct Unproven {
    frames: VecDeque<(Position, Bytes)>,
    bytes: usize,
}

/// Bytes that are read at once when a stretch is searched.
const STRETCH: u64 = 1 << 20;
/// Frames that may have to be written again are held in memory up to so many bytes; what is above
/// is written at once, needed or not.
const MAX_HELD: usize = 64 << 20;

impl Unproven {
    /// Takes the frame that comes next.
    fn add(
        &mut self,
        file: &JournalFile,
        position: Position,
        head: &FrameHead,
        bytes: Bytes,
    ) -> Result<(), Error> {
        while let Some((oldest, _)) = self.frames.front()
            && oldest.seq <= head.durable_seq
        {
            self.pop();
        }
        self.bytes += bytes.len();
        self.frames.push_back((position, bytes));
        self.write_down_to(file, MAX_HELD)
    }

    fn pop(&mut self) -> Option<(Position, Bytes)> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.1.len();
        Some(frame)
    }

    /// Writes the oldest frames again until no more than `held` bytes are left.
    fn write_down_to(&mut self, file: &JournalFile, held: usize) -> Result<(), Error> {
        while self.bytes > held
            && let Some((position, bytes)) = self.pop()
        {
            let written = file.file.write_at(position.at, &bytes);
            written.map_err(|e| io_error("repairing", &file.path, e))?;
        }
        Ok(())
    }
}

/// Folds the frames of the newest file into `state`.
pub(crate) fn replay_newest(file: &Arc<JournalFile>, state: &mut State) -> Result<End, Error> {
    let len = file.file.len().map_err(|e| io_error("reading", &file.path, e))?;
    let mut position = Position { at: HEAD_LEN, seq: file.first_seq };
    let mut sealed = true;
    let mut unproven = Unproven::default();
    while let Some((head, bytes)) = frame_at(file, position, len)? {
        fold(file, position, &head, bytes.clone(), state)?;
        unproven.add(file, position, &head, bytes)?;
        sealed = head.payload == 1; // nothing but a seal is so short
        position = Position { at: position.at + head.frame_len() as u64, seq: position.seq + 1 };
    }
    if later_proof(file, position, len)? {
        return Err(damaged(file, position, len, state));
    }
    Ok(End { position, unproven, sealed, len })
}

/// As [`replay_newest`], for a file that another follows, which begins with frame `next_seq`: all
/// of it is durable.
pub(crate) fn replay_retired(
    file: &Arc<JournalFile>,
    next_seq: u64,
    state: &mut State,
) -> Result<(), Error> {
    let len = file.file.len().map_err(|e| io_error("reading", &file.path, e))?;
    let mut position = Position { at: HEAD_LEN, seq: file.first_seq };
    while position.seq < next_seq {
        let Some((head, bytes)) = frame_at(file, position, len)? else {
            return Err(damaged(file, position, len, state));
        };
        fold(file, position, &head, bytes, state)?;
        position = Position { at: position.at + head.frame_len() as u64, seq: position.seq + 1 };
    }
    Ok(())
}

/// Makes what was found durable and removes what was cut; then frames can be added.
pub(crate) fn repair(file: Arc<JournalFile>, mut end: End) -> Result<Writer, Error> {
    let io = |e| io_error("repairing", &file.path, e);
    end.unproven.write_down_to(&file, 0)?;
    let (mut at, mut cut) = (end.position.at, 0);
    while at < end.len {
        let mut bytes = vec![0; STRETCH.min(end.len - at) as usize];
        read_exact(&*file.file, &file.path, at, &mut bytes)?;
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        if used > 0 {
            cut += used;
            file.file.write_at(at, &vec![0; used]).map_err(io)?;
        }
        at += bytes.len() as u64;
    }
    file.file.sync().map_err(io)?;
    if cut > 0 {
        tracing::warn!(
            file = %file.path.display(), at = end.position.at, bytes = cut,
            "the journal ended in an unfinished write, which was cut; nothing acknowledged is lost",
        );
    }
    let zeroed = end.len.max(end.position.at);
    Ok(Writer::new(file, end.position.at, zeroed, end.position.seq, end.sealed))
}

/// The frame at a position, if a whole valid one with the expected number is there.
fn frame_at(
    file: &JournalFile,
    position: Position,
    len: u64,
) -> Result<Option<(FrameHead, Bytes)>, Error> {
    let left = len.saturating_sub(position.at);
    let mut bytes = vec![0; left.min(ALIGN as u64) as usize];
    read_exact(&*file.file, &file.path, position.at, &mut bytes)?;
    let Some(head) = FrameHead::parse(file.id, &bytes) else { return Ok(None) };
    if head.seq != position.seq || head.frame_len() as u64 > left {
        return Ok(None);
    }
    if head.frame_len() > bytes.len() {
        let have = bytes.len();
        bytes.resize(head.frame_len(), 0);
        read_exact(&*file.file, &file.path, position.at + have as u64, &mut bytes[have..])?;
    }
    Ok(head.verify(file.id, &bytes).then(|| (head, Bytes::from(bytes))))
}

/// Folds the entries of one frame into the state.
pub(super) fn fold(
    file: &Arc<JournalFile>,
    position: Position,
    head: &FrameHead,
    bytes: Bytes,
    state: &mut State,
) -> Result<(), Error> {
    if head.first_lsn != state.next_lsn {
        let reason = format!("entry {} instead of {}", head.first_lsn, state.next_lsn);
        return Err(corrupt(&file.path, position.at, None, reason));
    }
    let payload = bytes.slice(frame::HEAD_LEN..frame::HEAD_LEN + head.payload as usize);
    let mut rest = Take::new(payload);
    for _ in 0..head.entries {
        fold_entry(file, position, &mut rest, state).map_err(|Malformed(reason)| {
            let at = position.at + (frame::HEAD_LEN + rest.position()) as u64;
            corrupt(&file.path, at, None, format!("an entry cannot be understood: {reason}"))
        })?;
    }
    if !rest.is_done() {
        return Err(corrupt(&file.path, position.at, None, "a frame has more than its entries"));
    }
    Ok(())
}

fn fold_entry(
    file: &Arc<JournalFile>,
    position: Position,
    rest: &mut Take,
    state: &mut State,
) -> Result<(), Malformed> {
    let mut places = Vec::new();
    let entry = Entry::decode(rest, state, &mut places)?;
    state.apply(&entry, &mut Vec::new());
    if let Entry::DeleteRecords { partition, before } = &entry {
        partition.truncate(*before);
    }
    for (placed, place) in entry.batches().iter().zip(places) {
        let (base, end) = (placed.batch.base_offset(), placed.partition.lock().end);
        if base != end {
            let partition = &placed.partition.name;
            return Err(Malformed(format!("{partition} goes on at {base} instead of {end}")));
        }
        let at = position.at + (frame::HEAD_LEN + place) as u64;
        let at = u32::try_from(at).map_err(|_| Malformed("file above 4 GiB".into()))?;
        placed.partition.append_recovered(file, &placed.batch, at);
    }
    Ok(())
}

/// Whether a frame after `bad` proves that the one at `bad` was durable.
fn later_proof(file: &JournalFile, bad: Position, len: u64) -> Result<bool, Error> {
    let mut at = bad.at;
    while at < len {
        let mut bytes = vec![0; STRETCH.min(len - at) as usize];
        read_exact(&*file.file, &file.path, at, &mut bytes)?;
        let proves = |page: &[u8]| {
            FrameHead::parse(file.id, page)
                .is_some_and(|head| head.seq > bad.seq && head.durable_seq >= bad.seq)
        };
        if bytes.chunks(ALIGN).any(proves) {
            return Ok(true);
        }
        at += bytes.len() as u64;
    }
    Ok(false)
}

fn damaged(file: &JournalFile, bad: Position, len: u64, state: &State) -> Error {
    let reason = format!("frame {} was durable and does not verify", bad.seq);
    corrupt(&file.path, bad.at, blame(file, bad, len, state), reason)
}

/// The partition whose batch is damaged in the frame at a position, where that can be told.
fn blame(file: &JournalFile, bad: Position, len: u64, state: &State) -> Option<TopicPartition> {
    let left = len.checked_sub(bad.at)?;
    let mut bytes = vec![0; left.min(128 << 20) as usize];
    file.file.read_at(bad.at, &mut bytes).ok()?;
    let head = FrameHead::parse(file.id, &bytes)?;
    let payload =
        Bytes::from(bytes.get(frame::HEAD_LEN..frame::HEAD_LEN + head.payload as usize)?.to_vec());
    let mut rest = Take::new(payload);
    for _ in 0..head.entries {
        let entry = Entry::decode(&mut rest, state, &mut Vec::new()).ok()?;
        for placed in entry.batches() {
            if broker_api::Batch::parse(placed.batch.bytes().clone()).is_err() {
                return Some(placed.partition.name.clone());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::frame::Buffer;
    use super::*;
    use crate::vfs::{SimVfs, Vfs, VfsFile};

    /// Writes a frame with one seal in it; nothing in it says that an earlier one is durable.
    fn put(file: &JournalFile, seq: u64) {
        let mut buffer = Buffer::default();
        Entry::IdleSeal.encode(buffer.begin(1), &mut Vec::new());
        let head =
            FrameHead { payload: 1, seq, durable_seq: 0, now: 0, first_lsn: seq - 1, entries: 1 };
        buffer.finish(file.id, head);
        file.file.write_at(HEAD_LEN + (seq - 1) * ALIGN as u64, buffer.frame()).unwrap();
    }

    /// A file whose reads give zeros once it is told to: what a disk may do after a failed sync,
    /// when pages that were never written leave the cache.
    struct Forgetful {
        file: Arc<dyn VfsFile>,
        forgets: AtomicBool,
    }

    impl VfsFile for Forgetful {
        fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<usize> {
            let read = self.file.read_at(at, buf)?;
            if self.forgets.load(Ordering::Relaxed) {
                buf.fill(0);
            }
            Ok(read)
        }

        fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
            self.file.write_at(at, bytes)
        }

        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn sync(&self) -> io::Result<()> {
            self.file.sync()
        }
    }

    #[test]
    fn what_is_written_again_are_the_bytes_that_were_verified() {
        let (vfs, dir) = (SimVfs::new(1), Path::new("/journal"));
        vfs.create_dir_all(dir).unwrap();
        let file = JournalFile::create(&vfs, dir, 7, 0, 1).unwrap();
        (1..=3).for_each(|seq| put(&file, seq));
        let forgetful =
            Arc::new(Forgetful { file: file.file.clone(), forgets: AtomicBool::new(false) });
        let shaky = Arc::new(JournalFile {
            path: file.path.clone(),
            first_lsn: file.first_lsn,
            first_seq: file.first_seq,
            id: file.id,
            file: forgetful.clone(),
        });
        let end = replay_newest(&shaky, &mut State::default()).unwrap();
        forgetful.forgets.store(true, Ordering::Relaxed);
        repair(shaky, end).unwrap();
        let mut state = State::default();
        replay_newest(&file, &mut state).unwrap();
        assert_eq!(state.next_lsn, 3, "what was found is still there");
    }

    #[test]
    fn what_lay_behind_a_cut_does_not_come_back_after_the_next_crash() {
        let (vfs, dir) = (SimVfs::new(1), Path::new("/journal"));
        vfs.create_dir_all(dir).unwrap();
        let file = JournalFile::create(&vfs, dir, 7, 0, 1).unwrap();
        (1..=3).for_each(|seq| put(&file, seq));
        // The second was lost, the third was not: nobody was told of either.
        vfs.flip(&file.path, HEAD_LEN + ALIGN as u64 + 8, 1).unwrap();
        let mut state = State::default();
        let end = replay_newest(&file, &mut state).unwrap();
        assert_eq!((state.next_lsn, end.position.seq), (1, 2));
        repair(file.clone(), end).unwrap();
        // Another second one is written; the old third one would fit behind it.
        put(&file, 2);
        let mut state = State::default();
        let end = replay_newest(&file, &mut state).unwrap();
        assert_eq!((state.next_lsn, end.position.seq), (2, 3));
    }
}
