//! What changes at the runtime without being asked for, and what is to be done now and then.
//!
//! All sandboxes and containers are listed every second while there are any, and at once when a verb
//! was called, and compared with what was there before: so an end is seen, whoever caused it. Logs that have grown
//! are put aside, which the CRI leaves to its caller.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_runtime::{ContainerId, LogLimits, Result, RuntimeEvent, SandboxId, log};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inner, broken};
use crate::plan::{self, Kept};
use crate::wire::{self, REOPEN_CONTAINER_LOG, container_state};

/// How often all is listed (the kubelet's generic PLEG).
const PERIOD: Duration = Duration::from_secs(1);
/// How often logs are looked at (the kubelet's `containerLogMonitorInterval`).
const LOGS: Duration = Duration::from_secs(10);

/// What was there.
#[derive(Default)]
struct Seen {
    /// States, and UIDs of Pods.
    sandboxes: HashMap<String, (i32, String)>,
    containers: HashMap<String, (i32, String)>,
}

impl Seen {
    /// Whether nothing can change but by a verb.
    fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

/// Watches until the runtime is let go of; `look` asks for a look at once.
pub(super) async fn run(inner: Weak<Inner>, look: Arc<Notify>, detached: CancellationToken) {
    let mut seen = Seen::default();
    let mut logs = Instant::now() + LOGS;
    let mut failed = false;
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let listed =
            async { Result::Ok((inner.sandboxes(None).await?, inner.listed(None).await?)) };
        let Some(listed) = detached.run_until_cancelled(listed).await else {
            return;
        };
        match listed {
            Ok((sandboxes, containers)) => {
                failed = false;
                let now = Seen {
                    sandboxes: sandboxes
                        .into_iter()
                        .map(|of| (of.id.0, (of.state as i32, of.config.pod.uid)))
                        .collect(),
                    containers: containers.iter().map(state).collect(),
                };
                for event in changes(&seen, &now) {
                    // Nobody may be listening.
                    let _ = inner.events.send(event);
                }
                seen = now;
                if Instant::now() >= logs {
                    logs = Instant::now() + LOGS;
                    detached
                        .run_until_cancelled(inner.put_logs_aside(&containers))
                        .await;
                }
            }
            Err(error) if !failed => {
                tracing::warn!(%error, "the container runtime does not answer");
                failed = true;
            }
            Err(_) => {}
        }
        drop(inner);
        tokio::select! {
            () = detached.cancelled() => return,
            () = look.notified() => {}
            () = tokio::time::sleep(PERIOD), if failed || !seen.is_empty() => {}
        }
    }
}

/// Whose a container is, and its state.
fn state(of: &wire::Container) -> (String, (i32, String)) {
    let uid = kept(of).map(|kept| kept.pod.uid).unwrap_or_default();
    (of.id.clone(), (of.state, uid))
}

fn kept(of: &wire::Container) -> Option<Kept> {
    serde_json::from_str(of.annotations.get(plan::CONFIG)?).ok()
}

/// What is to be told of a change.
fn changes(before: &Seen, now: &Seen) -> Vec<RuntimeEvent> {
    let containers = differing(&before.containers, &now.containers);
    let sandboxes = differing(&before.sandboxes, &now.sandboxes);
    let containers = containers.map(|(id, pod_uid)| RuntimeEvent::Container {
        pod_uid,
        id: ContainerId(id),
    });
    let sandboxes = sandboxes.map(|(id, pod_uid)| RuntimeEvent::Sandbox {
        pod_uid,
        id: SandboxId(id),
    });
    containers.chain(sandboxes).collect()
}

/// What is new, gone, or in another state: its ID, and the Pod's.
fn differing<'a>(
    before: &'a HashMap<String, (i32, String)>,
    now: &'a HashMap<String, (i32, String)>,
) -> impl Iterator<Item = (String, String)> + 'a {
    let changed = now.iter().filter(|(id, of)| before.get(*id) != Some(*of));
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    changed
        .chain(gone)
        .map(|(id, (_, uid))| (id.clone(), uid.clone()))
}

impl Inner {
    /// Puts logs aside that are as long as they may be.
    async fn put_logs_aside(&self, containers: &[wire::Container]) {
        let running = containers
            .iter()
            .filter(|of| of.state == container_state::RUNNING);
        for (id, kept) in running.filter_map(|of| Some((&of.id, kept(of)?))) {
            if let Err(error) = self.put_log_aside(id, kept).await {
                tracing::warn!(%error, container = id, "a log is not put aside");
            }
        }
    }

    async fn put_log_aside(&self, id: &str, kept: Kept) -> Result<()> {
        let limits = kept.limits();
        let rotated =
            tokio::task::spawn_blocking(move || put_aside_if_long(&kept.log, limits)).await;
        let rotated = rotated.map_err(std::io::Error::other).flatten();
        let failed = |error| coracle_runtime::Error::io("putting a log aside", error);
        if rotated.map_err(failed)? {
            let request = wire::ContainerId {
                container_id: id.to_owned(),
            };
            let reopened = self.client.call(REOPEN_CONTAINER_LOG, &request).await;
            reopened.map_err(|status| broken("opening a log again", status))?;
        }
        Ok(())
    }
}

/// Puts a log aside that is as long as it may be; whether it is to be opened again. So is one that is
/// not there: the runtime writes to what was put aside, since it was not told, or did not hear.
fn put_aside_if_long(path: &Path, limits: LogLimits) -> std::io::Result<bool> {
    let length = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        metadata => metadata?.len(),
    };
    if length < limits.max_bytes {
        return Ok(false);
    }
    log::rotate(path, limits.max_files).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_gone_or_changed_is_told() {
        let seen = |containers: &[(&str, i32)]| Seen {
            containers: containers
                .iter()
                .map(|(id, state)| ((*id).to_owned(), (*state, format!("uid-{id}"))))
                .collect(),
            ..Seen::default()
        };
        let told = |before: &[(&str, i32)], now: &[(&str, i32)]| {
            let mut ids: Vec<String> = changes(&seen(before), &seen(now))
                .into_iter()
                .map(|event| match event {
                    RuntimeEvent::Container { pod_uid, id } => format!("{} {pod_uid}", id.0),
                    other => panic!("{other:?}"),
                })
                .collect();
            ids.sort();
            ids
        };
        assert!(told(&[("a", 1)], &[("a", 1)]).is_empty());
        let changed = told(&[("a", 1), ("b", 1)], &[("a", 2), ("c", 0)]);
        assert_eq!(changed, ["a uid-a", "b uid-b", "c uid-c"]);
    }

    #[test]
    fn a_log_that_the_runtime_does_not_know_of_is_opened_again() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("0.log");
        let limits = LogLimits {
            max_bytes: 4,
            max_files: 2,
        };
        let put_aside = || put_aside_if_long(&path, limits);
        // As it is where the runtime did not hear that the last one was put aside.
        assert!(put_aside()?);
        std::fs::write(&path, "abc")?;
        assert!(!put_aside()?);
        std::fs::write(&path, "abcd")?;
        assert!(put_aside()? && !path.exists());
        let kept = std::fs::read_dir(folder.path())?.count();
        assert_eq!(kept, 1);
        Ok(())
    }
}
