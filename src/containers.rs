//! Who runs a node's containers: our own runtime, one of the machine, or nobody.
//!
//! A folder of the node says which one has had it: Pods of the one are not known to the other, so
//! that a node changes its runtime only after `coracle reset`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use coracle_cri::{CriConfig, CriRuntime};
use coracle_runtime::disk;

/// The folder of what is kept beside a runtime of the machine.
const FOLDER: &str = "cri";
/// The file in it that says where that listens.
const ENDPOINT: &str = "endpoint.json";

/// Who runs containers.
pub(crate) enum Containers {
    /// Nobody: the node runs WebAssembly only.
    None,
    /// The runtime in this binary.
    Own,
    /// One of the machine, by its endpoint.
    Machine(String),
}

impl Containers {
    /// Whom a node of that folder has, with that `--container-runtime-endpoint`.
    pub(crate) fn of(endpoint: Option<String>, agent: &Path) -> Result<Self> {
        let Some(endpoint) = endpoint else {
            if let Some(earlier) = endpoint_of(agent)? {
                bail!(
                    "this node's containers are those of the runtime at {earlier}: give \
                     --container-runtime-endpoint, or end them with coracle reset"
                );
            }
            return Ok(match coracle_oci::lacks() {
                None => Self::Own,
                Some(lack) => {
                    tracing::info!(lack, "this node runs WebAssembly only");
                    Self::None
                }
            });
        };
        if !rustix::process::geteuid().is_root() {
            bail!(
                "--container-runtime-endpoint takes root: Pods' network and files are made for it"
            );
        }
        if has_sandboxes(&agent.join("oci")) {
            bail!(
                "this node has containers of its own runtime: end them with coracle reset before it \
                 is given --container-runtime-endpoint"
            );
        }
        Ok(Self::Machine(endpoint))
    }
}

/// Whether a runtime's records have sandboxes.
fn has_sandboxes(state_dir: &Path) -> bool {
    let entries = std::fs::read_dir(state_dir.join("sandboxes"));
    entries.is_ok_and(|mut entries| entries.next().is_some())
}

/// Where the runtime listens that runs the containers of a node, if one does.
pub(crate) fn endpoint_of(agent: &Path) -> Result<Option<String>> {
    let file = agent.join(FOLDER).join(ENDPOINT);
    disk::read_json(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// Begins to use a runtime of the machine for a node, which is remembered.
pub(crate) async fn open(agent: &Path, endpoint: &str, exe: &Path) -> Result<CriRuntime> {
    let state_dir = agent.join(FOLDER);
    let cri = CriRuntime::new(CriConfig {
        endpoint: endpoint.to_owned(),
        state_dir: state_dir.clone(),
        exe: exe.to_owned(),
    })
    .await?;
    let file = state_dir.join(ENDPOINT);
    disk::write_json(&file, &endpoint)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(cri)
}

/// Lets go of a runtime of the machine for good; the node's Pods have ended.
pub(crate) fn leave(agent: &Path, cri: &CriRuntime) -> Result<()> {
    cri.leave()?;
    let file = agent.join(FOLDER).join(ENDPOINT);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
