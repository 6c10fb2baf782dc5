//! One HTTP guest: its listener, its bounds, and its end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use coracle_runtime::{ContainerId, GuestNetwork, Protocol, Resources};
use parking_lot::Mutex;
use rustix::net::SocketFlags;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cores::Cores;
use super::handler::Handler;
use super::request;
use crate::guest::cpu::{Meter, Ticker};
use crate::guest::limits::Memory;
use crate::guest::log::{Log, LogStream, Stream};
use crate::guest::sockets::Listening;
use crate::guest::state::Environment;
use crate::guest::volumes;
use crate::protocol::{GuestSpec, Use};
use crate::readiness;
use crate::runner::describe;
use crate::serve::{Announcer, Hub};

/// Requests of a Pod that have an instance at a time.
const INSTANCES: usize = 128;
/// Requests of a Pod that wait for an instance; more are told to come back.
const QUEUE: u64 = 1024;
/// Instances of a Pod that begin at a time on a core. Most handlers end within their first poll,
/// so this is what keeps a flood from filling a core's run queue before its neighbours.
const BEGINNING: usize = 2;
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
    pub environment: Environment,
    pub meter: Arc<Meter>,
    pub ticker: Ticker,
    pub log: Arc<Log>,
    /// Instances that may live.
    pub instances: Semaphore,
    /// Instances that may begin, by core.
    pub beginning: Box<[Semaphore]>,
    /// Requests that were accepted and not answered.
    pub requests: AtomicU64,
    /// Requests that ended in a trap.
    pub traps: AtomicU64,
    announcer: Arc<Announcer>,
    address: SocketAddr,
    bound: Mutex<Option<(SocketAddr, SocketAddr, bool)>>,
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
        let preopens = volumes::prepare(&spec.mounts, scratch).map_err(|e| e.to_string())?;
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
            handler,
            environment: Environment {
                argv: spec.argv,
                env: spec.env,
                working_dir: spec.working_dir,
                preopens,
                stdout: LogStream::new(log.clone(), Stream::Stdout),
                stderr: LogStream::new(log.clone(), Stream::Stderr),
                network,
                memory,
                listening: announcer.clone(),
                may_block: false,
            },
            meter: Arc::new(Meter::new(spec.resources.cpu_limit_millis)),
            ticker: ticker.clone(),
            log,
            instances: Semaphore::new(INSTANCES),
            beginning: (0..cores).map(|_| Semaphore::new(BEGINNING)).collect(),
            requests: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            announcer,
            address: SocketAddr::new(ip, spec.port),
            bound: Mutex::new(None),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            connections: TaskTracker::new(),
            grace: watch::Sender::new(None),
        })
    }

    /// Makes one instance and drops it: what fails at the first request fails now.
    pub(super) async fn trial(&self) -> Result<(), String> {
        let instance = async {
            let mut store = self.environment.component_store(&self.handler.engine)?;
            self.handler.pre.instantiate_async(&mut store).await?;
            Ok(())
        };
        let metered = crate::guest::cpu::Metered::new(
            Box::pin(instance),
            self.meter.clone(),
            self.ticker.clone(),
        );
        match tokio::time::timeout(TRIAL, metered).await {
            Ok(result) => result.map_err(|error| describe(&error)),
            Err(_) => Err(format!(
                "the guest could not be instantiated within {} seconds",
                TRIAL.as_secs()
            )),
        }
    }

    /// Binds the Pod's port and serves it.
    pub(super) fn listen(self: &Arc<Self>, cores: &Arc<Cores>) -> Result<(), String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("listening on {}: {error}", self.address);
        let network = &self.environment.network;
        let wanted = network
            .bind(Protocol::Tcp, self.address)
            .map_err(|error| failed(&error))?;
        let listener = TcpListener::bind(wanted).map_err(|error| failed(&error))?;
        listener
            .set_nonblocking(true)
            .map_err(|error| failed(&error))?;
        let actual = listener.local_addr().map_err(|error| failed(&error))?;
        let (view, published) = network.bound(Protocol::Tcp, self.address, actual);
        network.listening(Protocol::Tcp, view, Some(actual));
        if published {
            self.announcer.bound(Protocol::Tcp, view, actual);
        }
        *self.bound.lock() = Some((view, actual, published));
        let core = cores.next().clone();
        let pod = self.clone();
        let cores = cores.clone();
        core.handle.spawn(async move {
            if let Err(error) = accept(&pod, OwnedFd::from(listener), &cores).await {
                eprintln!("accepting for {}: {error}", pod.address);
            }
        });
        Ok(())
    }

    /// Takes back the listener: nobody finds the Pod any more.
    fn withdraw(&self) {
        if let Some((view, actual, published)) = self.bound.lock().take() {
            self.environment
                .network
                .listening(Protocol::Tcp, view, None);
            if published {
                self.announcer.unbound(Protocol::Tcp, view, actual);
            }
        }
    }

    /// Stops accepting, lets what is under way end within the grace period, and cuts the rest.
    /// A later call may shorten the grace period.
    pub(super) async fn stop(&self, grace: Duration) -> Stopped {
        let until = tokio::time::Instant::now() + grace;
        self.grace.send_if_modified(|current| {
            let sooner = current.is_none_or(|current| until < current);
            if sooner {
                *current = Some(until);
            }
            sooner
        });
        self.withdraw();
        self.closing.cancel();
        self.connections.close();
        let mut grace = self.grace.subscribe();
        let stopped = loop {
            let until = (*grace.borrow_and_update()).unwrap_or(until);
            tokio::select! {
                () = self.connections.wait() => break Stopped::Finished,
                () = tokio::time::sleep_until(until) => {
                    break Stopped::Cut(self.requests.load(Ordering::Relaxed));
                }
                _ = grace.changed() => {}
            }
        };
        self.ended.cancel();
        self.connections.wait().await;
        self.environment.stdout.flush_partial();
        self.environment.stderr.flush_partial();
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
    }

    pub(super) fn stats(&self) -> Use {
        Use {
            container: self.container.clone(),
            cpu: self.meter.used(),
            memory_bytes: self.environment.memory.used(),
        }
    }

    /// Whether one more request may wait.
    pub(super) fn queue_is_full(&self) -> bool {
        self.requests.load(Ordering::Relaxed) >= INSTANCES as u64 + QUEUE
    }
}

/// Accepts connections and deals them out to the cores.
async fn accept(pod: &Arc<HttpPod>, listener: OwnedFd, cores: &Arc<Cores>) -> io::Result<()> {
    let listener = readiness::readable(listener)?;
    loop {
        let mut ready = tokio::select! {
            ready = listener.readable() => ready?,
            () = pod.closing.cancelled() => return Ok(()),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = ready.try_io(|listener| {
            rustix::net::acceptfrom_with(listener.get_ref().as_fd(), flags).map_err(io::Error::from)
        });
        let (stream, peer) = match accepted {
            Err(_would_block) => continue,
            Ok(Ok((stream, peer))) => (stream, peer),
            Ok(Err(error)) => {
                // The client is gone again, or files have run out: the next one may fare better.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let allowed = peer.is_some_and(|peer| {
            let network = &pod.environment.network;
            network.peer(Protocol::Tcp, peer).is_ok()
        });
        if !allowed {
            continue;
        }
        let core = cores.next().clone();
        let handle = core.handle.clone();
        let stream = std::net::TcpStream::from(stream);
        let connection = request::connection(pod.clone(), core, stream);
        handle.spawn(pod.connections.track_future(connection));
    }
}
