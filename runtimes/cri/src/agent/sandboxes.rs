//! Sandboxes: made, found, stopped, removed, and dialled.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use coracle_runtime::streaming::PortConnection;
use coracle_runtime::{
    Error, Network, PodSandbox, PodSandboxConfig, Result, SandboxId, SandboxState, dial, disk,
    files,
};
use tokio::net::TcpStream;

use super::{Inner, at, broken, gone, sandbox_folder};
use crate::cni::{PodRecord, is_uid};
use crate::wire::{
    self, LIST_POD_SANDBOX, ListPodSandboxRequest, POD_SANDBOX_STATUS, PodSandboxFilter,
    PodSandboxId, PodSandboxStatusRequest, REMOVE_POD_SANDBOX, RUN_POD_SANDBOX,
    RunPodSandboxRequest, STOP_POD_SANDBOX, sandbox_state,
};
use crate::{plan, staging};

/// How long a sandbox may take, whose image may have to be pulled.
const SANDBOX: Duration = Duration::from_secs(240);
/// How long a connection to a Pod's address may take.
const CONNECT: Duration = Duration::from_secs(10);

impl Inner {
    pub(super) async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        if !is_uid(&config.pod.uid) {
            let uid = &config.pod.uid;
            return Err(Error::InvalidConfig(format!("{uid:?} is no UID of a Pod")));
        }
        let asked = plan::sandbox(&config, &self.node, self.facts.systemd);
        let handler = config.handler.clone().filter(|name| name != super::NAME);
        let request = RunPodSandboxRequest {
            config: Some(asked.map_err(Error::InvalidConfig)?),
            runtime_handler: handler.unwrap_or_default(),
        };
        let folder = sandbox_folder(&self.config.state_dir, &config);
        let record = PodRecord {
            namespace: match &config.namespaces.network {
                Network::Namespace(path) => Some(path.clone()),
                Network::Host | Network::Loopback => None,
            },
            ips: config.ips.clone(),
        };
        let write = || -> io::Result<()> {
            disk::private_dir(&folder)?;
            files::write(&folder, &config)?;
            let records = self.network_records();
            disk::write_json(&PodRecord::path(&records, &config.pod.uid), &record)
        };
        let run = async {
            write().map_err(|error| Error::io("writing the files of a sandbox", error))?;
            self.make_cgroup(&config).await?;
            let run = self.client.call_within(SANDBOX, RUN_POD_SANDBOX, &request);
            run.await.map_err(|status| Error::Start(status.message))
        };
        let made = run.await;
        self.look.notify_one();
        match made {
            Ok(made) => Ok(SandboxId(made.pod_sandbox_id)),
            Err(error) => {
                if let Err(error) = self.forget(&config).await {
                    tracing::warn!(%error, "removing what was made for a sandbox");
                }
                Err(error)
            }
        }
    }

    /// Sandboxes of this node, or the one of an ID.
    pub(super) async fn sandboxes(&self, id: Option<&SandboxId>) -> Result<Vec<PodSandbox>> {
        let filter = PodSandboxFilter {
            id: id.map(|id| id.0.clone()).unwrap_or_default(),
            label_selector: plan::ours(&self.node),
        };
        let request = ListPodSandboxRequest {
            filter: Some(filter),
        };
        let listed = self.client.call(LIST_POD_SANDBOX, &request).await;
        let listed = listed.map_err(|status| broken("listing sandboxes", status))?;
        let resized = self.resized.lock();
        let sandboxes = listed.items.into_iter().map(|listed| {
            let mut sandbox = sandbox(listed);
            if let Some(resources) = resized.get(&sandbox.id) {
                sandbox.config.resources = resources.clone();
            }
            sandbox
        });
        Ok(sandboxes.collect())
    }

    pub(super) async fn sandbox(&self, id: &SandboxId) -> Result<PodSandbox> {
        let found = self.sandboxes(Some(id)).await?.into_iter().next();
        found.ok_or_else(|| self.not_found("sandbox", &id.0))
    }

    pub(super) async fn stop_sandbox(&self, id: &SandboxId) -> Result<()> {
        let request = PodSandboxId {
            pod_sandbox_id: id.0.clone(),
        };
        let stopped = self.client.call(STOP_POD_SANDBOX, &request).await;
        self.look.notify_one();
        gone("stopping a sandbox", stopped)
    }

    pub(super) async fn remove_sandbox(&self, id: &SandboxId) -> Result<()> {
        let known = match self.sandbox(id).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            known => known?,
        };
        self.stop_sandbox(id).await?;
        let request = PodSandboxId {
            pod_sandbox_id: id.0.clone(),
        };
        let removed = self.client.call(REMOVE_POD_SANDBOX, &request).await;
        self.look.notify_one();
        gone("removing a sandbox", removed)?;
        self.resized.lock().remove(id);
        self.forget(&known.config).await
    }

    /// Removes what the node has of a sandbox, and of its Pod if that has no other.
    async fn forget(&self, config: &PodSandboxConfig) -> Result<()> {
        let uid = &config.pod.uid;
        let others = self.sandboxes(None).await?;
        let last = others.iter().all(|other| other.config.pod.uid != *uid);
        let folder = sandbox_folder(&self.config.state_dir, config);
        let record = last.then(|| PodRecord::path(&self.network_records(), uid));
        let remove = move || -> io::Result<()> {
            staging::clear(&folder)?;
            match record.map(std::fs::remove_file) {
                Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        let removed = removed.map_err(io::Error::other).flatten();
        removed.map_err(|error| Error::io("removing the files of a sandbox", error))?;
        self.remove_cgroup(config).await
    }

    /// Connects to a port of a Pod: as from within it, or, where a runtime has a network behind the
    /// Pod's namespace, at the Pod's address.
    pub(super) async fn connect(&self, id: &SandboxId, port: u16) -> Result<PortConnection> {
        let sandbox = self.sandbox(id).await?;
        let namespace = match &sandbox.config.namespaces.network {
            Network::Host => None,
            Network::Namespace(path) => Some(path.clone()),
            Network::Loopback => Some(self.own_namespace(id).await?),
        };
        let failed = |error| Error::io(format!("connecting to port {port}"), error);
        let dialled =
            tokio::task::spawn_blocking(move || dial::loopback(namespace.as_deref(), port));
        let refused = match dialled.await.map_err(io::Error::other).flatten() {
            Ok(stream) => {
                let connected = stream.set_nonblocking(true);
                let connected = connected.and_then(|()| TcpStream::from_std(stream));
                return Ok(Box::new(connected.map_err(failed)?));
            }
            Err(error) => error,
        };
        let is_ours = matches!(sandbox.config.namespaces.network, Network::Namespace(_));
        for ip in sandbox.config.ips.iter().filter(|_| is_ours) {
            if let Some(stream) = reach(*ip, port).await {
                return Ok(Box::new(stream));
            }
        }
        Err(failed(refused))
    }

    /// The network namespace that the runtime has made.
    async fn own_namespace(&self, id: &SandboxId) -> Result<PathBuf> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.0.clone(),
            verbose: true,
        };
        let status = self.client.call(POD_SANDBOX_STATUS, &request).await;
        let status = status.map_err(|status| broken("asking for a sandbox", status))?;
        let info = status.info.get("info");
        let info: serde_json::Value = info
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let pid = info["pid"].as_u64().filter(|pid| *pid != 0);
        pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")))
            .ok_or_else(|| {
                let text = "the container runtime does not say which processes a sandbox has";
                Error::State(text.to_owned())
            })
    }
}

async fn reach(ip: IpAddr, port: u16) -> Option<TcpStream> {
    let connect = TcpStream::connect(SocketAddr::new(ip, port));
    let stream = tokio::time::timeout(CONNECT, connect).await.ok()?.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// A sandbox as the kubelet knows it.
fn sandbox(listed: wire::PodSandbox) -> PodSandbox {
    let kept = listed.annotations.get(plan::CONFIG);
    let kept = kept.and_then(|text| serde_json::from_str(text).ok());
    let metadata = listed.metadata.unwrap_or_default();
    PodSandbox {
        id: SandboxId(listed.id),
        // What cannot be read can still be removed.
        config: kept.unwrap_or_else(|| PodSandboxConfig {
            pod: coracle_runtime::PodIdentity {
                namespace: metadata.namespace,
                name: metadata.name,
                uid: metadata.uid,
            },
            attempt: metadata.attempt,
            ..PodSandboxConfig::default()
        }),
        state: match listed.state {
            sandbox_state::READY => SandboxState::Ready,
            _ => SandboxState::NotReady,
        },
        created_at: at(listed.created_at),
    }
}
