//! A file of the simulated disk: what is read, what is durable, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::random::Dice;
use super::survival::Survival;

#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    /// What reads see: the page cache. Copied when it is written: forks of a disk share it.
    live: Arc<Vec<u8>>,
    /// What has reached the disk.
    durable: Arc<Vec<u8>>,
    /// What may or may not reach it before the next sync, with its number.
    pending: Vec<(u64, Change)>,
    /// The blocks that take space. (Holes do not.)
    blocks: BTreeSet<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    SetLen(u64),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = *at as usize + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at as usize..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => to.resize(*len as usize, 0),
        }
    }

    /// The part of the change that falls into these bytes.
    fn apply_within(&self, to: &mut [u8], from: u64, end: u64) {
        match self {
            Self::Write { at, bytes } => {
                let from = from.max(*at);
                let end = end.min(at + bytes.len() as u64);
                let part = &bytes[(from - at) as usize..(end - at) as usize];
                to[from as usize..end as usize].copy_from_slice(part);
            }
            Self::SetLen(len) => to[from.max(*len) as usize..end as usize].fill(0),
        }
    }

    fn len_after(&self, len: u64) -> u64 {
        match self {
            Self::Write { at, bytes } => len.max(at + bytes.len() as u64),
            Self::SetLen(len) => *len,
        }
    }
}

impl SimFile {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// How many blocks of `size` bytes a write would newly take.
    pub(super) fn new_blocks(&self, at: u64, len: u64, size: u64) -> u64 {
        block_range(at, len, size).filter(|b| !self.blocks.contains(b)).count() as u64
    }

    pub(super) fn write(&mut self, seq: u64, at: u64, bytes: &[u8], block: u64) {
        if bytes.is_empty() {
            return;
        }
        self.blocks.extend(block_range(at, bytes.len() as u64, block));
        self.change(seq, Change::Write { at, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, seq: u64, len: u64, block: u64) {
        self.blocks.split_off(&len.div_ceil(block));
        self.change(seq, Change::SetLen(len));
    }

    fn change(&mut self, seq: u64, change: Change) {
        change.apply(Arc::make_mut(&mut self.live));
        self.pending.push((seq, change));
    }

    /// Everything pending reaches the disk. (Not simply all that is live: what a failed sync
    /// dropped is not written by a later one.)
    pub(super) fn sync(&mut self) {
        for (_, change) in self.pending.drain(..) {
            change.apply(Arc::make_mut(&mut self.durable));
        }
    }

    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending.first().map(|(seq, _)| *seq)
    }

    /// Some of what is pending reaches the disk, the rest is lost. Every sector ends as one of the
    /// versions that it had, the length as one of the lengths.
    pub(super) fn settle(&mut self, survival: Survival, dice: &mut Dice, sector: u64) {
        let changes = std::mem::take(&mut self.pending);
        if changes.is_empty() {
            return;
        }
        let mut lens = vec![self.durable.len() as u64];
        for (_, change) in &changes {
            lens.push(change.len_after(lens[lens.len() - 1]));
        }
        let longest = lens.iter().copied().max().unwrap_or(0);
        let mut touched: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (i, (_, change)) in changes.iter().enumerate() {
            let range = match change {
                Change::Write { at, bytes } => block_range(*at, bytes.len() as u64, sector),
                // What is cut off reads as zeros when the file grows again.
                Change::SetLen(len) if *len < lens[i] => block_range(*len, longest - len, sector),
                Change::SetLen(_) => 0..0,
            };
            range.for_each(|s| touched.entry(s).or_default().push(i));
        }
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(longest as usize, 0);
        for (s, changes_here) in touched {
            let seqs: Vec<u64> = changes_here.iter().map(|&i| changes[i].0).collect();
            let kept = survival.versions(dice, &seqs);
            let from = s * sector;
            let to = (from + sector).min(longest);
            for &i in &changes_here[..kept] {
                changes[i].1.apply_within(durable, from, to);
            }
        }
        let seqs: Vec<u64> = changes.iter().map(|(seq, _)| *seq).collect();
        let len = lens[survival.versions(dice, &seqs)];
        durable.resize(len as usize, 0);
    }

    /// Reads see what is on the disk.
    pub(super) fn drop_cache(&mut self, block: u64) {
        self.live.clone_from(&self.durable);
        self.blocks.split_off(&(self.live.len() as u64).div_ceil(block));
    }

    /// The medium changes by itself.
    pub(super) fn flip(&mut self, at: u64, mask: u8) -> bool {
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = Arc::make_mut(bytes).get_mut(at as usize) {
                *byte ^= mask;
            }
        }
        (at as usize) < self.live.len()
    }
}

fn block_range(at: u64, len: u64, size: u64) -> std::ops::Range<u64> {
    at / size..(at + len).div_ceil(size)
}
