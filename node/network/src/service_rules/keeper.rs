//! Keeps the kernel's table what the rules say.
//!
//! ```text
//! rules ──► watch (the last ones count) ──► task: plan, then bring, off the async threads
//!                                             │ done: look again after a while, for somebody may
//!                                             │       have flushed the table, or have left
//!                                             └ failed: say so, and try again
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kernel::{Holder, Kernel};
use super::plan::{Frame, plan};
use crate::aliases::Alias;
use crate::host_ports::Published;
use crate::rules::Rules;

/// How often it is looked whether the table is still there.
const CHECK: Duration = Duration::from_secs(15);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(3);

/// What the table is made of.
#[derive(PartialEq)]
struct Wanted {
    rules: Rules,
    host_ports: Vec<Published>,
}

/// The table of a node, kept by a task.
pub(crate) struct ServiceRules {
    wanted: watch::Sender<Option<Arc<Wanted>>>,
    task: JoinHandle<()>,
}

impl ServiceRules {
    /// Leaves the kernel as it is until there are rules. `aliases` are sockets of the node as Pods
    /// reach them.
    pub(crate) fn start(frame: Frame, aliases: Vec<Alias>) -> Self {
        let (wanted, receiver) = watch::channel(None);
        let task = tokio::spawn(keep(frame, aliases, receiver));
        Self { wanted, task }
    }

    /// Makes these the rules, and these the ports of the machine that lead to Pods.
    pub(crate) fn set(&self, rules: Rules, host_ports: Vec<Published>) {
        let wanted = Wanted { rules, host_ports };
        self.wanted.send_if_modified(|current| {
            if current.as_deref() == Some(&wanted) {
                return false;
            }
            *current = Some(Arc::new(wanted));
            true
        });
    }

    /// Ends the task, and leaves the table to the next agent.
    pub(crate) async fn close(self) {
        drop(self.wanted);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "Services were not kept for containers and the machine");
        }
    }
}

async fn keep(frame: Frame, aliases: Vec<Alias>, mut wanted: watch::Receiver<Option<Arc<Wanted>>>) {
    let aliases: Arc<[Alias]> = aliases.into();
    let mut kernel = Kernel::default();
    let mut log = Log::default();
    loop {
        let now = wanted.borrow_and_update().clone();
        let mut again = CHECK;
        if let Some(now) = now {
            let (frame, aliases) = (frame.clone(), aliases.clone());
            let bringing = tokio::task::spawn_blocking(move || {
                let brought = kernel.bring(plan(&now.rules, &now.host_ports, &aliases, &frame));
                (kernel, brought.map_err(|error| error.to_string()))
            });
            let brought;
            (kernel, brought) = match bringing.await {
                Ok(done) => done,
                Err(error) => (Kernel::default(), Err(error.to_string())),
            };
            if brought.is_err() {
                again = RETRY;
            }
            log.say(brought.err(), kernel.holder());
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// Says what is new, and not each time.
#[derive(Default)]
struct Log {
    failure: Option<String>,
    holder: Option<Holder>,
}

impl Log {
    fn say(&mut self, failure: Option<String>, holder: Option<&Holder>) {
        if self.failure != failure {
            match &failure {
                Some(error) => {
                    tracing::error!(%error, "containers and the machine may not reach Services as they are now; it is tried again every {RETRY:?}");
                }
                None => tracing::info!("containers and the machine reach Services again"),
            }
            self.failure = failure;
        }
        if self.holder.as_ref() != holder {
            match holder {
                Some(Holder::Node(node)) => {
                    let folder = node.folder.as_deref().unwrap_or("?".as_ref());
                    tracing::info!(
                        cluster = node.cluster, range = %node.range, folder = %folder.display(),
                        "another node on this machine was first: the machine's own calls to Services go to its cluster, those of Pods to theirs; clusters with ranges that do not overlap (--service-cidr) are both reached"
                    );
                }
                Some(Holder::Route(route)) => tracing::warn!(
                    route,
                    "the machine has a network at the addresses of Services, which Pods reach and the machine does not: choose another range for Services with --service-cidr"
                ),
                None => {}
            }
            self.holder = holder.cloned();
        }
    }
}
