//! `wasm-http-host`: the process that serves all HTTP guests of a namespace.
//!
//! Each request gets a fresh instance of its component, so an idle guest is a listener and a few
//! records. The main thread talks to the agent; requests run on one `current_thread` runtime per
//! core ([`cores`]). A guest that uses more CPU than its slice goes on on a runtime of idle
//! priority, so that no neighbour is felt. A trap is a 500 for one request and nothing more.

mod acceptor;
mod body;
mod cores;
mod handler;
mod pod;
mod pool;
mod ports;
mod request;
mod room;
mod turns;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use coracle_runtime::{ContainerId, Exit, Resources};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};

use crate::confine;
use crate::guest::cpu::Ticker;
use crate::guest::engine;
use crate::guest::streams::GuestStreams;
use crate::launch::SCRATCH;
use crate::process::NetworkFactory;
use crate::protocol::{Dispatch, Event, GuestSpec, Kind, Use};
use crate::serve::{self, Agent, Hub, Service, Start};
use coracle_runtime::disk;

use acceptor::Acceptor;
use cores::Cores;
use handler::Handlers;
use pod::{HttpPod, Stopped};
use ports::Ports;

/// Runs the process.
pub(crate) fn main(args: &[OsString], network: NetworkFactory) -> Result<(), String> {
    let start = Start::new(args)?;
    confine::guests().map_err(|error| format!("confining the guest process: {error}"))?;
    let engine = engine::pooling().map_err(|error| format!("{error:#}"))?;
    let ticker = Ticker::start(&engine).map_err(|error| error.to_string())?;
    let cores = Cores::start().map_err(|error| error.to_string())?;
    let handlers = Handlers::new(engine).map_err(|error| format!("{error:#}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let files = getrlimit(Resource::Nofile).current;
    let acceptor = Acceptor::start(cores.clone(), files).map_err(|error| error.to_string())?;
    let hub = Arc::new(Hub::default());
    let host = Arc::new(Host {
        network,
        hub: hub.clone(),
        folder: start.folder.clone(),
        handlers,
        ticker,
        cores,
        ports: Ports::new(acceptor.clone()),
        acceptor,
        pods: Mutex::new(HashMap::new()),
    });
    runtime
        .block_on(serve::run(start, hub, host))
        .map_err(|error| error.to_string())
}

struct Host {
    network: NetworkFactory,
    hub: Arc<Hub>,
    folder: PathBuf,
    handlers: Handlers,
    ticker: Ticker,
    cores: Arc<Cores>,
    acceptor: Arc<Acceptor>,
    ports: Ports,
    pods: Mutex<HashMap<ContainerId, Arc<HttpPod>>>,
}

impl Host {
    fn pod(&self, container: &ContainerId) -> Option<Arc<HttpPod>> {
        self.pods.lock().get(container).cloned()
    }

    async fn take(&self, spec: GuestSpec) -> Result<(), String> {
        let network = (self.network)(&spec.network_snapshot, &spec.ips, spec.attachment)
            .map_err(|error| format!("opening the Pod's network: {error}"))?;
        let handler = self
            .handlers
            .get(&spec.artifact)
            .map_err(|error| format!("{error:#}"))?;
        let scratch = self.scratch(&spec.container);
        let pod = HttpPod::new(
            spec,
            handler,
            network,
            &self.hub,
            &self.ticker,
            self.cores.count(),
            &scratch,
        )?;
        let pod = Arc::new(pod);
        pod.trial(self.cores.next()).await?;
        pod.listen(&self.acceptor)?;
        self.pods.lock().insert(pod.container.clone(), pod.clone());
        Ok(())
    }

    /// Where a guest's volumes are that are single files.
    fn scratch(&self, container: &ContainerId) -> PathBuf {
        self.folder.join(SCRATCH).join(&container.0)
    }

    /// Lets go of what a guest had that is not served any more, or never was.
    fn forget(&self, container: &ContainerId) {
        if let Err(error) = disk::remove_dir(&self.scratch(container)) {
            tracing::warn!(%error, "removing the folders of file volumes");
        }
        self.handlers.forget_unused();
    }

    fn exited(&self, pod: &HttpPod, code: i32, message: &str) {
        let reason = if code == 0 { "Completed" } else { "Error" };
        let exit = Exit {
            started_at: Some(pod.started_at),
            finished_at: SystemTime::now(),
            code,
            reason: reason.into(),
            message: message.into(),
        };
        if let Err(error) = disk::write_json(&pod.exit_file, &exit) {
            eprintln!("writing {}: {error}", pod.exit_file.display());
        }
        let container = pod.container.clone();
        self.hub.event(&Event::Exited { container, exit });
    }
}

#[async_trait]
impl Service for Host {
    async fn serve(&self, spec: GuestSpec) -> Result<(), String> {
        if spec.kind != Kind::Http {
            return Err("a command guest needs a runner of its own".into());
        }
        if self.pods.lock().contains_key(&spec.container) {
            return Err("this guest is served already".into());
        }
        let container = spec.container.clone();
        let taken = self.take(spec).await;
        if taken.is_err() {
            // Each attempt is a container of its own: what they leave would pile up.
            self.forget(&container);
        }
        taken
    }

    async fn stop(&self, container: &ContainerId, grace: Duration) {
        let Some(pod) = self.pod(container) else {
            return;
        };
        let stopped = pod.stop(&self.acceptor, grace).await;
        // Of several calls that waited, the first one tells.
        if self.pods.lock().remove(container).is_some() {
            match stopped {
                Stopped::Finished => self.exited(&pod, 0, ""),
                Stopped::Cut(requests) => {
                    let message =
                        format!("{requests} requests were cut off when the grace period ended");
                    self.exited(&pod, 137, &message);
                }
            }
            drop(pod);
            self.forget(container);
        }
    }

    fn update(&self, container: &ContainerId, resources: &Resources) {
        if let Some(pod) = self.pod(container) {
            pod.update(resources);
        }
    }

    fn stats(&self) -> Vec<Use> {
        self.pods.lock().values().map(|pod| pod.stats()).collect()
    }

    fn streams(&self, container: &ContainerId) -> Option<GuestStreams> {
        let pod = self.pod(container);
        pod.map(|pod| pod.environment.streams.clone())
    }

    fn guests(&self) -> Vec<ContainerId> {
        self.pods.lock().keys().cloned().collect()
    }

    fn dispatch(
        &self,
        agent: &Arc<Agent>,
        dispatch: Dispatch,
        socket: OwnedFd,
    ) -> Result<(), String> {
        let port = dispatch.port;
        self.ports
            .dispatch(agent, dispatch, socket)
            .map_err(|error| format!("port {port} cannot be served inside the host: {error}"))
    }

    fn withdraw(&self, agent: &Agent, port: u16) {
        self.ports.withdraw(agent, port);
    }

    fn disconnected(&self, agent: &Agent) {
        self.ports.disconnected(agent);
    }

    fn abandon(&self) {
        for (_, pod) in self.pods.lock().drain() {
            self.exited(
                &pod,
                137,
                "the guest was ended since no agent had come back for it",
            );
        }
        serve::end_process();
    }
}
