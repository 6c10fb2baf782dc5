//! `coracle reset`: takes a node off the machine.
//!
//! Pods outlive their agent on purpose. Reset ends them, and removes what the node has outside
//! its folder: guest processes, mounts, the Pods' network, what logind was told. What is in the
//! folder stays, so that a node that starts again finds its images and its identity, unless it is
//! asked to go too.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use coracle_images::ContentStore;
use coracle_kubelet::LogindPlaces;
use coracle_network::NodeNetwork;
use coracle_oci::{OciConfig, OciRuntime};
use coracle_runtime::{RuntimeService, disk};
use coracle_wasm::{WasmConfig, WasmRuntime};

use crate::cli::ResetOptions;
use crate::containers;
use crate::paths::{DataDir, lock};

/// Runs the command.
pub(crate) async fn run(options: ResetOptions) -> Result<()> {
    let data = DataDir::new(options.data.data_dir)?;
    let agent = data.agent();
    if agent.is_dir() {
        // A node that runs holds it.
        let _lock = lock(&agent)?;
        let ended = end_pods(&agent).await?;
        println!("{ended} Pods ended");
        let pods = agent.join("pods");
        coracle_kubelet::unmount_volumes(&pods)
            .with_context(|| format!("cannot unmount the volumes in {}", pods.display()))?;
        NodeNetwork::tear_down_folder(&agent.join("network"))
            .context("cannot remove the Pods' network")?;
        match coracle_kubelet::forget_shutdown(&LogindPlaces::of_machine(), &pods) {
            Ok(_) => {}
            // It is that of another user's node.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error).context("cannot take back what logind was told"),
        }
    }
    if options.delete_data && data.root().exists() {
        let _lock = match data.store().is_dir() {
            true => Some(lock(&data.store())?),
            false => None,
        };
        disk::remove_dir(data.root())
            .with_context(|| format!("cannot delete {}", data.root().display()))?;
        println!("deleted {}", data.root().display());
    }
    Ok(())
}

/// Ends every guest and container that an agent of this folder has left, and says how many Pods
/// they were of.
async fn end_pods(agent: &Path) -> Result<usize> {
    // Taken over as a starting agent does it, so that there is one way of knowing them.
    let content = ContentStore::open(agent.join("images"))?;
    let exe = std::env::current_exe().context("cannot find this program's own file")?;
    let mut runtimes: Vec<Arc<dyn RuntimeService>> = Vec::new();
    if agent.join("wasm").is_dir() {
        let wasm = WasmRuntime::new(WasmConfig {
            state_dir: agent.join("wasm"),
            cache_dir: agent.join("compiled"),
            content: content.clone(),
            exe: exe.clone(),
            ephemeral: false,
            network_namespace: None,
            guest_users: crate::host::guest_users(),
        });
        runtimes.push(Arc::new(wasm.await?));
    }
    if agent.join("oci").is_dir() {
        let oci = OciRuntime::new(OciConfig {
            state_dir: agent.join("oci"),
            content,
            exe: exe.clone(),
            ephemeral: None,
        });
        runtimes.push(Arc::new(oci.await?));
    }
    // Its runtime has to be there still: what runs there cannot be ended without it.
    let cri = match containers::endpoint_of(agent)? {
        Some(endpoint) => Some(containers::open(agent, &endpoint, &exe).await?),
        None => None,
    };
    runtimes.extend(
        cri.iter()
            .map(|cri| Arc::new(cri.clone()) as Arc<dyn RuntimeService>),
    );
    let mut pods = BTreeSet::new();
    for runtime in runtimes {
        for sandbox in runtime.list_pod_sandboxes().await? {
            runtime.remove_pod_sandbox(&sandbox.id).await?;
            pods.insert(sandbox.config.pod.uid);
        }
        runtime.detach().await;
    }
    if let Some(cri) = &cri {
        containers::leave(agent, cri)?;
    }
    Ok(pods.len())
}
