//! Opening a store: its options, its directory, and what was in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::error::{InitializeError, RaftError};
use openraft::{BasicNode, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::RaftStore;
use super::base::{Base, Image};
use super::checkpoint::Checkpoint;
use super::log::LogStore;
use super::machine::{Machine, Memberships, Shared};
use super::network::{Network, NoTransport, Peers, Transport};
use super::proposals::{Batcher, Proposals, Waiters};
use super::reads::{Checker, Reads};
use super::reserve::Reserve;
use super::types::position;
use crate::replica::Replica;
use crate::state::{Limits, State};
use crate::wal::{DataError, Disk, Fatal, OsDisk, Wal};

/// How long a single voter may take to lead itself: it waits for nobody.
const ALONE: Duration = Duration::from_secs(30);

/// Bytes of one log entry, at most.
const BATCH: usize = 4 << 20;

/// Raft's clock.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// A follower that hears nothing for a random time between this …
    pub election_min: Duration,
    /// … and this asks to lead.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        // A slow fsync stalls heartbeats: openraft's 150 ms would depose a leader for one.
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
        }
    }
}

/// How to open a [`RaftStore`].
pub struct RaftConfig {
    /// The data directory; made if it is missing.
    pub dir: PathBuf,
    /// This member's id, the same at every start.
    pub node_id: u64,
    /// The members of a new cluster with their addresses, this one among them; all must be
    /// given the same. Not read where the directory holds a cluster already.
    pub members: BTreeMap<u64, String>,
    /// The way to the other members.
    pub transport: Arc<dyn Transport>,
    /// Raft's clock.
    pub timing: Timing,
    /// Bytes of a segment of the log. Two more than the one in use are kept ready.
    pub segment_bytes: u64,
    /// Bytes that are set aside for when the disk is full, beside the log's.
    pub reserve_bytes: u64,
    /// History to retain: bytes that are kept whatever their age, …
    pub history_kept_bytes: usize,
    /// … and bytes that it never exceeds for long; between the two it is kept for five minutes.
    pub history_most_bytes: usize,
    /// The disk of the log; none is that of the operating system.
    pub disk: Option<Arc<dyn Disk>>,
    /// Is told when a write or a sync failed. It must not return: what the disk holds is unknown.
    pub fatal: Fatal,
}

impl RaftConfig {
    /// A cluster of one.
    #[must_use]
    pub fn single(dir: impl Into<PathBuf>, node_id: u64) -> Self {
        let limits = Limits::default();
        Self {
            dir: dir.into(),
            node_id,
            members: BTreeMap::from([(node_id, String::new())]),
            transport: Arc::new(NoTransport),
            timing: Timing::default(),
            segment_bytes: 16 << 20,
            reserve_bytes: 32 << 20,
            history_kept_bytes: limits.kept_bytes,
            history_most_bytes: limits.most_bytes,
            disk: None,
            fatal: Arc::new(|what| {
                tracing::error!("{what}; ending, because what the disk holds is unknown");
                eprintln!("coracle: {what}; ending, because what the disk holds is unknown");
                std::process::abort();
            }),
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another process; stop it, or use another directory",
        path = path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be used.
    #[error("the data directory {path}: {source}", path = path.display())]
    Directory {
        /// The directory, or the file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in it cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Raft did not start.
    #[error("raft did not start: {0}")]
    Raft(String),
}

impl RaftStore {
    /// Opens the store, and makes it where the directory is empty. A cluster of one is ready
    /// when this returns; another looks for its leader meanwhile.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing that was acknowledged is ever left out instead.
    pub async fn open(config: RaftConfig) -> Result<Arc<Self>, OpenError> {
        let (opened, config) = tokio::task::spawn_blocking(move || {
            let opened = read(&config)?;
            Ok::<_, OpenError>((opened, config))
        })
        .await
        .map_err(|error| OpenError::Raft(error.to_string()))??;
        let store = start(opened, &config).await?;
        let voters = store.raft.with_raft_state(|state| {
            state
                .membership_state
                .effective()
                .membership()
                .voter_ids()
                .collect::<Vec<_>>()
        });
        let voters = voters
            .await
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        if voters == [config.node_id] {
            store.lead_alone().await?;
        }
        Ok(store)
    }

    /// A single voter need not wait for anybody's election timeout.
    async fn lead_alone(&self) -> Result<(), OpenError> {
        let failed = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
        self.raft
            .trigger()
            .elect()
            .await
            .map_err(|error| failed(&error))?;
        let node = self.shared.node;
        let leads = self
            .raft
            .wait(Some(ALONE))
            .current_leader(node, "alone")
            .await;
        leads.map_err(|error| failed(&error))?;
        self.raft
            .ensure_linearizable()
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// What was read from the directory.
struct Opened {
    lock: fs::File,
    wal: Wal,
    log: crate::wal::Contents,
    base: Base,
    state: State,
    meta: super::base::Meta,
    reserve: Reserve,
}

fn read(config: &RaftConfig) -> Result<Opened, OpenError> {
    let directory = |path: PathBuf| move |source| OpenError::Directory { path, source };
    fs::create_dir_all(&config.dir).map_err(directory(config.dir.clone()))?;
    let lock = config.dir.join("lock");
    let lock = fs::File::create(&lock).map_err(directory(lock))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(OpenError::InUse {
            path: config.dir.clone(),
        });
    }
    let (logs, applied) = (config.dir.join("wal"), config.dir.join("applied"));
    // sled first: a log that is made anew beside an applied state would be an empty store.
    let had_state = applied.join("db").exists();
    let disk: Arc<dyn Disk> = match &config.disk {
        Some(disk) => disk.clone(),
        None => Arc::new(OsDisk::new(&logs).map_err(directory(logs.clone()))?),
    };
    if had_state && disk.list().map_err(directory(logs.clone()))?.is_empty() {
        let what = "the log is missing, but there is an applied state".to_owned();
        return Err(DataError::Corrupt {
            path: logs,
            offset: 0,
            what,
        }
        .into());
    }
    let (node, bytes) = (config.node_id, config.segment_bytes);
    let (wal, log) = Wal::open(disk, node, bytes, random(), config.fatal.clone())?;
    let (base, (meta, objects)) = open_base(&applied)?;
    let behind = log.purged.is_some_and(|purged| {
        meta.applied
            .is_none_or(|applied| position(applied).index < purged.index)
    });
    if behind {
        let at = meta
            .applied
            .map_or_else(|| "nothing".to_owned(), |id| id.to_string());
        let what = format!("the log was purged past it: it stands at {at}");
        return Err(DataError::Corrupt {
            path: applied,
            offset: 0,
            what,
        }
        .into());
    }
    let state = State::restore(
        meta.revision,
        objects,
        meta.sessions.clone(),
        limits(config),
    );
    let reserve = Reserve::open(&config.dir.join("reserve"), config.reserve_bytes);
    Ok(Opened {
        lock,
        wal,
        log,
        base,
        state,
        meta,
        reserve,
    })
}

/// Opens the applied state and reads it. sled panics over some kinds of damage.
fn open_base(path: &Path) -> Result<(Base, Image), DataError> {
    let opened = std::panic::catch_unwind(|| Base::open(path));
    opened.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or(panic.downcast_ref::<&str>().copied());
        Err(DataError::Corrupt {
            path: path.to_owned(),
            offset: 0,
            what: format!("sled cannot read it: {}", what.unwrap_or("it panicked")),
        })
    })
}

async fn start(opened: Opened, config: &RaftConfig) -> Result<Arc<RaftStore>, OpenError> {
    let failed = |error: &dyn std::fmt::Display| OpenError::Raft(error.to_string());
    let Opened {
        lock,
        wal,
        log,
        base,
        state,
        meta,
        reserve,
    } = opened;
    let wal = Arc::new(wal);
    let known = log.entries.back().map(|(last, _)| last.index);
    let log = LogStore::new(wal.clone(), log).map_err(|error| failed(&error))?;
    let shared = Arc::new(Shared {
        node: config.node_id,
        replica: Arc::new(Replica::new(state)),
        waiters: Arc::new(Waiters::new(random())),
        base: Arc::new(base),
        limits: limits(config),
        applied: watch::Sender::new(meta.applied),
        heavy: Notify::new(),
        alone: AtomicBool::new(false),
        known,
        memberships: Mutex::new(Memberships::new(meta.membership.clone())),
        reserve,
    });
    let timing = config.timing;
    let network = Network {
        transport: config.transport.clone(),
        backoff: timing.heartbeat * 2,
    };
    let running = Arc::new(AtomicBool::new(false));
    let machine = Machine {
        shared: shared.clone(),
        running: running.clone(),
    };
    let raft_config = Arc::new(raft_config(&timing)?);
    let raft = Raft::new(config.node_id, raft_config, network, log, machine).await;
    let raft = raft.map_err(|error| failed(&error))?;
    running.store(true, Ordering::Release);
    let members = config
        .members
        .iter()
        .map(|(id, address)| (*id, BasicNode::new(address)));
    // Asked first: openraft logs an error for a cluster that is one already.
    if !raft
        .is_initialized()
        .await
        .map_err(|error| failed(&error))?
    {
        match raft.initialize(members.collect::<BTreeMap<_, _>>()).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    let timeout = timing.election_min;
    let peers = Peers {
        transport: config.transport.clone(),
        timeout,
        shared: shared.clone(),
    };
    let peers = Arc::new(peers);
    let cancelled = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (proposals, queued) = Proposals::new(shared.clone(), wal.clone());
    let batcher = Batcher {
        shared: shared.clone(),
        raft: raft.clone(),
        peers: peers.clone(),
        queued,
        batch_bytes: BATCH.min(wal.room() / 2),
    };
    tasks.spawn(batcher.run(cancelled.clone()));
    let (reads, queued) = Reads::new(shared.clone());
    let checker = Checker {
        shared: shared.clone(),
        raft: raft.clone(),
        peers,
        queued,
    };
    tasks.spawn(checker.run(cancelled.clone()));
    let (wal_too, fatal) = (wal.clone(), config.fatal.clone());
    let checkpoint = Checkpoint {
        shared: shared.clone(),
        raft: raft.clone(),
        wal: wal_too,
        fatal,
    };
    tasks.spawn(checkpoint.run(cancelled.clone()));
    let tasks = Mutex::new(tasks);
    Ok(Arc::new(RaftStore {
        shared,
        raft,
        wal,
        proposals,
        reads,
        cancelled,
        tasks,
        _lock: lock,
    }))
}

fn limits(config: &RaftConfig) -> Limits {
    Limits {
        kept_bytes: config.history_kept_bytes,
        most_bytes: config.history_most_bytes,
        ..Limits::default()
    }
}

fn raft_config(timing: &Timing) -> Result<openraft::Config, OpenError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = openraft::Config {
        cluster_name: "coracle".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: 120_000,
        // The checkpoint says when; a snapshot is the base, and the log is purged up to it.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        ..openraft::Config::default()
    };
    config
        .validate()
        .map_err(|error| OpenError::Raft(error.to_string()))
}

/// Drawn by the standard library's hasher, which the system seeds.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
