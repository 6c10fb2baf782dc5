//! The control groups of Pods, above those that the runtime makes for containers.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use coracle_runtime::cgroup::pods::{PodCgroups, pod_cgroup};
use coracle_runtime::{
    Error, PodSandbox, PodSandboxConfig, PodsLimits, Resources, Result, SandboxId, SandboxState,
};

use super::Inner;

impl Inner {
    /// Changes them, by all sandboxes that are known. Where systemd has them there is nothing to do.
    async fn change_cgroups<F>(&self, change: F) -> Result<()>
    where
        F: FnOnce(&PodCgroups, Vec<PodSandbox>) -> io::Result<()> + Send + 'static,
    {
        let Some(cgroups) = &self.cgroups else {
            return Ok(());
        };
        let held = cgroups.lock().await;
        let sandboxes = self.sandboxes(None).await?;
        let cgroups = Arc::clone(&*held);
        let changed = tokio::task::spawn_blocking(move || {
            let _held = cgroups.hold();
            change(&cgroups, sandboxes)
        });
        let changed = changed.await.map_err(io::Error::other).flatten();
        changed.map_err(|error| Error::io("changing the control group of a Pod", error))
    }

    /// Makes that of a Pod which is about to have a sandbox.
    pub(super) async fn make_cgroup(&self, config: &PodSandboxConfig) -> Result<()> {
        let new = PodSandbox {
            id: SandboxId(String::new()),
            config: config.clone(),
            state: SandboxState::Ready,
            created_at: SystemTime::now(),
        };
        self.change_cgroups(move |cgroups, mut sandboxes| {
            let config = new.config.clone();
            sandboxes.push(new);
            cgroups.make(&config, &sandboxes)
        })
        .await
    }

    /// Removes that of a Pod which has no sandbox any more.
    pub(super) async fn remove_cgroup(&self, config: &PodSandboxConfig) -> Result<()> {
        let path = pod_cgroup(config);
        self.change_cgroups(move |cgroups, sandboxes| {
            let mut others = sandboxes.iter();
            if others.all(|other| pod_cgroup(&other.config) != path) {
                cgroups.clear(&path)?;
                cgroups.cleared(&path, &sandboxes);
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn resize_sandbox(&self, id: &SandboxId, of: Resources) -> Result<()> {
        let path = pod_cgroup(&self.sandbox(id).await?.config);
        self.resized.lock().insert(id.clone(), of.clone());
        self.change_cgroups(move |cgroups, sandboxes| {
            cgroups.resize(&path, &of)?;
            cgroups.weigh_class(&path, &sandboxes)
        })
        .await
    }

    pub(super) async fn limit_pods(&self, root: &Path, limits: PodsLimits) -> Result<()> {
        let Some(cgroups) = &self.cgroups else {
            tracing::warn!(
                "what is reserved is not kept from Pods: systemd has their control groups"
            );
            return Ok(());
        };
        let (cgroups, root) = (Arc::clone(&*cgroups.lock().await), root.to_owned());
        let limited = tokio::task::spawn_blocking(move || cgroups.limit_all(&root, limits));
        let limited = limited.await.map_err(io::Error::other).flatten();
        limited.map_err(|error| Error::io("limiting the control group of all Pods", error))
    }
}
