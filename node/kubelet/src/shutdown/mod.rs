//! Pods are given time when the machine shuts down (KEP-2000, graceful node shutdown).
//!
//! [`logind`] is asked to delay a shutdown for as long as the policy says, and tells when one is about
//! to be. Then the node says that it is not ready and takes no more Pods, and those that run end, group
//! by group as [`plan`] has them; when all have ended, or their time is over, the machine goes on. Where
//! no policy is given nothing of this happens, and nobody is asked.
//!
//! Deliberately absent: machines without logind, which tell nobody beforehand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::events::Severity;
use crate::node_context::NodeContext;
use crate::pod;
use crate::status::Verdict;
use crate::worker::Workers;
use logind::{Error, Logind};
use plan::Candidate;

mod logind;
pub(crate) mod message;
mod plan;

pub use plan::ShutdownPolicy;

/// First and longest wait before a bus that broke off is tried again.
const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long logind may take to read its configuration.
const RELOAD: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);
/// How long statuses are waited for that nobody waited for before.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The file in which logind is told how long a shutdown may be delayed.
const OVERRIDE: &str = "99-coracle.conf";
/// A line of it begins with this that ends with the folder of the node which has written it.
const OWNER: &str = "# Pods are given time to end that are in ";

/// Where the machine's logind is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogindPlaces {
    /// The socket of the system bus.
    pub bus: PathBuf,
    /// The folder of configuration that is added to its own, `/etc/systemd/logind.conf.d`.
    pub configuration: PathBuf,
}

impl LogindPlaces {
    /// Where they are on this machine.
    pub fn of_machine() -> Self {
        let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
        Self {
            bus: logind::bus_of(&address),
            configuration: "/etc/systemd/logind.conf.d".into(),
        }
    }
}

/// Takes back what logind was told on this machine for Pods in a folder; true if there was anything. What
/// another node has told it stays as long as that one's folder is there. logind goes by it until it reads
/// its configuration again.
///
/// # Errors
/// The file is there and cannot be read or removed.
pub fn forget_shutdown(places: &LogindPlaces, root: &Path) -> std::io::Result<bool> {
    let file = places.configuration.join(OVERRIDE);
    let text = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        read => read?,
    };
    let mut owners = text.lines().filter_map(|line| line.strip_prefix(OWNER));
    if owners.any(|owner| Path::new(owner) != root && Path::new(owner).exists()) {
        return Ok(false);
    }
    std::fs::remove_file(file)?;
    Ok(true)
}

/// Looks after shutdowns of the machine.
pub(crate) struct Shutdown {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) workers: Workers,
    pub(crate) policy: ShutdownPolicy,
    pub(crate) places: LogindPlaces,
}

impl Shutdown {
    /// Follows logind until cancelled, if there is a policy.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let Some(total) = self.policy.total() else {
            return;
        };
        let work = async {
            let mut wait = RECONNECT.0;
            loop {
                let Err(error) = self.follow(total, &mut wait).await;
                tracing::warn!(%error, "shutdowns of the machine are not delayed for Pods");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RECONNECT.1);
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    }

    async fn follow(
        &self,
        total: Duration,
        wait: &mut Duration,
    ) -> Result<std::convert::Infallible, Error> {
        let mut logind = Logind::connect(&self.places.bus).await?;
        self.allow(&mut logind, total).await?;
        let mut delay = Some(logind.inhibit().await?);
        *wait = RECONNECT.0;
        loop {
            let begins = logind.shutdown().await?;
            let name = &self.node.node_name;
            let what = if begins { "event" } else { "cancellation" };
            let text = format!("Shutdown manager detected shutdown {what}");
            let recorder = &self.node.recorder;
            recorder.node(name, Severity::Normal, "NodeShutdown", text);
            self.node.shutting_down.send_replace(begins);
            if begins {
                self.end_pods().await;
                delay = None;
            } else if delay.is_none() {
                delay = Some(logind.inhibit().await?);
            }
        }
    }

    /// Has logind allow as long a delay as Pods may take, if it may be told.
    async fn allow(&self, logind: &mut Logind, total: Duration) -> Result<(), Error> {
        if logind.longest_delay().await? >= total {
            return Ok(());
        }
        let folder = &self.places.configuration;
        let text = format!(
            "{OWNER}{}\n[Login]\nInhibitDelayMaxSec={}\n",
            self.node.root.display(),
            total.as_secs_f64().ceil()
        );
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(folder.join(OVERRIDE), text));
        if let Err(error) = written {
            tracing::warn!(%error, folder = %folder.display(), "cannot tell logind how long Pods take");
        } else {
            logind.reload().await?;
            let deadline = tokio::time::Instant::now() + RELOAD;
            while tokio::time::Instant::now() < deadline {
                if logind.longest_delay().await? >= total {
                    return Ok(());
                }
                // It tells nobody when it is done.
                tokio::time::sleep(LOOK).await;
            }
        }
        let allowed = logind.longest_delay().await?;
        tracing::warn!(?allowed, wanted = ?total, "a shutdown is delayed for less than Pods may take");
        Ok(())
    }

    /// Ends all Pods, each group within its time.
    async fn end_pods(&self) {
        let mut pods = self.workers.pods();
        pods.retain(|pod| !pod::is_terminal(pod));
        let candidates = pods.iter().map(|pod| candidate(pod)).collect();
        for group in plan::groups(&self.policy, candidates) {
            for (uid, grace) in &group.pods {
                self.workers.end_within(uid, terminated(), *grace);
            }
            let ends = group.pods.iter().map(|(uid, _)| self.workers.over(uid));
            if tokio::time::timeout(group.within, join_all(ends))
                .await
                .is_err()
            {
                tracing::warn!("some Pods did not end in time, and the machine shuts down");
            }
        }
        let told = pods
            .iter()
            .map(|pod| self.node.publisher.settled(pod::uid(pod)));
        let _ = tokio::time::timeout(LAST_WORDS, join_all(told)).await;
    }
}

fn candidate(pod: &Pod) -> Candidate {
    Candidate {
        uid: pod::uid(pod).to_owned(),
        priority: pod::spec(pod).priority.unwrap_or(0),
        grace: pod::grace(pod),
    }
}

/// Why Pods end that run.
pub(crate) fn terminated() -> Verdict {
    Verdict {
        reason: "Terminated".to_owned(),
        message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
        disrupted: true,
    }
}

/// Refuses a Pod while the machine shuts down.
pub(crate) fn admit(shutting_down: bool) -> Result<(), Verdict> {
    match shutting_down {
        false => Ok(()),
        true => Err(Verdict {
            reason: "NodeShutdown".to_owned(),
            message: "Pod was rejected as the node is shutting down.".to_owned(),
            disrupted: false,
        }),
    }
}
