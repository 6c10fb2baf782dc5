//! `coracle reset`: takes a node off the machine.
//!
//! Pods outlive their agent on purpose. Reset ends them, and removes what the node has outside
//! its folder: guest processes, mounts, the Pods' network. What is in the folder stays, so that a
//! node that starts again finds its images and its identity, unless it is asked to go too.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use coracle_images::ContentStore;
use coracle_network::NodeNetwork;
use coracle_runtime::RuntimeService;
use coracle_wasm::{WasmConfig, WasmRuntime};

use crate::cli::ResetOptions;
use crate::paths::{DataDir, lock};

/// Runs the command.
pub(crate) async fn run(options: ResetOptions) -> Result<()> {
    let data = DataDir::new(options.data.data_dir)?;
    let agent = data.agent();
    if agent.is_dir() {
        // A node that runs holds it.
        let _lock = lock(&agent)?;
        let ended = end_guests(&agent).await?;
        println!("{ended} Pods ended");
        let pods = agent.join("pods");
        coracle_kubelet::unmount_volumes(&pods)
            .with_context(|| format!("cannot unmount the volumes in {}", pods.display()))?;
        NodeNetwork::tear_down_folder(&agent.join("network"))
            .context("cannot remove the Pods' network")?;
    }
    if options.delete_data && data.root().exists() {
        let _lock = match data.store().is_dir() {
            true => Some(lock(&data.store())?),
            false => None,
        };
        std::fs::remove_dir_all(data.root())
            .with_context(|| format!("cannot delete {}", data.root().display()))?;
        println!("deleted {}", data.root().display());
    }
    Ok(())
}

/// Ends every guest that an agent of this folder has left, and says how many Pods they were of.
async fn end_guests(agent: &Path) -> Result<usize> {
    let state_dir = agent.join("wasm");
    if !state_dir.is_dir() {
        return Ok(0);
    }
    // Taken over as a starting agent does it, so that there is one way of knowing them.
    let runtime = WasmRuntime::new(WasmConfig {
        state_dir,
        cache_dir: agent.join("compiled"),
        content: ContentStore::open(agent.join("images"))?,
        exe: std::env::current_exe().context("cannot find this program's own file")?,
        ephemeral: false,
        network_namespace: None,
        guest_users: crate::host::guest_users(),
    })
    .await?;
    let runtime: Arc<dyn RuntimeService> = Arc::new(runtime);
    let sandboxes = runtime.list_pod_sandboxes().await?;
    for sandbox in &sandboxes {
        runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    runtime.detach().await;
    Ok(sandboxes.len())
}
