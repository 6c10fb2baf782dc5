//! A guest process's end of the protocol, which the runner and the HTTP host share.
//!
//! The agent makes the listening socket and hands it over as standard input, so that it can
//! connect before the process has come up. A process outlives its agent; an ephemeral one ends
//! when nobody was connected for [`ABANDONED`].

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_runtime::{ContainerId, Protocol, Resources, SandboxId};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::disk;
use crate::guest::sockets::Listening;
use crate::launch::{self, Launch};
use crate::protocol::{
    Bound, Event, FromProcess, GuestSpec, Numbered, OLDEST, Request, Response, Use, VERSION,
    receive, send,
};

/// How long an ephemeral process waits for an agent.
const ABANDONED: Duration = Duration::from_secs(60);
/// Frames on their way to an agent; one that reads no faster is disconnected, and asks anew.
const OUTBOX: usize = 4096;
/// Requests in work per connection.
const REQUESTS: usize = 512;

/// What a process does for its agent.
#[async_trait]
pub(crate) trait Service: Send + Sync {
    /// Runs or serves a guest; returns when it runs.
    async fn serve(&self, spec: GuestSpec) -> Result<(), String>;
    /// Ends a guest; returns when it has ended.
    async fn stop(&self, container: &ContainerId, grace: Duration);
    fn update(&self, container: &ContainerId, resources: &Resources);
    fn stats(&self) -> Vec<Use>;
    fn guests(&self) -> Vec<ContainerId>;
    /// Ends the process, and writes down how its guests ended.
    fn abandon(&self);
}

/// Who a process is, for the agent that adopts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: i32,
    /// Clock ticks after boot at which it started: tells it from a later process of its number.
    pub started: u64,
}

impl Identity {
    /// The identity of a living process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may contain anything; field 22 counts from the process id.
        let started = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc stat"))?;
        Ok(Self { pid, started })
    }
}

/// Name of the file with a process's [`Identity`].
pub(crate) const IDENTITY: &str = "process.json";

/// How the agent started this process.
pub(crate) struct Start {
    pub folder: PathBuf,
    pub ephemeral: bool,
    pub listener: UnixListener,
}

impl Start {
    /// Takes the arguments of [`Launch`] and the socket that came as standard input: joins the
    /// network of the Pods, leaves the agent's session, so that the process survives it, and takes
    /// the guests' user. To be called before any thread is started.
    pub(crate) fn new(args: &[OsString]) -> Result<Self, String> {
        let launch = Launch::parse(args)?;
        if let Some(path) = &launch.network_namespace {
            launch::join_network_namespace(path).map_err(|error| {
                format!("joining the network namespace {}: {error}", path.display())
            })?;
        }
        let start = Self::prepare(launch.folder, launch.ephemeral)
            .map_err(|error| format!("starting the guest process: {error}"))?;
        if let Some(user) = launch.user {
            launch::become_user(user)
                .map_err(|error| format!("becoming user {}: {error}", user.uid))?;
        }
        Ok(start)
    }

    fn prepare(folder: PathBuf, ephemeral: bool) -> io::Result<Self> {
        // Already the leader of a session when started by hand.
        let _ = rustix::process::setsid();
        // What guests hold in memory is not for core files.
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Core, none)?;
        // A guest with all the sockets that it may have leaves room for an agent to connect.
        let files = getrlimit(Resource::Nofile);
        let all = Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        };
        setrlimit(Resource::Nofile, all)?;
        let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        listener.set_nonblocking(true)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let identity = Identity::of(std::process::id() as i32)?;
        disk::write_json(&folder.join(IDENTITY), &identity)?;
        Ok(Self {
            folder,
            ephemeral,
            listener,
        })
    }
}

/// Ends the process at once: its guests may spin or block for ever, on threads that nothing can
/// join. What must outlive it was written before.
#[expect(
    clippy::disallowed_methods,
    reason = "threads with guests cannot be joined"
)]
pub(crate) fn end_process() -> ! {
    std::process::exit(0)
}

/// The connections of a process, and what every new one must learn.
#[derive(Default)]
pub(crate) struct Hub {
    connections: Mutex<Vec<mpsc::Sender<FromProcess>>>,
    connected: AtomicUsize,
    changed: Notify,
    bound: Mutex<HashSet<Bound>>,
}

impl Hub {
    pub(crate) fn event(&self, event: &Event) {
        let mut connections = self.connections.lock();
        connections.retain(|outbox| outbox.try_send(FromProcess::Event(event.clone())).is_ok());
    }

    fn listeners(&self) -> Vec<Bound> {
        self.bound.lock().iter().cloned().collect()
    }
}

/// Tells the agent of the sockets of one sandbox.
pub(crate) struct Announcer {
    hub: Arc<Hub>,
    sandbox: SandboxId,
    ips: Vec<std::net::IpAddr>,
}

impl Announcer {
    pub(crate) fn new(hub: Arc<Hub>, spec: &GuestSpec) -> Self {
        Self {
            hub,
            sandbox: spec.sandbox.clone(),
            ips: spec.ips.clone(),
        }
    }

    /// Others know a wildcard listener by the Pod's address of that family. One on `localhost` is
    /// told as the guest sees it: the agent lets nobody but the Pod's own processes have it.
    fn entry(&self, protocol: Protocol, mut address: SocketAddr, actual: SocketAddr) -> Bound {
        if address.ip().is_unspecified() {
            let same = |ip: &&std::net::IpAddr| ip.is_ipv4() == address.is_ipv4();
            if let Some(ip) = self.ips.iter().find(same).or(self.ips.first()) {
                address.set_ip(*ip);
            }
        }
        Bound {
            sandbox: self.sandbox.clone(),
            protocol,
            address,
            actual,
        }
    }
}

impl Listening for Announcer {
    fn bound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr) {
        let bound = self.entry(protocol, address, actual);
        self.hub.bound.lock().insert(bound.clone());
        self.hub.event(&Event::Bound(bound));
    }

    fn unbound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr) {
        let bound = self.entry(protocol, address, actual);
        self.hub.bound.lock().remove(&bound);
        self.hub.event(&Event::Unbound(bound));
    }
}

/// Serves agents for as long as the process lives.
pub(crate) async fn run(start: Start, hub: Arc<Hub>, service: Arc<dyn Service>) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(start.listener)?;
    let tasks = TaskTracker::new();
    if start.ephemeral {
        tasks.spawn(await_abandonment(hub.clone(), service.clone()));
    }
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let hub = hub.clone();
                let service = service.clone();
                hub.connected.fetch_add(1, Ordering::SeqCst);
                hub.changed.notify_one();
                tasks.spawn(async move {
                    if let Err(error) = converse(stream, &hub, service).await {
                        tracing::debug!(%error, "an agent's connection ended");
                    }
                    hub.connected.fetch_sub(1, Ordering::SeqCst);
                    hub.changed.notify_one();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting an agent");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn await_abandonment(hub: Arc<Hub>, service: Arc<dyn Service>) {
    loop {
        let alone = hub.connected.load(Ordering::SeqCst) == 0;
        let change = hub.changed.notified();
        if !alone {
            change.await;
        } else if tokio::time::timeout(ABANDONED, change).await.is_err() {
            service.abandon();
        }
    }
}

async fn converse(stream: UnixStream, hub: &Arc<Hub>, service: Arc<dyn Service>) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let (outbox, mut frames) = mpsc::channel(OUTBOX);
    let Some(hello) = receive::<Numbered<Request>>(&mut reader).await? else {
        return Ok(());
    };
    let (response, agreed) = greet(&hello.body);
    let response = Numbered {
        id: hello.id,
        body: response,
    };
    send(&mut writer, &FromProcess::Response(response)).await?;
    if !agreed {
        return Ok(());
    }
    hub.connections.lock().push(outbox.clone());
    let tasks = TaskTracker::new();
    let write = async {
        while let Some(frame) = frames.recv().await {
            send(&mut writer, &frame).await?;
        }
        Ok(())
    };
    let room = Arc::new(Semaphore::new(REQUESTS));
    let read = async {
        while let Some(request) = receive::<Numbered<Request>>(&mut reader).await? {
            let permit = room.clone().acquire_owned().await;
            let (hub, service, outbox) = (hub.clone(), service.clone(), outbox.clone());
            // What was begun is finished even if the agent goes away meanwhile.
            tasks.spawn(async move {
                let _permit = permit;
                let body = answer(request.body, &hub, &*service).await;
                let response = Numbered {
                    id: request.id,
                    body,
                };
                // No agent is left to hear it.
                let _ = outbox.send(FromProcess::Response(response)).await;
            });
        }
        Ok(())
    };
    tokio::select! {
        result = read => result,
        result = write => result,
    }
}

fn greet(request: &Request) -> (Response, bool) {
    match request {
        Request::Hello { version, oldest } if *version >= OLDEST && *oldest <= VERSION => {
            let version = VERSION.min(*version);
            (Response::Hello { version }, true)
        }
        Request::Hello { version, oldest } => {
            let message = format!(
                "the agent speaks versions {oldest} to {version} of the guest protocol, this \
                 process {OLDEST} to {VERSION}"
            );
            (Response::Failed(message), false)
        }
        _ => (Response::Failed("say hello first".into()), false),
    }
}

async fn answer(request: Request, hub: &Hub, service: &dyn Service) -> Response {
    match request {
        Request::Hello { .. } => Response::Hello { version: VERSION },
        Request::Serve(spec) => match service.serve(*spec).await {
            Ok(()) => Response::Done,
            Err(message) => Response::Failed(message),
        },
        Request::Stop { container, grace } => {
            service.stop(&container, grace).await;
            Response::Done
        }
        Request::Update {
            container,
            resources,
        } => {
            service.update(&container, &resources);
            Response::Done
        }
        Request::Stats => Response::Stats(service.stats()),
        Request::Listeners => Response::Listeners(hub.listeners()),
        Request::Guests => Response::Guests(service.guests()),
        Request::Close => {
            if service.guests().is_empty() {
                end_process();
            }
            Response::Failed("guests are served".into())
        }
    }
}
