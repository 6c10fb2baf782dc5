//! Sandboxes and containers: made, started, stopped, removed.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use coracle_runtime::cgroup::Cgroup;
use coracle_runtime::cgroup::pods::{own_pod_cgroup, pod_cgroup};
use coracle_runtime::ledger::ContainerRecord;
use coracle_runtime::{
    ContainerConfig, ContainerId, Error, Exit, PodSandbox, PodSandboxConfig, Resources, Result,
    SandboxId, disk, files,
};
use serde::{Deserialize, Serialize};

use super::making::{MADE, Made};
use super::shim::Shim;
use super::{Entry, Inner};
use crate::protocol::{Event, Launch, Request, Response};

/// How long after its grace period a container may take to end before its shim is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// That a container was started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) at: SystemTime,
}

impl Inner {
    pub(super) fn shim_folder(&self, id: &SandboxId) -> PathBuf {
        self.ledger.records().sandbox_folder(id).join("shim")
    }

    /// Hears what shims tell.
    pub(super) fn ears(self: &Arc<Self>) -> impl FnMut(Event) + Send + use<> {
        let inner: Weak<Self> = Arc::downgrade(self);
        move |event| {
            let Event::Exited { container, exit } = event;
            if let Some(inner) = inner.upgrade()
                && let Ok(entry) = inner.ledger.entry(&container)
            {
                inner.ledger.exited(&entry, exit);
            }
        }
    }

    pub(super) async fn run_sandbox(
        self: &Arc<Self>,
        config: PodSandboxConfig,
    ) -> Result<SandboxId> {
        let uid = &config.pod.uid;
        if uid.is_empty() || uid.starts_with('.') || uid.contains('/') {
            return Err(Error::InvalidConfig(format!("{uid:?} is no UID of a Pod")));
        }
        let (hostname, namespaces) = (config.hostname.clone(), config.namespaces.clone());
        let cgroup = pod_cgroup(&config);
        let id = self.ledger.add_sandbox(config, |sandbox| {
            let folder = self.ledger.records().sandbox_folder(&sandbox.id);
            let written = files::write(&folder, &sandbox.config);
            written.map_err(|error| Error::io("writing the files of a sandbox", error))
        })?;
        let launch = Launch {
            folder: self.shim_folder(&id),
            hostname,
            namespaces,
            cgroup,
            ephemeral: self.config.ephemeral,
        };
        let of = id.clone();
        let made = self.blocking(move |inner| inner.make_pod_cgroup(&of)).await;
        if let Err(error) = made {
            self.undo_sandbox(&id).await;
            return Err(Error::io("making the control group of a Pod", error));
        }
        match Shim::spawn(&self.binary, &launch, self.ears()).await {
            Ok(shim) => {
                self.keep(&id, shim);
                Ok(id)
            }
            Err(error) => {
                self.undo_sandbox(&id).await;
                Err(Error::io("starting the shim of a Pod", error))
            }
        }
    }

    /// Removes a sandbox that was not made. Should that fail, it is one that has ended.
    async fn undo_sandbox(self: &Arc<Self>, id: &SandboxId) {
        let undone = async {
            self.close_sandbox(id).await?;
            self.forget_sandbox(id).await
        };
        if let Err(error) = undone.await {
            tracing::warn!(sandbox = id.0, %error, "removing a sandbox that was not made");
        }
    }

    /// Records that nothing is created in a sandbox any more; its class no longer has what it has
    /// asked for.
    async fn close_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<Option<PodSandbox>> {
        let closed = self.ledger.close_sandbox(id)?;
        if let Some(sandbox) = &closed {
            let path = pod_cgroup(&sandbox.config);
            let weigh = move |inner: &Self| {
                let _held = inner.cgroups.hold();
                let sandboxes = inner.ledger.sandboxes();
                inner.cgroups.weigh_class(&path, &sandboxes)
            };
            // It may have no cgroup yet, or none any more.
            let _ = self.blocking(weigh).await;
        }
        Ok(closed)
    }

    /// Does something that blocks where nothing waits for it but the caller.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(io::Error::other).flatten()
    }

    /// Remembers a shim, and watches it.
    pub(super) fn keep(self: &Arc<Self>, id: &SandboxId, shim: Arc<Shim>) {
        self.shims.lock().insert(id.clone(), shim.clone());
        let (inner, id) = (self.clone(), id.clone());
        self.tasks.spawn(async move {
            let watched = inner.detached.run_until_cancelled(shim.ended()).await;
            if let Some(ended) = watched {
                inner.shim_ended(&id, &shim.describe(ended)).await;
            }
        });
    }

    /// The shim of a sandbox is gone, and with it what it kept.
    pub(super) async fn shim_ended(self: &Arc<Self>, id: &SandboxId, message: &str) {
        self.shims.lock().remove(id);
        for entry in self.ledger.entries_of(id) {
            if entry.is_running() {
                self.lost(&entry, message).await;
            }
        }
        match self.close_sandbox(id).await {
            Ok(Some(sandbox)) => {
                tracing::warn!(sandbox = id.0, message, "a sandbox has died");
                self.ledger.tell_sandbox(&sandbox);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(sandbox = id.0, %error, "recording a sandbox's end"),
        }
    }

    /// A container has no shim any more: it has ended, as the shim wrote or else as far as is
    /// known.
    pub(super) async fn lost(self: &Arc<Self>, entry: &Entry, message: &str) {
        // The kernel kills what a shim has started when that ends; not all that this has started.
        let cgroup = self.cgroup(&entry.record);
        if let Err(error) = self.blocking(move |_| cgroup.clear()).await {
            // Tried again before the container is forgotten.
            tracing::warn!(container = entry.record.id.0, %error, "removing a control group");
        }
        let records = self.ledger.records();
        let exit = records.exit(&entry.record.id).ok().flatten();
        let started: Option<Started> = records.started(&entry.record.id).ok().flatten();
        let exit = exit.unwrap_or_else(|| Exit {
            started_at: started.map(|started| started.at),
            finished_at: SystemTime::now(),
            code: 137,
            reason: "Error".into(),
            message: message.to_owned(),
        });
        self.ledger.exited(entry, exit);
    }

    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let closed = self.close_sandbox(id).await?;
        let entries = self.ledger.entries_of(id);
        let stops = entries.iter().map(|entry| self.stop(entry, Duration::ZERO));
        for stopped in futures::future::join_all(stops).await {
            stopped?;
        }
        let shim = self.shims.lock().get(id).cloned();
        if let Some(shim) = shim {
            shim.close().await;
        }
        if let Some(sandbox) = closed {
            self.ledger.tell_sandbox(&sandbox);
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        self.stop_sandbox(id).await?;
        for entry in self.ledger.entries_of(id) {
            self.remove_container(&entry).await?;
        }
        self.forget_sandbox(id).await
    }

    /// Makes the cgroup of a Pod, above its containers', with its limits.
    fn make_pod_cgroup(&self, id: &SandboxId) -> io::Result<()> {
        let _held = self.cgroups.hold();
        // One that was forgotten meanwhile has none.
        let Ok(PodSandbox { config, .. }) = self.ledger.sandbox(id) else {
            return Ok(());
        };
        self.cgroups.make(&config, &self.ledger.sandboxes())
    }

    /// Changes the limits of a Pod's cgroup, and what its class has.
    pub(super) fn resize_pod_cgroup(&self, id: &SandboxId, of: &Resources) -> io::Result<()> {
        let _held = self.cgroups.hold();
        let Some(path) = self.pod_cgroup_of(id) else {
            return Ok(());
        };
        self.cgroups.resize(&path, of)?;
        let recorded = self.ledger.resize_sandbox(id, of.clone());
        recorded.map_err(io::Error::other)?;
        self.cgroups.weigh_class(&path, &self.ledger.sandboxes())
    }

    /// Forgets a sandbox, and removes its Pod's cgroup with whatever is left in it. The Pod may
    /// have another sandbox, and the node other Pods: those stay.
    async fn forget_sandbox(self: &Arc<Self>, id: &SandboxId) -> Result<()> {
        let id = id.clone();
        let forgotten = self.blocking(move |inner| {
            // Of two sandboxes of a Pod that go at once the second finds itself alone: each is
            // forgotten before the next looks.
            let _held = inner.cgroups.hold();
            let path = inner.pod_cgroup_of(&id);
            let others = inner.ledger.sandboxes();
            let mut others = others.iter().filter(|other| other.id != id);
            let own = path.filter(|path| others.all(|it| pod_cgroup(&it.config) != *path));
            if let Some(path) = &own {
                // What does not go keeps the sandbox on the records, and whoever removes it asks
                // again.
                inner.cgroups.clear(path)?;
            }
            let forgotten = inner.ledger.remove_sandbox(&id);
            if let Some(path) = own {
                inner.cgroups.cleared(&path, &inner.ledger.sandboxes());
            }
            Ok(forgotten)
        });
        let failed = |error| Error::io("removing the control group of a Pod", error);
        forgotten.await.map_err(failed)?
    }

    /// The cgroup of a sandbox's Pod; none if the sandbox is not known.
    fn pod_cgroup_of(&self, id: &SandboxId) -> Option<PathBuf> {
        let path = |sandbox: &PodSandbox| pod_cgroup(&sandbox.config);
        self.ledger.with_sandbox(id, path).ok()
    }

    /// The cgroup of a container.
    pub(super) fn cgroup(&self, record: &ContainerRecord) -> Cgroup {
        let path = self.pod_cgroup_of(&record.sandbox);
        let path = path.unwrap_or_else(|| own_pod_cgroup(&record.pod.uid));
        let hierarchies = self.cgroups.hierarchies();
        hierarchies.cgroup(&path.join(&record.id.0))
    }

    pub(super) fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let image = self.image(&config.image_digest)?;
        let layers = self.layers(&image, &config.image)?;
        self.ledger.add_container(sandbox, config, |record, of| {
            let shim = self.shims.lock().get(sandbox).map(|shim| shim.pid());
            let shim = shim.ok_or_else(|| {
                Error::State(format!("the shim of sandbox {} has ended", sandbox.0))
            })?;
            self.make(record, of, &image.config, layers, shim)
        })
    }

    /// What was made of a container, if its making was not cut off.
    pub(super) fn read_made(&self, entry: &Entry) -> io::Result<Option<Made>> {
        let folder = self.ledger.records().container_folder(&entry.record.id);
        disk::read_json(&folder.join(MADE))
    }

    /// What was made of a container.
    fn made(&self, entry: &Entry) -> Result<Made> {
        let made = self.read_made(entry);
        let made = made.and_then(|made| made.ok_or_else(|| io::Error::other("there is none")));
        made.map_err(|error| Error::io("reading what was made of a container", error))
    }

    pub(super) async fn start_container(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let entry = self.ledger.entry(id)?;
        let _starting = entry.starting.lock().await;
        let sandbox = self.ledger.startable(&entry)?;
        let shim = self.shims.lock().get(&sandbox.id).cloned();
        let shim = shim.ok_or_else(|| {
            Error::State(format!("the shim of sandbox {} has ended", sandbox.id.0))
        })?;
        let Made {
            mut start, user, ..
        } = self.made(&entry)?;
        let started = Started {
            at: SystemTime::now(),
        };
        start.started_at = started.at;
        self.ledger
            .records()
            .write_started(id, &started)
            .map_err(|error| Error::io("recording the start of a container", error))?;
        if let Some(user) = user {
            // It may have been started before, in vain.
            let _ = entry.user.set(user);
        }
        entry.set_process(Some(shim.clone()));
        let cause = match shim.request(Request::Start(Box::new(start))).await {
            Ok(Response::Done) => {
                self.ledger.running(&entry, started.at);
                // Whoever has seen the shim end since it answered took this for a container that does
                // not run.
                let is_kept = self.shims.lock().contains_key(&sandbox.id);
                if !is_kept
                    && let Some(ended) = self.detached.run_until_cancelled(shim.ended()).await
                {
                    self.lost(&entry, &shim.describe(ended)).await;
                }
                return Ok(());
            }
            Ok(Response::Failed(cause)) => cause,
            Ok(other) => format!("the shim answered {other:?}"),
            Err(error) => {
                // What it was making has no end of its own, and is seen by nobody who looks for what
                // runs.
                shim.ended().await;
                let cgroup = self.cgroup(&entry.record);
                if let Err(error) = self.blocking(move |_| cgroup.clear()).await {
                    // Tried again before the container is forgotten.
                    tracing::warn!(container = id.0, %error, "removing a control group");
                }
                format!("the shim does not answer: {error}")
            }
        };
        self.ledger.not_started(&entry, &cause);
        Err(Error::Start(cause))
    }

    pub(super) async fn stop(self: &Arc<Self>, entry: &Entry, grace: Duration) -> Result<()> {
        // One that is being started is stopped when it runs.
        let starting = entry.starting.lock().await;
        if !entry.is_running() {
            return Ok(());
        }
        drop(starting);
        let Some(shim) = entry.process() else {
            entry.ended().await;
            return Ok(());
        };
        let request = shim.request(Request::Stop {
            container: entry.record.id.clone(),
            signal: self.made(entry)?.stop_signal,
            grace,
        });
        let ended = async {
            // It may end before it answers; either way the state tells.
            let _ = request.await;
            entry.ended().await;
        };
        let patience = grace.saturating_add(PATIENCE);
        if tokio::time::timeout(patience, ended).await.is_err() {
            self.lost(entry, "its shim did not end it").await;
        }
        Ok(())
    }

    pub(super) async fn remove_container(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<()> {
        self.stop(entry, Duration::ZERO).await?;
        let cgroup = self.cgroup(&entry.record);
        let cleared = self.blocking(move |_| cgroup.clear()).await;
        cleared.map_err(|error| Error::io("removing the control group of a container", error))?;
        let entry = entry.clone();
        // It may have written much.
        let removed = self.blocking(move |inner| Ok(inner.ledger.remove_container(&entry)));
        let failed = |error| Error::io("removing a container", error);
        removed.await.map_err(failed)?.map(drop)
    }
}
