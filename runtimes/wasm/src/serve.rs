//! A guest process's end of the protocol, which the runner and the HTTP host share.
//!
//! The agent makes the listening socket and hands it over as standard input, so that it can
//! connect before the process has come up. A process outlives its agent; an ephemeral one ends
//! when nobody was connected for [`launch::PATIENCE`].

mod hub;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use coracle_runtime::frames::{Numbered, receive, send};
use coracle_runtime::identity::Identity;
use coracle_runtime::{ContainerId, Resources};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::descriptors::DescriptorReader;
use crate::guest::streams::GuestStreams;
use crate::launch::{self, Launch};
use crate::protocol::{Dispatch, FromProcess, GuestSpec, OLDEST, Request, Response, Use, VERSION};

pub(crate) use hub::{Agent, Announcer, Hub};

/// Frames on their way to an agent; one that reads no faster is disconnected, and asks anew.
const OUTBOX: usize = 4096;
/// Requests in work per connection.
const REQUESTS: usize = 512;

/// What a process does for its agent.
#[async_trait]
pub(crate) trait Service: Send + Sync {
    /// Runs or serves a guest; returns when it runs.
    async fn serve(&self, spec: GuestSpec) -> Result<(), String>;
    /// Runs a guest whose streams are a session's; returns when it runs.
    async fn exec(&self, _: GuestSpec, _: GuestStreams) -> Result<(), String> {
        Err("a further guest has a process of its own".into())
    }
    /// Ends a guest; returns when it has ended.
    async fn stop(&self, container: &ContainerId, grace: Duration);
    fn update(&self, container: &ContainerId, resources: &Resources);
    fn stats(&self) -> Vec<Use>;
    fn guests(&self) -> Vec<ContainerId>;
    /// Accepts connections to a port of the node for an agent, from `socket`.
    fn dispatch(&self, _: &Arc<Agent>, _: Dispatch, _: OwnedFd) -> Result<(), String> {
        Err("ports of the node are dispatched to HTTP guests alone".into())
    }
    /// The streams of a guest.
    fn streams(&self, container: &ContainerId) -> Option<GuestStreams>;
    /// Stops accepting for a port.
    fn withdraw(&self, _: &Agent, _: u16) {}
    /// An agent is gone, and with it what was done for it alone.
    fn disconnected(&self, _: &Agent) {}
    /// Ends the process, and writes down how its guests ended.
    fn abandon(&self);
}

/// How the agent started this process.
pub(crate) struct Start {
    pub folder: PathBuf,
    /// How long the process waits for an agent, if it does not live for ever.
    pub ephemeral: Option<Duration>,
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

    fn prepare(folder: PathBuf, ephemeral: Option<Duration>) -> io::Result<Self> {
        // Already the leader of a session when started by hand.
        let _ = rustix::process::setsid();
        // What guests hold in memory is not for core files.
        let none = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(Resource::Core, none)?;
        // A guest with all the sockets that it may have leaves room for an agent to connect; and a host
        // has a listener for each Pod and port, and a connection for each client.
        let files = getrlimit(Resource::Nofile);
        let all = Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        };
        setrlimit(Resource::Nofile, all)?;
        let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        listener.set_nonblocking(true)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Identity::record(&folder)?;
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

/// Serves agents for as long as the process lives.
pub(crate) async fn run(start: Start, hub: Arc<Hub>, service: Arc<dyn Service>) -> io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(start.listener)?;
    let tasks = TaskTracker::new();
    let telling = hub.clone();
    tasks.spawn(async move { telling.tell_listeners().await });
    if let Some(patience) = start.ephemeral {
        let (hub, service) = (hub.clone(), service.clone());
        tasks.spawn(async move {
            abandoned(&hub, patience).await;
            service.abandon();
        });
    }
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let hub = hub.clone();
                let service = service.clone();
                hub.came();
                tasks.spawn(async move {
                    if let Err(error) = converse(stream, &hub, service).await {
                        tracing::debug!(%error, "an agent's connection ended");
                    }
                    hub.went();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting an agent");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Resolves when no agent was connected for so long.
async fn abandoned(hub: &Hub, patience: Duration) {
    loop {
        let alone = hub.connected.load(Ordering::SeqCst) == 0;
        let change = hub.changed.notified();
        if !alone {
            change.await;
        } else if tokio::time::timeout(patience, change).await.is_err() {
            return;
        }
    }
}

async fn converse(stream: UnixStream, hub: &Arc<Hub>, service: Arc<dyn Service>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = DescriptorReader::new(reader);
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
    let agent = hub.connect(outbox.clone());
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
            let descriptors = reader.take();
            let request = match request.body {
                Request::Attach { container, wanted } => {
                    let body = match service.streams(&container) {
                        Some(streams) => streams.attach(wanted, descriptors),
                        None => Err("the guest does not run".into()),
                    };
                    let id = request.id;
                    let body = body.map_or_else(Response::Failed, |()| Response::Done);
                    let response = FromProcess::Response(Numbered { id, body });
                    // The writing half tells of the end.
                    let _ = outbox.send(response).await;
                    continue;
                }
                Request::Exec { spec, wanted } => {
                    let (service, outbox) = (service.clone(), outbox.clone());
                    tasks.spawn(async move {
                        let body = match GuestStreams::piped(wanted, descriptors) {
                            Ok(streams) => service.exec(*spec, streams).await,
                            Err(message) => Err(message),
                        };
                        let id = request.id;
                        let body = body.map_or_else(Response::Failed, |()| Response::Done);
                        // No agent is left to hear it.
                        let _ = outbox
                            .send(FromProcess::Response(Numbered { id, body }))
                            .await;
                    });
                    continue;
                }
                body => Numbered {
                    id: request.id,
                    body,
                },
            };
            // Ports are this connection's: nothing that is done for them may outlive it.
            let descriptor = descriptors.into_iter().next();
            if let Some(body) = ports(&request.body, descriptor, &agent, &*service) {
                let id = request.id;
                let response = FromProcess::Response(Numbered { id, body });
                // The writing half tells of the end.
                let _ = outbox.send(response).await;
                continue;
            }
            // A stop lasts as long as its grace period, and there are no more than guests: they leave
            // the room to others, and nobody's time is over before it has begun.
            let permit = match &request.body {
                Request::Stop { .. } => None,
                _ => room.clone().acquire_owned().await.ok(),
            };
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
    let result = tokio::select! {
        result = read => result,
        result = write => result,
        () = agent.cut.cancelled() => Err(io::Error::other("the agent does not listen")),
    };
    hub.disconnect(&agent);
    service.disconnected(&agent);
    result
}

/// Answers what is asked about ports of the node.
fn ports(
    request: &Request,
    descriptor: Option<OwnedFd>,
    agent: &Arc<Agent>,
    service: &dyn Service,
) -> Option<Response> {
    match request {
        Request::Dispatch(dispatch) => {
            let dispatched = match descriptor {
                Some(socket) => service.dispatch(agent, dispatch.clone(), socket),
                None => Err("a port is dispatched with its socket".into()),
            };
            Some(match dispatched {
                Ok(()) => Response::Done,
                Err(message) => Response::Failed(message),
            })
        }
        Request::Withdraw { port } => {
            service.withdraw(agent, *port);
            Some(Response::Done)
        }
        _ => None,
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
        Request::Dispatch(_)
        | Request::Withdraw { .. }
        | Request::Attach { .. }
        | Request::Exec { .. } => Response::Failed("this is answered in order".into()),
        Request::Close => {
            if service.guests().is_empty() {
                end_process();
            }
            Response::Failed("guests are served".into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// Its guests do not end.
    struct Busy;

    #[async_trait]
    impl Service for Busy {
        async fn serve(&self, _: GuestSpec) -> Result<(), String> {
            Ok(())
        }
        async fn stop(&self, _: &ContainerId, _: Duration) {
            std::future::pending().await
        }
        fn update(&self, _: &ContainerId, _: &Resources) {}
        fn stats(&self) -> Vec<Use> {
            Vec::new()
        }
        fn guests(&self) -> Vec<ContainerId> {
            Vec::new()
        }
        fn streams(&self, _: &ContainerId) -> Option<GuestStreams> {
            None
        }
        fn abandon(&self) {}
    }

    #[tokio::test]
    async fn stops_that_last_hold_up_nothing_else() {
        let (agent, process) = UnixStream::pair().unwrap();
        let served = tokio::spawn(async move {
            converse(process, &Arc::new(Hub::default()), Arc::new(Busy)).await
        });
        let (mut reader, mut writer) = agent.into_split();
        let hello = Request::Hello {
            version: VERSION,
            oldest: OLDEST,
        };
        let stop = |number: usize| Request::Stop {
            container: ContainerId(number.to_string()),
            grace: Duration::from_secs(3600),
        };
        let asked = std::iter::once(hello).chain((0..REQUESTS + 1).map(stop));
        let asked = asked.chain([Request::Stats]);
        for (id, body) in asked.enumerate() {
            let id = id as u64;
            send(&mut writer, &Numbered { id, body }).await.unwrap();
        }
        let answers = async {
            for _ in 0..2 {
                let answer = receive::<FromProcess>(&mut reader).await.unwrap().unwrap();
                if let FromProcess::Response(Numbered {
                    body: Response::Stats(_),
                    ..
                }) = answer
                {
                    return true;
                }
            }
            false
        };
        let answered = tokio::time::timeout(Duration::from_secs(30), answers).await;
        assert!(answered.unwrap());
        served.abort();
    }

    #[tokio::test]
    async fn an_agent_that_comes_back_is_waited_for_anew() {
        const PATIENCE: Duration = Duration::from_millis(300);
        let hub = Arc::new(Hub::default());
        let waiting = hub.clone();
        hub.came();
        let mut wait = tokio::spawn(async move { abandoned(&waiting, PATIENCE).await });
        hub.came();
        hub.went();
        // One is left: its time has not begun.
        assert!(tokio::time::timeout(PATIENCE * 2, &mut wait).await.is_err());
        let gone = Instant::now();
        hub.went();
        wait.await.unwrap();
        assert!(gone.elapsed() >= PATIENCE);
    }
}
