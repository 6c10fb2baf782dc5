//! Taking over what an earlier agent left running.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, ContainerState};

use super::hosts::Ears;
use super::process::Process;
use super::records::ContainerRecord;
use super::{Entry, Inner};
use crate::disk;
use crate::protocol::{Kind, Request, Response};

/// Reads all records and connects to all processes that live.
pub(super) async fn all(inner: &Arc<Inner>) -> io::Result<()> {
    for sandbox in inner.records.sandboxes()? {
        inner.sandboxes.lock().insert(sandbox.id.clone(), sandbox);
    }
    let served = hosts(inner).await?;
    let records = inner.records.containers()?;
    let adopted = records
        .into_iter()
        .map(|record| container(inner, record, &served));
    for result in futures::future::join_all(adopted).await {
        result?;
    }
    end_strangers(inner, &served).await;
    Ok(())
}

/// A host that was adopted, and whom it serves.
struct Served {
    host: Arc<Process>,
    guests: HashSet<ContainerId>,
}

async fn hosts(inner: &Arc<Inner>) -> io::Result<Vec<Served>> {
    let mut served = Vec::new();
    for namespace in inner.records.hosts()? {
        let folder = inner.records.host_folder(&namespace);
        let ears = Arc::new(Ears(Arc::downgrade(inner)));
        let Some(host) = Process::adopt(&folder, ears).await? else {
            disk::remove_dir(&folder)?;
            continue;
        };
        inner.adopt_host(&namespace, host.clone()).await;
        let guests = guests(&host).await;
        served.push(Served { host, guests });
    }
    Ok(served)
}

async fn guests(process: &Process) -> HashSet<ContainerId> {
    match process.request(Request::Guests).await {
        Ok(Response::Guests(guests)) => guests.into_iter().collect(),
        // It is gone again: whoever watches it hears of that.
        _ => HashSet::new(),
    }
}

async fn container(
    inner: &Arc<Inner>,
    record: ContainerRecord,
    served: &[Served],
) -> io::Result<()> {
    let id = record.id.clone();
    let exit = inner.records.exit(&id)?;
    let started = inner.records.started(&id)?;
    let state = match (exit, started) {
        (Some(exit), _) => ContainerState::Exited(exit),
        (None, None) => ContainerState::Created,
        (None, Some(started)) => ContainerState::Running {
            started_at: started.at,
        },
    };
    let running = matches!(state, ContainerState::Running { .. });
    let entry = Arc::new(Entry::new(record, state));
    inner.containers.lock().insert(id.clone(), entry.clone());
    let Some(started) = started.filter(|_| running) else {
        return Ok(());
    };
    let process = match started.kind {
        Kind::Http => served
            .iter()
            .find(|served| served.guests.contains(&id))
            .map(|served| served.host.clone()),
        Kind::Core | Kind::Command => runner(inner, &id).await?,
    };
    match process {
        Some(process) => {
            entry.set_process(Some(process.clone()));
            if started.kind != Kind::Http {
                inner.watch_runner(entry, process);
            }
        }
        None => {
            let message = "the guest's process ended while no agent ran";
            let exit = inner.exit_after(&entry, message.into());
            inner.exited(&entry, exit);
        }
    }
    Ok(())
}

async fn runner(inner: &Arc<Inner>, id: &ContainerId) -> io::Result<Option<Arc<Process>>> {
    let ears = Arc::new(Ears(Arc::downgrade(inner)));
    let Some(process) = Process::adopt(&inner.records.runner_folder(id), ears).await? else {
        return Ok(None);
    };
    if guests(&process).await.contains(id) {
        return Ok(Some(process));
    }
    // It was started and never told what to run.
    process.kill();
    Ok(None)
}

/// Guests that no record names any more were being removed when the earlier agent ended.
async fn end_strangers(inner: &Inner, served: &[Served]) {
    for served in served {
        for container in &served.guests {
            if inner.entry(container).is_err() {
                let stop = Request::Stop {
                    container: container.clone(),
                    grace: Duration::ZERO,
                };
                if let Err(error) = served.host.request(stop).await {
                    tracing::warn!(container = container.0, %error, "ending a stray guest");
                }
            }
        }
    }
}
