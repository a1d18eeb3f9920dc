//! The state of the simulated disk: a tree of directories and files, what is open, what is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::dir::{NodeId, SimDir};
use super::faults::{Fate, Faults, Kind};
use super::file::SimFile;
use super::random::Dice;
use super::survival::Survival;

const ROOT: NodeId = 0;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(SimFile),
    Dir(SimDir),
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    /// Numbers the changes, over all files and directories.
    next_seq: u64,
    /// How many handles each file has: removed files live on while they are open.
    open: BTreeMap<NodeId, usize>,
    locks: BTreeMap<NodeId, String>,
    /// Handles of an earlier generation are dead.
    pub(super) generation: u64,
    pub(super) sector: u64,
    pub(super) capacity: Option<u64>,
    pub(super) faults: Faults,
    pub(super) dice: Dice,
}

impl Disk {
    pub(super) fn new(seed: u64, sector: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(SimDir::default()))]),
            next_node: ROOT + 1,
            next_seq: 0,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            generation: 0,
            sector,
            capacity: None,
            faults: Faults::default(),
            dice: Dice::new(seed),
        }
    }

    pub(super) fn begin(&mut self, kind: Kind) -> io::Result<Fate> {
        self.faults.begin(kind, &mut self.dice)
    }

    /// The number of the next change.
    pub(super) fn seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    // Names

    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        names(path)?.into_iter().try_fold(ROOT, |node, name| match self.nodes.get(&node) {
            Some(Node::Dir(dir)) => dir.get(name).ok_or_else(|| missing(path)),
            _ => Err(ErrorKind::NotADirectory.into()),
        })
    }

    /// The directory that a path lies in, and its name there.
    pub(super) fn place<'a>(
        &mut self,
        path: &'a Path,
    ) -> io::Result<(NodeId, &'a str, &mut SimDir)> {
        let names = names(path)?;
        let name = *names.last().ok_or(ErrorKind::InvalidInput)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name, self.dir(parent)?))
    }

    pub(super) fn dir(&mut self, node: NodeId) -> io::Result<&mut SimDir> {
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file(&mut self, node: NodeId) -> io::Result<&mut SimFile> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// Links a new node to a name that must be free.
    pub(super) fn create(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        let (id, seq) = (self.next_node, self.seq());
        let (_, name, dir) = self.place(path)?;
        if dir.get(name).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        dir.link(seq, name, id);
        self.nodes.insert(id, node);
        self.next_node += 1;
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from)?;
        let target = self.find(to).ok();
        let seq = self.seq();
        let (parent, from_name, _) = self.place(from)?;
        let (other, to_name, dir) = self.place(to)?;
        if parent != other {
            return Err(io::Error::new(ErrorKind::Unsupported, "rename to another directory"));
        }
        if from_name != to_name {
            dir.rename(seq, from_name, to_name, node);
        }
        let is_dir = |node| matches!(self.nodes.get(&node), Some(Node::Dir(_)));
        debug_assert!(!target.is_some_and(is_dir), "the broker never renames over a directory");
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path)?;
        self.file(node)?;
        let seq = self.seq();
        let (_, name, dir) = self.place(path)?;
        dir.unlink(seq, name);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let root = self.find(path)?;
        self.dir(root)?;
        for node in self.below(root) {
            let seq = self.next_seq;
            if let Some(Node::Dir(dir)) = self.nodes.get_mut(&node) {
                let names: Vec<String> = dir.entries().map(|(name, _)| name.clone()).collect();
                for (i, name) in names.iter().enumerate() {
                    dir.unlink(seq + i as u64, name);
                }
                self.next_seq += names.len() as u64;
            }
        }
        let seq = self.seq();
        let (_, name, dir) = self.place(path)?;
        dir.unlink(seq, name);
        Ok(())
    }

    /// This node and all below it, the deepest first.
    fn below(&self, root: NodeId) -> Vec<NodeId> {
        let mut found = vec![root];
        let mut at = 0;
        while at < found.len() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&found[at]) {
                found.extend(dir.entries().map(|(_, node)| node));
            }
            at += 1;
        }
        found.reverse();
        found
    }

    /// All files with their lengths, by path.
    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut dirs = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, node)) = dirs.pop() {
            let Some(Node::Dir(dir)) = self.nodes.get(&node) else { continue };
            for (name, node) in dir.entries() {
                match self.nodes.get(&node) {
                    Some(Node::File(file)) => {
                        found.push((path.join(name), file.bytes().len() as u64));
                    }
                    _ => dirs.push((path.join(name), node)),
                }
            }
        }
        found.sort();
        found
    }

    // Handles and locks

    pub(super) fn opened(&mut self, node: NodeId) {
        *self.open.entry(node).or_default() += 1;
    }

    pub(super) fn closed(&mut self, node: NodeId) {
        if let Some(count) = self.open.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&node);
            }
        }
    }

    /// Takes a lock, or tells who has it.
    pub(super) fn lock(&mut self, node: NodeId, holder: &str) -> Result<(), String> {
        if let Some(present) = self.locks.get(&node) {
            return Err(present.clone());
        }
        self.locks.insert(node, holder.into());
        Ok(())
    }

    pub(super) fn unlock(&mut self, node: NodeId) {
        self.locks.remove(&node);
    }

    // Space

    /// Bytes that are taken by files that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let mut nodes: BTreeSet<NodeId> = self.below(ROOT).into_iter().collect();
        nodes.extend(self.open.keys());
        let blocks = nodes.iter().map(|node| match self.nodes.get(node) {
            Some(Node::File(file)) => file.blocks(),
            _ => 0,
        });
        blocks.sum::<u64>() * self.sector
    }

    /// How many of `len` bytes can be written at byte `at` of a file before the disk is full.
    pub(super) fn room(&mut self, node: NodeId, at: u64, len: u64) -> io::Result<u64> {
        let Some(capacity) = self.capacity else { return Ok(len) };
        let sector = self.sector;
        let free = capacity.saturating_sub(self.used()) / sector;
        let file = self.file(node)?;
        let mut fits = len;
        while fits > 0 && file.new_blocks(at, fits, sector) > free {
            // Back to the block boundary below.
            fits = ((at + fits - 1) / sector * sector).saturating_sub(at);
        }
        Ok(fits)
    }

    // Durability

    pub(super) fn sync_dir(&mut self, node: NodeId) -> io::Result<()> {
        self.dir(node)?.sync();
        self.forget_unreachable();
        Ok(())
    }

    /// A sync that fails: some of the file reaches the disk; the rest is dropped, or stays
    /// readable for a while and is never written.
    pub(super) fn fail_sync(&mut self, node: NodeId) -> io::Result<()> {
        let survival = self.survival();
        let sector = self.sector;
        let mut dice = self.dice.clone();
        let drops = dice.chance(4);
        let file = self.file(node)?;
        file.settle(survival, &mut dice, sector);
        if drops {
            file.drop_cache(sector);
        }
        self.dice = dice;
        Ok(())
    }

    fn survival(&mut self) -> Survival {
        let oldest = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => file.oldest_pending(),
            Node::Dir(dir) => dir.oldest_pending(),
        });
        let oldest = oldest.min().unwrap_or(self.next_seq);
        Survival::draw(&mut self.dice, oldest, self.next_seq)
    }

    pub(super) fn crash(&mut self) {
        let survival = self.survival();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    file.settle(survival, &mut self.dice, self.sector);
                    file.drop_cache(self.sector);
                }
                Node::Dir(dir) => dir.crash(survival, &mut self.dice),
            }
        }
        self.end_processes();
        self.forget_unreachable();
    }

    /// Everything that was open or locked is so no more; plans of faults are void.
    pub(super) fn end_processes(&mut self) {
        self.generation += 1;
        self.open.clear();
        self.locks.clear();
        self.faults.failing_operations.clear();
        self.faults.failing_syncs.clear();
        self.faults.cut_at = None;
        self.faults.power_is_cut = false;
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(node) = todo.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&node) {
                todo.extend(dir.nodes().filter(|node| reached.insert(*node)));
            }
        }
        self.nodes.retain(|node, _| reached.contains(node) || self.open.contains_key(node));
    }
}

fn names(path: &Path) -> io::Result<Vec<&str>> {
    path.components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => name.to_str().ok_or(ErrorKind::InvalidInput.into()),
            _ => Err(ErrorKind::InvalidInput.into()),
        })
        .collect()
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("no such file or directory: {}", path.display()))
}
