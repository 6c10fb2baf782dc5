//! What earlier Pods have left on the node: sandboxes, addresses, folders.
//!
//! Removed once, when all Pods of the node are known after a start. While the agent runs,
//! each worker cleans up after its own Pod.

use std::collections::BTreeSet;
use std::path::Path;

use coracle_runtime::disk;

use crate::node_context::NodeContext;
use crate::volumes;
use crate::worker::Workers;

/// Removes everything that belongs to no Pod that has a worker.
pub(crate) async fn remove(node: &NodeContext, workers: &Workers) {
    // First what there is, then who has it: a Pod may begin meanwhile.
    let mut uids = node.cache.uids();
    uids.extend(volumes::uids(&node.root));
    uids.extend(log_uids(&node.log_root));
    let known: BTreeSet<String> = workers.uids().into_iter().collect();
    for uid in uids.difference(&known) {
        remove_one(node, uid).await;
    }
}

/// Removes everything of a Pod that has no worker.
pub(crate) async fn remove_one(node: &NodeContext, uid: &str) {
    tracing::info!(uid, "removing what is left of a Pod that is gone");
    let runtime = node.cache.pod(uid);
    for of in &runtime.sandboxes {
        let Some(service) = node.router.by_name(of.runtime) else {
            continue;
        };
        match service.remove_pod_sandbox(&of.sandbox.id).await {
            Ok(()) => {
                node.cache
                    .update(uid, |pod| pod.forget_sandbox(&of.sandbox.id));
            }
            Err(error) => tracing::warn!(%error, uid, "cannot remove a sandbox"),
        }
    }
    for of in &node.cache.pod(uid).containers {
        let Some(service) = node.router.by_name(of.runtime) else {
            continue;
        };
        match service.remove_container(of.id()).await {
            Ok(()) => {
                node.cache.update(uid, |pod| pod.forget_container(of.id()));
            }
            Err(error) => tracing::warn!(%error, uid, "cannot remove a container"),
        }
    }
    if let Err(error) = node.network.release(uid).await {
        tracing::warn!(%error, uid, "cannot give back an address");
    }
    match volumes::tear_down(&node.root, uid) {
        Ok(()) => node.users.release(uid),
        Err(error) => tracing::warn!(%error, uid, "cannot remove volumes"),
    }
    remove_logs(&node.log_root, uid);
}

fn log_folders(root: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Folders are named `<namespace>_<name>_<uid>`.
fn log_uids(root: &Path) -> BTreeSet<String> {
    let uid = |name: String| name.rsplit_once('_').map(|(_, uid)| uid.to_owned());
    log_folders(root).filter_map(uid).collect()
}

fn remove_logs(root: &Path, uid: &str) {
    for name in log_folders(root) {
        if name.rsplit_once('_').is_some_and(|(_, of)| of == uid)
            && let Err(error) = disk::remove_dir(&root.join(&name))
        {
            tracing::warn!(%error, uid, "cannot remove logs");
        }
    }
}
