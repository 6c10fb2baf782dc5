//! Taking over what an earlier agent left running.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use coracle_runtime::{ContainerId, SandboxState};

use super::Inner;
use super::lifecycle::Started;
use super::shim::Shim;

/// Reads all records and connects to all shims that live.
pub(super) async fn all(inner: &Arc<Inner>) -> io::Result<()> {
    let mut running: HashSet<ContainerId> = HashSet::new();
    let mut died = Vec::new();
    for sandbox in inner.ledger.sandboxes() {
        let folder = inner.shim_folder(&sandbox.id);
        match Shim::adopt(&folder, inner.ears()).await? {
            // A stop was cut off.
            Some(shim) if sandbox.state == SandboxState::NotReady => shim.close().await,
            Some(shim) => {
                running.extend(shim.running().await);
                inner.shims.lock().insert(sandbox.id.clone(), shim);
            }
            None if sandbox.state == SandboxState::Ready => died.push(sandbox.id),
            None => {}
        }
    }
    for record in inner.ledger.recorded()? {
        let records = inner.ledger.records();
        let started: Option<Started> = records.started(&record.id)?;
        let exit = records.exit(&record.id)?;
        let entry = inner
            .ledger
            .adopt(record, started.map(|started| started.at), exit);
        if started.is_some()
            && let Ok(Some(made)) = inner.read_made(&entry)
            && let Some(user) = made.user
        {
            // The entry is new.
            let _ = entry.user.set(user);
        }
        if !entry.is_running() {
            continue;
        }
        let shim = inner.shims.lock().get(&entry.record.sandbox).cloned();
        match shim.filter(|_| running.contains(&entry.record.id)) {
            Some(shim) => {
                entry.set_process(Some(shim));
                // It may have ended before there was an entry that could hear of it.
                if let Some(exit) = inner.ledger.records().exit(&entry.record.id)? {
                    inner.ledger.exited(&entry, exit);
                }
            }
            None => {
                let message = "the container ended while no agent ran";
                inner.lost(&entry, message).await;
            }
        }
    }
    let shims = inner.shims.lock().clone();
    for (id, shim) in shims {
        inner.keep(&id, shim);
    }
    for id in died {
        let message = "the Pod's shim ended while no agent ran";
        inner.shim_ended(&id, message).await;
    }
    Ok(())
}
