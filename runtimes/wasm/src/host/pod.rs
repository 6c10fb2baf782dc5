//! One HTTP guest: its listener, its bounds, and its end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use coracle_runtime::{
    Attachment, ContainerId, GuestNetwork, Protocol, Resources, Stdio, end_of_grace,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acceptor::{Acceptor, Ticket};
use super::cores::Core;
use super::handler::Handler;
use super::pool::{Few, SHARE};
use super::request;
use super::room::Room;
use super::turns::Turns;
use crate::guest::cpu::{Meter, Ticker};
use crate::guest::limits::Memory;
use crate::guest::quota::{MAX_FILES, MAX_SOCKETS, Quota};
use crate::guest::sockets::Reach;
use crate::guest::state::Environment;
use crate::guest::streams::GuestStreams;
use crate::guest::volumes::{self, Volumes};
use crate::protocol::{GuestSpec, Use};
use crate::runner::describe;
use crate::serve::{Announcer, Hub};
use coracle_runtime::log::Log;

/// Requests of a Pod that wait for an instance; more are told to come back.
const QUEUE: u64 = 1024;
/// How long a trial instantiation may take.
const TRIAL: Duration = Duration::from_secs(30);

/// How a Pod stopped.
pub(super) enum Stopped {
    /// All requests were answered.
    Finished,
    /// So many were not.
    Cut(u64),
}

/// A guest that is served.
pub(super) struct HttpPod {
    pub container: ContainerId,
    pub exit_file: PathBuf,
    pub started_at: SystemTime,
    pub handler: Arc<Handler>,
    pub environment: Arc<Environment>,
    pub meter: Arc<Meter>,
    pub ticker: Ticker,
    pub log: Arc<Log>,
    /// Units of the pool for instances that may live.
    pub instances: Semaphore,
    /// Those that it has while others have more than enough.
    pub few: Few,
    /// Memory for them.
    pub room: Room,
    /// Its turns to begin requests, by core.
    pub turns: Box<[Turns]>,
    /// Requests that were accepted and not answered.
    pub requests: AtomicU64,
    /// Requests that ended in a trap.
    pub traps: AtomicU64,
    announcer: Arc<Announcer>,
    /// Where the cluster knows the Pod to be served.
    pub address: SocketAddr,
    /// What is bound for it.
    listen: SocketAddr,
    bound: Mutex<Option<Endpoint>>,
    life: OnceLock<Box<Life>>,
}

/// The listener of a Pod.
struct Endpoint {
    view: SocketAddr,
    actual: SocketAddr,
    published: bool,
    ticket: Ticket,
}

/// What a Pod needs from its first connection on, or when it is stopped.
pub(super) struct Life {
    /// Cancelled when no connection is accepted any more, and idle ones close.
    pub closing: CancellationToken,
    /// Cancelled when the grace period is over.
    pub ended: CancellationToken,
    pub connections: TaskTracker,
    grace: watch::Sender<Option<tokio::time::Instant>>,
}

impl HttpPod {
    pub(super) fn new(
        spec: GuestSpec,
        handler: Arc<Handler>,
        network: Arc<dyn GuestNetwork>,
        hub: &Arc<Hub>,
        ticker: &Ticker,
        cores: usize,
        scratch: &Path,
    ) -> Result<Self, String> {
        let announcer = Arc::new(Announcer::new(hub.clone(), &spec));
        let mut preopens = volumes::prepare(&spec.mounts, scratch).map_err(|e| e.to_string())?;
        if !handler.opens_folders {
            preopens.clear();
        }
        let log = Arc::new(Log::new(spec.log_file, spec.log_limits));
        log.create().map_err(|error| format!("the log: {error}"))?;
        // Thousands of Pods that log nothing do not hold a file open each.
        log.close();
        let memory = Arc::new(Memory::new(spec.resources.memory_limit_bytes));
        let ip = spec.ips.first().copied();
        let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Self {
            container: spec.container,
            exit_file: spec.exit_file,
            started_at: spec.started_at,
            few: Few::new(handler.cost),
            handler,
            environment: Arc::new(Environment {
                argv: spec.argv.into(),
                env: spec.env.into(),
                working_dir: spec.working_dir,
                volumes: Volumes::new(preopens),
                // Requests bring what an HTTP guest reads.
                streams: GuestStreams::new(&log, Stdio::default()),
                memory,
                reach: Arc::new(Reach {
                    network,
                    listening: announcer.clone(),
                    quota: Quota::new(MAX_SOCKETS),
                }),
                files: Some(Quota::new(MAX_FILES)),
                may_block: false,
            }),
            meter: Arc::new(Meter::new(spec.resources.cpu_limit_millis)),
            ticker: ticker.clone(),
            log,
            instances: Semaphore::new(SHARE as usize),
            room: Room::new(spec.resources.memory_limit_bytes),
            turns: (0..cores).map(|_| Turns::new()).collect(),
            requests: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            announcer,
            address: SocketAddr::new(ip, spec.port),
            listen: match spec.attachment {
                Attachment::Address => SocketAddr::new(ip, spec.port),
                // The containers of its Pod find it on localhost too.
                Attachment::Netns => SocketAddr::from((Ipv4Addr::UNSPECIFIED, spec.port)),
            },
            bound: Mutex::new(None),
            life: OnceLock::new(),
        })
    }

    /// Makes one instance and drops it: what fails at the first request fails now.
    pub(super) async fn trial(self: &Arc<Self>, core: &Arc<Core>) -> Result<(), String> {
        let instance = request::trial(self.clone(), core.clone());
        let trial = request::joined(core.handle.spawn(instance));
        match tokio::time::timeout(TRIAL, trial).await {
            Ok(result) => result.map_err(|error| describe(&error)),
            Err(_) => Err(format!(
                "the guest could not be instantiated within {} seconds",
                TRIAL.as_secs()
            )),
        }
    }

    /// What the Pod has from its first connection on.
    pub(super) fn life(&self) -> &Life {
        self.life.get_or_init(|| {
            Box::new(Life {
                closing: CancellationToken::new(),
                ended: CancellationToken::new(),
                connections: TaskTracker::new(),
                grace: watch::Sender::new(None),
            })
        })
    }

    /// Binds the Pod's port and serves it.
    pub(super) fn listen(self: &Arc<Self>, acceptor: &Acceptor) -> Result<(), String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("listening on {}: {error}", self.address);
        let network = &self.environment.reach.network;
        let wanted = network
            .bind(Protocol::Tcp, self.listen)
            .map_err(|error| failed(&error))?;
        let socket = TcpListener::bind(wanted).map_err(|error| failed(&error))?;
        let actual = socket.local_addr().map_err(|error| failed(&error))?;
        let ticket = acceptor
            .add(socket, self.clone())
            .map_err(|error| failed(&error))?;
        let (view, published) = network.bound(Protocol::Tcp, self.address, actual);
        network.listening(Protocol::Tcp, view, Some(actual));
        if published {
            self.announcer.serves(view, actual, true);
        }
        *self.bound.lock() = Some(Endpoint {
            view,
            actual,
            published,
            ticket,
        });
        Ok(())
    }

    /// Takes back the listener: nobody finds the Pod any more.
    fn withdraw(&self, acceptor: &Acceptor) {
        if let Some(bound) = self.bound.lock().take() {
            acceptor.remove(bound.ticket);
            let network = &self.environment.reach.network;
            network.listening(Protocol::Tcp, bound.view, None);
            if bound.published {
                self.announcer.serves(bound.view, bound.actual, false);
            }
        }
    }

    /// Stops accepting, lets what is under way end within the grace period, and cuts the rest.
    /// A later call may shorten the grace period.
    pub(super) async fn stop(&self, acceptor: &Acceptor, grace: Duration) -> Stopped {
        let life = self.life();
        let until = end_of_grace(grace);
        life.grace.send_if_modified(|current| {
            let sooner = current.is_none_or(|current| until < current);
            if sooner {
                *current = Some(until);
            }
            sooner
        });
        self.withdraw(acceptor);
        life.closing.cancel();
        life.connections.close();
        let mut grace = life.grace.subscribe();
        let stopped = loop {
            let until = (*grace.borrow_and_update()).unwrap_or(until);
            tokio::select! {
                () = life.connections.wait() => break Stopped::Finished,
                () = tokio::time::sleep_until(until) => {
                    break Stopped::Cut(self.requests.load(Ordering::Relaxed));
                }
                _ = grace.changed() => {}
            }
        };
        life.ended.cancel();
        life.connections.wait().await;
        self.environment.streams.end();
        match stopped {
            Stopped::Cut(0) => Stopped::Finished,
            stopped => stopped,
        }
    }

    pub(super) fn update(&self, resources: &Resources) {
        self.meter.set_limit(resources.cpu_limit_millis);
        self.environment
            .memory
            .set_limit(resources.memory_limit_bytes);
        self.room.set_limit(resources.memory_limit_bytes);
    }

    pub(super) fn stats(&self) -> Use {
        Use {
            container: self.container.clone(),
            cpu: self.meter.used(),
            memory_bytes: self.environment.memory.used(),
            traps: self.traps.load(Ordering::Relaxed),
        }
    }

    /// Whether one more request may wait.
    pub(super) fn queue_is_full(&self) -> bool {
        self.requests.load(Ordering::Relaxed) >= u64::from(SHARE) + QUEUE
    }
}
