//! Taking over what an earlier agent left running. What a reboot of the machine has ended is not taken
//! over: no container is made any more in a sandbox of before, so that Pods begin with their init
//! containers again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::ContainerId;
use coracle_runtime::disk;
use coracle_runtime::ledger::ContainerRecord;

use super::Inner;
use super::folders::{self, Folders, Started};
use super::home::Home;
use super::hosts::Ears;
use super::process::{Found, Process};
use crate::protocol::{Kind, Request, Response};

/// Reads all records and connects to all processes that live.
pub(super) async fn all(inner: &Arc<Inner>) -> io::Result<()> {
    let hosts = hosts(inner).await?;
    let records = inner.ledger.recorded()?;
    let adopted = records
        .into_iter()
        .map(|record| container(inner, record, &hosts));
    for result in futures::future::join_all(adopted).await {
        result?;
    }
    end_strangers(inner, &hosts.served).await;
    match std::fs::read_to_string(BOOT_ID) {
        Ok(boot) => close_older(inner, boot.trim()),
        // A kernel that does not say it has not said it before.
        Err(_) => Ok(()),
    }
}

/// Where the kernel says which boot of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Closes the sandboxes that were made before the machine was booted.
fn close_older(inner: &Inner, boot: &str) -> io::Result<()> {
    let record = inner.config.state_dir.join("boot");
    if is_other(&record, boot) {
        for sandbox in inner.ledger.sandboxes() {
            let closed = inner.ledger.close_sandbox(&sandbox.id);
            closed.map_err(|error| io::Error::other(error.to_string()))?;
        }
    }
    // When all are closed: who ends before that does it once more.
    disk::write_json_durably(&record, &boot)
}

/// Whether the record is that of another boot. What cannot be read tells of none.
fn is_other(record: &Path, boot: &str) -> bool {
    let known = disk::read_json::<String>(record).ok().flatten();
    known.is_some_and(|known| known != boot)
}

/// What was found of the hosts of an earlier agent.
#[derive(Default)]
struct Hosts {
    served: Vec<Served>,
    /// Why hosts were not adopted though they lived.
    misplaced: HashMap<Home, String>,
}

/// A host that was adopted, and whom it serves.
struct Served {
    host: Arc<Process>,
    guests: HashSet<ContainerId>,
}

async fn hosts(inner: &Arc<Inner>) -> io::Result<Hosts> {
    let mut hosts = Hosts::default();
    for name in inner.folders.hosts()? {
        let folder = inner.folders.host(&name);
        let Some(home) = Home::of_folder(&name, |id| inner.ledger.sandbox(id).ok()) else {
            // Its sandbox was being removed.
            Process::end(&folder).await?;
            disk::remove_dir(&folder)?;
            continue;
        };
        let ears = Arc::new(Ears(Arc::downgrade(inner)));
        let user = inner.user(&home.namespace)?;
        let host = match Process::adopt(&inner.placement, &folder, user, &home, ears).await? {
            Found::Adopted(host) => host,
            found => {
                disk::remove_dir(&folder)?;
                if let Found::Misplaced(reason) = found {
                    hosts.misplaced.insert(home, reason);
                }
                continue;
            }
        };
        inner.adopt_host(&home, host.clone()).await;
        let guests = guests(&host).await;
        hosts.served.push(Served { host, guests });
    }
    Ok(hosts)
}

async fn guests(process: &Process) -> HashSet<ContainerId> {
    match process.request(Request::Guests).await {
        Ok(Response::Guests(guests)) => guests.into_iter().collect(),
        // It is gone again: whoever watches it hears of that.
        _ => HashSet::new(),
    }
}

async fn container(inner: &Arc<Inner>, record: ContainerRecord, hosts: &Hosts) -> io::Result<()> {
    let id = record.id.clone();
    let records = inner.ledger.records();
    let exit = folders::exit(records, &id)?;
    let started = records.started::<Started>(&id)?;
    let entry = inner
        .ledger
        .adopt(record, started.map(|started| started.at), exit);
    let running = entry.is_running();
    let Some(started) = started.filter(|_| running) else {
        return Ok(());
    };
    let home = match inner.ledger.sandbox(&entry.record.sandbox) {
        Ok(sandbox) => Home::of(&sandbox),
        Err(_) => Home::shared(&entry.record.pod.namespace),
    };
    let found = match started.kind {
        Kind::Http => hosts.of(&id, &home),
        Kind::Core | Kind::Command => runner(inner, &id, &home).await?,
    };
    match found {
        Found::Adopted(process) => {
            entry.set_process(Some(process.clone()));
            if started.kind != Kind::Http {
                inner.watch_runner(entry, process);
            }
        }
        found => {
            let message = match found {
                Found::Misplaced(reason) => format!("the guest could not go on: {reason}"),
                _ => "the guest's process ended while no agent ran".into(),
            };
            let exit = inner.exit_after(&entry, message);
            inner.ledger.exited(&entry, exit);
        }
    }
    Ok(())
}

impl Hosts {
    /// The host that serves a container.
    fn of(&self, id: &ContainerId, home: &Home) -> Found {
        if let Some(served) = self.served.iter().find(|host| host.guests.contains(id)) {
            return Found::Adopted(served.host.clone());
        }
        match self.misplaced.get(home) {
            Some(reason) => Found::Misplaced(reason.clone()),
            None => Found::Gone,
        }
    }
}

async fn runner(inner: &Arc<Inner>, id: &ContainerId, home: &Home) -> io::Result<Found> {
    let ears = Arc::new(Ears(Arc::downgrade(inner)));
    let folder = Folders::runner(inner.ledger.records(), id);
    let user = inner.user(&home.namespace)?;
    let found = Process::adopt(&inner.placement, &folder, user, home, ears).await?;
    if let Found::Adopted(process) = &found
        && !guests(process).await.contains(id)
    {
        // It was started and never told what to run.
        process.kill();
        return Ok(Found::Gone);
    }
    Ok(found)
}

/// Guests that no record names any more were being removed when the earlier agent ended.
async fn end_strangers(inner: &Inner, served: &[Served]) {
    for served in served {
        for container in &served.guests {
            if inner.ledger.entry(container).is_err() {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn another_boot_is_one_that_was_recorded_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("boot");
        assert!(!is_other(&record, "a"), "nothing is known");
        disk::write_json_durably(&record, &"a").unwrap();
        assert!(!is_other(&record, "a"));
        assert!(is_other(&record, "b"));
        std::fs::write(&record, "{").unwrap();
        assert!(!is_other(&record, "a"), "nothing can be read");
    }
}
