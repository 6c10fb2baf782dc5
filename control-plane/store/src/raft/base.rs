//! The applied state on disk, in sled: the base under the history that is in memory.
//!
//! It lags behind what is applied by what the history retains: an entry's changes come here when
//! they leave the ring, and at start the log's entries after it are applied again, which gives
//! the ring back. So the log may be purged up to what is durable here, and no further.
//!
//! sled's own flush is not durable on Linux (it calls sync_file_range): [`Base::sync`] adds an
//! fdatasync on a second handle of its file. And sled may open empty where its file was damaged,
//! without an error: the meta row carries a count and a sum over all objects, which
//! [`Base::load`] compares with what it found.
//!
//! Rows: the meta row, and each object cut into chunks, because sled puts large values into
//! files that it never syncs. Row values begin with a format version and the id of a key for
//! encryption at rest; 0 is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::types::{EntryId, Membership, entry_id, position};
use crate::codec::{Malformed, Reader, Writer};
use crate::state::{Effect, Group, Objects, Sessions};
use crate::types::{Record, Revision};
use crate::wal::DataError;

/// Bytes of an object per row. Four pages of sled's fit a quarter of its segment.
const CHUNK: usize = 16 << 10;

/// What sled may cache; its default is 1 GiB.
const CACHE: u64 = 8 << 20;

const VERSION: u8 = 3;
const META: &[u8] = &[0];
const OBJECT: u8 = 1;
const ACTIVE: &[u8] = b"active";

/// The base, open.
pub(super) struct Base {
    db: sled::Db,
    /// A second handle of sled's file, to make it durable.
    file: fs::File,
    path: PathBuf,
    state: Mutex<BaseState>,
}

struct BaseState {
    tree: sled::Tree,
    meta: Meta,
    /// What has been synced.
    durable: Option<EntryId>,
    durable_membership: Membership,
}

/// What the base stands at.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    pub(super) applied: Option<EntryId>,
    pub(super) membership: Membership,
    pub(super) revision: Revision,
    pub(super) sessions: Sessions,
    /// How many objects there are, and a sum over them.
    sum: Sum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, record: &Record) {
        self.count = self.count.wrapping_add(1);
        self.hash = self.hash.wrapping_add(fingerprint(record));
    }

    fn remove(&mut self, record: &Record) {
        self.count = self.count.wrapping_sub(1);
        self.hash = self.hash.wrapping_sub(fingerprint(record));
    }
}

/// The objects of a state, and where they stand.
pub(super) type Image = (Meta, Objects);

/// Why the base failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BaseError {
    #[error("the applied state in sled: {0}")]
    Sled(#[from] sled::Error),
    #[error("syncing the applied state failed: {0}")]
    Sync(std::io::Error),
    #[error("the applied state: {0}")]
    Malformed(#[from] Malformed),
    #[error("the membership of the cluster: {0}")]
    Membership(#[from] serde_json::Error),
}

impl Base {
    /// Opens the base in `directory`, or makes one; reads everything, once.
    pub(super) fn open(directory: &Path) -> Result<(Self, Image), DataError> {
        let mut base = Self::connect(directory)?;
        let (meta, objects) = base.load()?;
        if objects.iter().next().is_some() {
            // Of pages that are looked at a few times each, sled keeps all, whatever it may cache.
            // What has been read is the replica's now.
            drop(base);
            base = Self::connect(directory)?;
        }
        {
            let mut state = base.state.lock();
            state.durable = meta.applied;
            state.durable_membership = meta.membership.clone();
            state.meta = meta.clone();
        }
        Ok((base, (meta, objects)))
    }

    fn connect(directory: &Path) -> Result<Self, DataError> {
        let path = directory.join("db");
        let failed = |error: sled::Error| match error {
            sled::Error::Corruption { .. } => corrupt(&path, error.to_string()),
            other => DataError::Io {
                path: path.clone(),
                source: other.into(),
            },
        };
        // Nothing is flushed behind our back: an idle base does nothing.
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE)
            .flush_every_ms(None);
        let db = config.open().map_err(failed)?;
        let file = fs::File::open(&path);
        let file = file.map_err(|source| DataError::Io {
            path: path.clone(),
            source,
        })?;
        let active = db.get(ACTIVE).map_err(failed)?;
        let active = active.map_or(0, |name| name.first().copied().unwrap_or(0));
        let tree = db.open_tree([active]).map_err(failed)?;
        let meta = Meta::default();
        let durable_membership = Membership::default();
        let state = Mutex::new(BaseState {
            tree,
            meta,
            durable: None,
            durable_membership,
        });
        Ok(Self {
            db,
            file,
            path,
            state,
        })
    }

    /// Reads everything.
    fn load(&self) -> Result<Image, DataError> {
        let (meta, objects) = read(&self.state.lock().tree).map_err(|error| match error {
            BaseError::Sled(error) if !matches!(error, sled::Error::Corruption { .. }) => {
                DataError::Io {
                    path: self.path.clone(),
                    source: error.into(),
                }
            }
            other => corrupt(&self.path, other.to_string()),
        })?;
        let mut sum = Sum::default();
        objects.iter().for_each(|record| sum.add(record));
        if sum != meta.sum {
            let (found, wanted) = (sum.count, meta.sum.count);
            let what = format!("objects are missing: {found} found of {wanted}, or others");
            return Err(corrupt(&self.path, what));
        }
        Ok((meta, objects))
    }

    /// Takes in what left the ring. `membership` is the one that holds at the last group.
    pub(super) fn write(&self, groups: &[Group], membership: &Membership) -> Result<(), BaseError> {
        let Some(last) = groups.last() else {
            return Ok(());
        };
        let mut state = self.state.lock();
        let mut meta = state.meta.clone();
        meta.applied = Some(entry_id(last.position));
        meta.membership = membership.clone();
        meta.revision = last.revision;
        // The last change of each key counts, against what the first of them replaced.
        let mut net: BTreeMap<&str, (Option<&Record>, Option<&Record>)> = BTreeMap::new();
        for group in groups {
            for id in &group.requests {
                meta.sessions.admit(*id);
            }
            for change in &group.changes {
                let (current, previous) = match &change.effect {
                    Effect::Put { record, previous } => (Some(record), previous.as_ref()),
                    Effect::Delete { previous } => (None, Some(previous)),
                };
                net.entry(change.key()).or_insert((previous, None)).1 = current;
            }
        }
        let mut batch = sled::Batch::default();
        for (key, (previous, current)) in net {
            let chunks = current.map_or(0, |record| insert(&mut batch, key, record));
            for chunk in chunks..previous.map_or(0, chunks_of) {
                batch.remove(row(key, chunk));
            }
            previous
                .into_iter()
                .for_each(|record| meta.sum.remove(record));
            current.into_iter().for_each(|record| meta.sum.add(record));
        }
        batch.insert(META, meta.encode()?);
        state.tree.apply_batch(batch)?;
        state.meta = meta;
        Ok(())
    }

    /// Makes what was written durable. An error here means that nobody knows what is.
    pub(super) fn sync(&self) -> Result<(), BaseError> {
        let mut state = self.state.lock();
        self.db.flush()?;
        self.file.sync_data().map_err(BaseError::Sync)?;
        state.durable = state.meta.applied;
        state.durable_membership = state.meta.membership.clone();
        Ok(())
    }

    /// What is durable: a snapshot of the state at this entry exists.
    pub(super) fn durable(&self) -> (Option<EntryId>, Membership) {
        let state = self.state.lock();
        (state.durable, state.durable_membership.clone())
    }

    /// The whole of it as bytes, for a peer.
    pub(super) fn export(&self) -> Result<(Meta, Vec<u8>), BaseError> {
        let state = self.state.lock();
        let mut out = Writer::default();
        out.bytes(&state.meta.encode()?);
        let (_, objects) = read(&state.tree)?;
        objects.iter().for_each(|record| out.record(record));
        Ok((state.meta.clone(), out.into_bytes()))
    }

    /// Replaces everything by what a peer exported; durable when it returns. A crash meanwhile
    /// leaves what there was before.
    pub(super) fn import(&self, bytes: &[u8]) -> Result<Image, BaseError> {
        let mut from = Reader::new(bytes);
        let meta = Meta::decode(from.bytes()?)?;
        let mut objects = Objects::default();
        while !from.is_empty() {
            objects.insert(from.record()?);
        }
        let mut state = self.state.lock();
        let (old, new) = match state.tree.name().as_ref() {
            [name] => (*name, name ^ 1),
            _ => (0, 1),
        };
        self.db.drop_tree([new])?;
        let tree = self.db.open_tree([new])?;
        for records in objects.iter().collect::<Vec<_>>().chunks(1024) {
            let mut batch = sled::Batch::default();
            for record in records {
                insert(&mut batch, record.key(), record);
            }
            tree.apply_batch(batch)?;
        }
        tree.insert(META, meta.encode()?)?;
        self.db.flush()?;
        self.file.sync_data().map_err(BaseError::Sync)?;
        self.db.insert(ACTIVE, &[new])?;
        self.db.flush()?;
        self.file.sync_data().map_err(BaseError::Sync)?;
        self.db.drop_tree([old])?;
        state.tree = tree;
        state.meta = meta.clone();
        state.durable = meta.applied;
        state.durable_membership = meta.membership.clone();
        Ok((meta, objects))
    }
}

impl Meta {
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = Writer::default();
        out.u8(u8::from(self.applied.is_some()));
        out.position(self.applied.map(position).unwrap_or_default());
        out.bytes(&serde_json::to_vec(&self.membership)?);
        out.u64(self.revision);
        out.sessions(&self.sessions);
        out.u64(self.sum.count);
        out.u64(self.sum.hash);
        Ok(seal(&out.into_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, BaseError> {
        let mut from = Reader::new(unseal(bytes)?);
        let applied = from.u8()? != 0;
        let position = from.position()?;
        Ok(Self {
            applied: applied.then(|| entry_id(position)),
            membership: serde_json::from_slice(from.bytes()?)?,
            revision: from.u64()?,
            sessions: from.sessions()?,
            sum: Sum {
                count: from.u64()?,
                hash: from.u64()?,
            },
        })
    }
}

fn read(tree: &sled::Tree) -> Result<Image, BaseError> {
    let meta = match tree.get(META)? {
        Some(bytes) => Meta::decode(&bytes)?,
        None => Meta::default(),
    };
    let mut objects = Objects::default();
    let mut whole = Vec::new();
    let mut rows = tree.scan_prefix([OBJECT]).peekable();
    while let Some(row) = rows.next() {
        let (key, chunk) = row?;
        whole.extend_from_slice(&chunk);
        // The rows of one object differ in the number of the chunk alone, and stand in order.
        let object = key.len().saturating_sub(4);
        let more =
            matches!(rows.peek(), Some(Ok((next, _))) if next.get(..object) == key.get(..object));
        if !more {
            objects.insert(Reader::new(unseal(&whole)?).record()?);
            whole.clear();
        }
    }
    Ok((meta, objects))
}

/// Adds an object's rows to a batch; returns how many they are.
fn insert(batch: &mut sled::Batch, key: &str, record: &Record) -> u32 {
    let mut count = 0;
    for (chunk, bytes) in (0..).zip(encoded(record).chunks(CHUNK)) {
        batch.insert(row(key, chunk), bytes);
        count = chunk + 1;
    }
    count
}

fn chunks_of(record: &Record) -> u32 {
    // More than what is encoded: the common case need not be encoded to be measured.
    if record.weight() + 64 <= CHUNK {
        return 1;
    }
    u32::try_from(encoded(record).len().div_ceil(CHUNK)).unwrap_or(u32::MAX)
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Writer::with_capacity(record.weight() + 64);
    out.record(record);
    seal(&out.into_bytes())
}

/// The key of a row. The length of the object's key comes first, so that no key's rows stand
/// among another's.
fn row(key: &str, chunk: u32) -> Vec<u8> {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut row = Vec::with_capacity(key.len() + 9);
    row.push(OBJECT);
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(key.as_bytes());
    row.extend_from_slice(&chunk.to_be_bytes());
    row
}

/// Puts version, key id and checksum ahead.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(bytes.len() + 9);
    out.u8(VERSION);
    out.u32(0); // Key id.
    out.u32(crc32fast::hash(bytes));
    out.raw(bytes);
    out.into_bytes()
}

fn unseal(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let mut from = Reader::new(bytes);
    let (version, key, checksum) = (from.u8()?, from.u32()?, from.u32()?);
    let body = from.rest();
    let sound = version == VERSION && key == 0 && checksum == crc32fast::hash(body);
    sound.then_some(body).ok_or(Malformed)
}

fn fingerprint(record: &Record) -> u64 {
    // FNV-1a over key and revision: not against malice, which could rewrite the sum as well.
    let revision = record.revision().to_le_bytes();
    let bytes = record.key().as_bytes().iter().chain(&revision);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn corrupt(path: &Path, what: String) -> DataError {
    DataError::Corrupt {
        path: path.to_owned(),
        offset: 0,
        what,
    }
}
