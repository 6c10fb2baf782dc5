//! What a Pod takes of the node's local disk: what its containers have written beside their
//! images, their logs, and its local volumes.
//!
//! It is measured by looking at every file, and so only for whom somebody wants to know it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_runtime::usage::{DiskUsage, disk_usage};
use k8s_openapi::api::core::v1::Pod;

use crate::node_context::NodeContext;
use crate::pod;
use crate::volumes;

/// What one Pod takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodDisk {
    /// By container: what it has written, and its logs.
    pub(crate) containers: BTreeMap<String, DiskUsage>,
    /// By local volume.
    pub(crate) volumes: BTreeMap<String, DiskUsage>,
}

impl PodDisk {
    pub(crate) fn total(&self) -> DiskUsage {
        self.containers
            .values()
            .chain(self.volumes.values())
            .copied()
            .sum()
    }
}

/// Measures a Pod. What cannot be measured is told in the log and counts nothing.
pub(super) async fn measure(node: &NodeContext, pod: &Pod) -> PodDisk {
    let mut folders: Vec<(String, PathBuf)> = Vec::new();
    let mut used = PodDisk::default();
    let runtime = node.cache.pod(pod::uid(pod));
    for (container, _) in pod::containers(pod) {
        let name = container.name.clone();
        let mut layer = DiskUsage::default();
        if let Some(of) = runtime.latest(&name)
            && let Some(service) = node.router.by_name(of.runtime)
        {
            match service.writable_layer(of.id()).await {
                Ok(written) => layer = written,
                Err(coracle_runtime::Error::NotFound { .. }) => {}
                Err(error) => tracing::warn!(%error, container = of.id().0, "not measured"),
            }
        }
        used.containers.insert(name.clone(), layer);
        folders.push((name.clone(), node.pod_logs(pod).join(name)));
    }
    let logs = folders.len();
    folders.extend(volumes::local(&node.root, pod));
    let measured = tokio::task::spawn_blocking(move || {
        let of = |(name, folder): (String, PathBuf)| {
            let used = disk_usage(&folder).unwrap_or_else(|error| {
                tracing::warn!(%error, folder = %folder.display(), "not measured");
                DiskUsage::default()
            });
            (name, used)
        };
        folders.into_iter().map(of).collect::<Vec<_>>()
    });
    for (index, (name, more)) in measured.await.unwrap_or_default().into_iter().enumerate() {
        let of = match index < logs {
            true => &mut used.containers,
            false => &mut used.volumes,
        };
        let known = of.entry(name).or_default();
        *known = *known + more;
    }
    used
}
