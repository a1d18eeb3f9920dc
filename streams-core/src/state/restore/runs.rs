//! Sorted runs: what does not fit the memory of a restore, in files.
//!
//! Byte layout (big-endian), format 1:
//!
//! | part | fields |
//! |---|---|
//! | head | magic `VRUN`, format = 1 (u32) |
//! | block, any number | length (u32, above 0), CRC-32C of the payload (u32), payload |
//! | end | length = 0 (u32), CRC-32C of the payload (u32), payload: number of entries (u64) |
//!
//! The payload of a block is whole entries: length of the key (u32), length of the value plus one
//! (u32; 0: deleted), key, value. Keys rise over the file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use crate::error::StateError;

const MAGIC: &[u8; 4] = b"VRUN";
const FORMAT: u32 = 1;
const BLOCK: usize = 64 << 10;

/// How many runs are merged at once: each holds a block or two in memory.
const MOST_RUNS: usize = 32;

/// The runs of one restore, oldest first, in a directory of their own.
pub(super) struct Runs {
    dir: PathBuf,
    runs: Vec<PathBuf>,
    written: u64,
}

impl Runs {
    /// No runs; `dir` is made when the first one is written, and removed at the end.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, runs: Vec::new(), written: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Writes a run that is newer than all others.
    pub(super) fn add<'a>(
        &mut self,
        entries: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), StateError> {
        if self.runs.len() == MOST_RUNS {
            self.merge_into_one()?;
        }
        let mut writer = self.create()?;
        for (key, value) in entries {
            writer.put(key, value)?;
        }
        self.runs.push(writer.finish()?);
        Ok(())
    }

    fn create(&mut self) -> Result<RunWriter, StateError> {
        if self.written == 0 {
            let _ = fs::remove_dir_all(&self.dir); // what a crash left
        }
        fs::create_dir_all(&self.dir).map_err(|e| failed("creating", &self.dir, &e))?;
        self.written += 1;
        RunWriter::create(self.dir.join(format!("{}.run", self.written)))
    }

    /// All runs become one; with the oldest among them, deletions have done their work.
    fn merge_into_one(&mut self) -> Result<(), StateError> {
        let mut writer = self.create()?;
        self.merge(|key, value| writer.put(key, Some(value)))?;
        let merged = writer.finish()?;
        for run in std::mem::replace(&mut self.runs, vec![merged]) {
            fs::remove_file(&run).map_err(|e| failed("removing", &run, &e))?;
        }
        Ok(())
    }

    /// Hands the newest value of every key that is not deleted to `each`, in key order.
    pub(super) fn merge(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut readers = Vec::new();
        let mut heads = BinaryHeap::new();
        for (age, run) in self.runs.iter().rev().enumerate() {
            let mut reader = RunReader::open(run)?;
            if let Some((key, value)) = reader.next()? {
                heads.push(Reverse((key, age, value))); // of equal keys the newest first
            }
            readers.push(reader);
        }
        let mut last: Option<Bytes> = None;
        while let Some(Reverse((key, age, value))) = heads.pop() {
            if let Some((key, value)) = readers[age].next()? {
                heads.push(Reverse((key, age, value)));
            }
            if last.as_ref() != Some(&key) {
                if let Some(value) = &value {
                    each(&key, value)?;
                }
                last = Some(key);
            }
        }
        Ok(())
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        if self.written > 0 {
            // If it fails, the next restore of the store removes it.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

struct RunWriter {
    path: PathBuf,
    file: File,
    block: Vec<u8>,
    entries: u64,
}

impl RunWriter {
    fn create(path: PathBuf) -> Result<Self, StateError> {
        let mut file = File::create(&path).map_err(|e| failed("creating", &path, &e))?;
        let head = [*MAGIC, FORMAT.to_be_bytes()].concat();
        file.write_all(&head).map_err(|e| failed("writing", &path, &e))?;
        Ok(Self { path, file, block: Vec::new(), entries: 0 })
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StateError> {
        let value_len = value.map_or(0, |value| value.len() as u32 + 1);
        self.block.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.block.extend_from_slice(&value_len.to_be_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value.unwrap_or_default());
        self.entries += 1;
        if self.block.len() >= BLOCK {
            let block = std::mem::take(&mut self.block);
            self.write(block.len(), &block)?;
            self.block = block;
            self.block.clear();
        }
        Ok(())
    }

    fn write(&mut self, length: usize, payload: &[u8]) -> Result<(), StateError> {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&(length as u32).to_be_bytes());
        head[4..].copy_from_slice(&crc32c::crc32c(payload).to_be_bytes());
        let written = self.file.write_all(&head).and_then(|()| self.file.write_all(payload));
        written.map_err(|e| failed("writing", &self.path, &e))
    }

    /// Not synced: after a crash nobody reads it.
    fn finish(mut self) -> Result<PathBuf, StateError> {
        let block = std::mem::take(&mut self.block);
        if !block.is_empty() {
            self.write(block.len(), &block)?;
        }
        self.write(0, &self.entries.to_be_bytes())?;
        Ok(self.path)
    }
}

/// A key, and its value or `None`: deleted.
type RunEntry = (Bytes, Option<Bytes>);

struct RunReader {
    path: PathBuf,
    file: BufReader<File>,
    block: Bytes,
    entries: u64,
    ended: bool,
}

impl RunReader {
    fn open(path: &Path) -> Result<Self, StateError> {
        let file = File::open(path).map_err(|e| failed("opening", path, &e))?;
        let (file, path) = (BufReader::new(file), path.to_owned());
        let mut reader = Self { path, file, block: Bytes::new(), entries: 0, ended: false };
        let head = reader.read(8)?;
        if head[..4] != MAGIC[..] || head[4..] != FORMAT.to_be_bytes() {
            return Err(reader.corrupt("not a run of this version"));
        }
        Ok(reader)
    }

    /// The next entry.
    fn next(&mut self) -> Result<Option<RunEntry>, StateError> {
        if self.block.is_empty() && !self.ended {
            self.next_block()?;
        }
        if self.ended {
            return Ok(None);
        }
        if self.block.len() < 8 {
            return Err(self.corrupt("an entry is cut off"));
        }
        let (key_len, value_len) = (self.block.get_u32() as usize, self.block.get_u32() as usize);
        if self.block.len() < key_len.saturating_add(value_len.saturating_sub(1)) {
            return Err(self.corrupt("an entry is cut off"));
        }
        let key = self.block.split_to(key_len);
        let value = (value_len > 0).then(|| self.block.split_to(value_len - 1));
        self.entries += 1;
        Ok(Some((key, value)))
    }

    fn next_block(&mut self) -> Result<(), StateError> {
        let mut head = self.read(8)?;
        let (length, crc) = (head.get_u32() as usize, head.get_u32());
        let payload = self.read(if length == 0 { 8 } else { length })?;
        if crc32c::crc32c(&payload) != crc {
            return Err(self.corrupt("a checksum does not fit"));
        }
        if length > 0 {
            self.block = payload;
            return Ok(());
        }
        self.ended = true;
        if payload[..] != self.entries.to_be_bytes() {
            return Err(self.corrupt("entries are missing"));
        }
        Ok(())
    }

    fn read(&mut self, length: usize) -> Result<Bytes, StateError> {
        // Not allocated ahead: a damaged length must not take all memory.
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(length as u64).read_to_end(&mut bytes);
        read.map_err(|e| failed("reading", &self.path, &e))?;
        if bytes.len() < length {
            return Err(self.corrupt("it is cut off"));
        }
        Ok(bytes.into())
    }

    fn corrupt(&self, reason: &str) -> StateError {
        StateError::Corrupt { path: self.path.clone(), reason: reason.into() }
    }
}

fn failed(operation: &'static str, path: &Path, error: &io::Error) -> StateError {
    StateError::Io { operation, path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Merged = Vec<(Vec<u8>, Vec<u8>)>;

    fn entries(runs: &Runs) -> Result<Merged, StateError> {
        let mut entries = Vec::new();
        runs.merge(|key, value| {
            entries.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(entries)
    }

    type Entry = (&'static [u8], Option<&'static [u8]>);
    const OLD: [Entry; 3] = [(b"a", Some(b"1")), (b"b", Some(b"1")), (b"c", None)];
    const NEW: [Entry; 3] = [(b"b", None), (b"c", Some(b"")), (b"d", Some(b"2"))];

    #[test]
    fn golden_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(dir.path().join("runs"));
        runs.add(NEW.into_iter()).unwrap();
        let golden = [
            &b"VRUN\0\0\0\x01"[..],
            b"\0\0\0\x1c",
            &crc32c::crc32c(b"\0\0\0\x01\0\0\0\0b\0\0\0\x01\0\0\0\x01c\0\0\0\x01\0\0\0\x02d2")
                .to_be_bytes(),
            b"\0\0\0\x01\0\0\0\0b\0\0\0\x01\0\0\0\x01c\0\0\0\x01\0\0\0\x02d2",
            b"\0\0\0\0",
            &crc32c::crc32c(b"\0\0\0\0\0\0\0\x03").to_be_bytes(),
            b"\0\0\0\0\0\0\0\x03",
        ];
        assert_eq!(fs::read(dir.path().join("runs/1.run")).unwrap(), golden.concat());
    }

    #[test]
    fn newer_runs_win_and_the_directory_goes_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(dir.path().join("runs"));
        runs.add(OLD.into_iter()).unwrap();
        runs.add(NEW.into_iter()).unwrap();
        let merged: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"c", b""), (b"d", b"2")];
        let merged = merged.map(|(key, value)| (key.to_vec(), value.to_vec()));
        assert_eq!(entries(&runs).unwrap(), merged);
        runs.merge_into_one().unwrap();
        assert_eq!((runs.runs.len(), entries(&runs).unwrap()), (1, merged.to_vec()));
        drop(runs);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(dir.path().join("runs"));
        runs.add(OLD.into_iter()).unwrap();
        let path = dir.path().join("runs/1.run");
        let bytes = fs::read(&path).unwrap();
        let found = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            matches!(entries(&runs), Err(StateError::Corrupt { .. }))
        };
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x81;
            assert!(found(&damaged), "byte {at}");
            assert!(found(&bytes[..at]), "cut at {at}");
        }
    }
}
