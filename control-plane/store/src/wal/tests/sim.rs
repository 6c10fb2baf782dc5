//! A disk in memory that records what is done to it, and can lose what was not synced.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand::seq::SliceRandom;

use crate::wal::disk::{Disk, File};

/// Writes reach the disk in pieces of this size.
const SECTOR: usize = 512;

/// What was done to the disk, in order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
    SyncNames,
    Write(usize, u64, Vec<u8>),
    Sync(usize),
    /// The test was told that what it wrote is durable.
    Acknowledged(u64),
}

/// The disk. Files are known by number; names point to them.
#[derive(Clone, Default)]
pub(super) struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    trace: Vec<Step>,
    /// Bytes that may be written before the disk is full; none is no limit.
    room: Option<u64>,
    /// Whether syncs fail.
    broken: bool,
}

impl SimDisk {
    pub(super) fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    pub(super) fn trace(&self) -> Vec<Step> {
        self.state.lock().trace.clone()
    }

    pub(super) fn acknowledge(&self, what: u64) {
        self.state.lock().trace.push(Step::Acknowledged(what));
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        let state = self.state.lock();
        state.files[state.names[name]].clone()
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let file = state.names[name];
        change(&mut state.files[file]);
    }

    pub(super) fn limit(&self, room: Option<u64>) {
        self.state.lock().room = room;
    }

    pub(super) fn break_syncs(&self) {
        self.state.lock().broken = true;
    }

    /// What a disk may hold after a power cut in the place of step `at`: what was synced, and of
    /// the rest any part.
    pub(super) fn cut(trace: &[Step], at: usize, rng: &mut impl Rng) -> Self {
        let trace = &trace[..at];
        let keep = rng.random_range(0.0..=1.0);
        let mut files: Vec<Vec<u8>> = Vec::new();
        let mut pending: Vec<Vec<(u64, Vec<u8>)>> = Vec::new();
        let mut names = BTreeMap::new();
        let mut pending_names: Vec<&Step> = Vec::new();
        for step in trace {
            match step {
                Step::Create(_, file) => {
                    files.resize(files.len().max(file + 1), Vec::new());
                    pending.resize(pending.len().max(file + 1), Vec::new());
                    pending_names.push(step);
                }
                Step::Rename(..) | Step::Remove(_) => pending_names.push(step),
                Step::SyncNames => {
                    for step in pending_names.drain(..) {
                        rename(&mut names, step);
                    }
                }
                Step::Write(file, offset, bytes) => {
                    let mut offset = *offset;
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let aligned = SECTOR - usize::try_from(offset).unwrap() % SECTOR;
                        let (piece, later) = rest.split_at(aligned.min(rest.len()));
                        pending[*file].push((offset, piece.to_vec()));
                        offset += piece.len() as u64;
                        rest = later;
                    }
                }
                Step::Sync(file) => {
                    for (offset, bytes) in pending[*file].drain(..) {
                        store(&mut files[*file], offset, &bytes);
                    }
                }
                Step::Acknowledged(_) => {}
            }
        }
        for (file, mut pieces) in pending.into_iter().enumerate() {
            pieces.shuffle(rng);
            for (offset, bytes) in pieces {
                if rng.random_bool(keep) {
                    store(&mut files[file], offset, &bytes);
                }
            }
        }
        // Names are kept in a journal: what was done to them survives up to some point.
        let survive = rng.random_range(0..=pending_names.len());
        for step in &pending_names[..survive] {
            rename(&mut names, step);
        }
        let state = State {
            names,
            files,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

fn store(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    let end = offset + bytes.len();
    file.resize(file.len().max(end), 0);
    file[offset..end].copy_from_slice(bytes);
}

fn rename(names: &mut BTreeMap<String, usize>, step: &Step) {
    match step {
        Step::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Step::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Step::Remove(name) => {
            names.remove(name);
        }
        _ => {}
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let number = self.state.lock().names.get(name).copied();
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, number }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state.lock();
        let number = state.files.len();
        state.files.push(Vec::new());
        state.names.insert(name.to_owned(), number);
        state.trace.push(Step::Create(name.to_owned(), number));
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, number }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let step = Step::Rename(from.to_owned(), to.to_owned());
        rename(&mut state.names, &step);
        state.trace.push(step);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let number = state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        let freed = state.files[number].len() as u64;
        state.room = state.room.map(|room| room + freed);
        state.trace.push(Step::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.state.lock().trace.push(Step::SyncNames);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/sim").join(name)
    }
}

struct SimFile {
    disk: SimDisk,
    number: usize,
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().files[self.number].len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state.lock();
        let offset = usize::try_from(offset).unwrap();
        let from = state.files[self.number].get(offset..offset + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let end = offset + bytes.len() as u64;
        let grown = end.saturating_sub(state.files[self.number].len() as u64);
        if let Some(room) = state.room {
            let room = room
                .checked_sub(grown)
                .ok_or(io::Error::from(io::ErrorKind::StorageFull))?;
            state.room = Some(room);
        }
        store(&mut state.files[self.number], offset, bytes);
        state
            .trace
            .push(Step::Write(self.number, offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        if state.broken {
            return Err(io::Error::other("the disk is broken"));
        }
        state.trace.push(Step::Sync(self.number));
        Ok(())
    }
}
