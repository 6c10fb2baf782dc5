//! What a worker remembers of its Pod between two looks at it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::containers::actions::{self, Failure};
use crate::containers::allocation::Allocation;
use crate::containers::back_off::BackOff;
use crate::containers::lost::{self, Lost};
use crate::containers::observed::PodRuntime;
use crate::containers::start::{Prepared, StartError};
use crate::followed::Following;
use crate::pod;
use crate::volumes::tokens::Tokens;
use crate::worker::resize::Unfinished;

/// How long the cause of a failed pull is shown before it is called a back-off.
const SETTLE: Duration = Duration::from_secs(2);
/// When a container whose configuration could not be made is tried again.
const CONFIG_RETRY: Duration = Duration::from_secs(5);

type Shown = Option<BTreeMap<String, String>>;

/// What of a Pod its volumes may show: labels, annotations, and with the generation its resources.
pub(crate) type ShownOf = (Shown, Shown, Option<i64>);

/// Nothing of it is written down but what was allocated: after a restart of the agent it is made
/// anew from the API and the runtimes.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) admitted: bool,
    /// What its containers have and are to have; none until the first look at it.
    pub(crate) allocation: Option<Allocation>,
    /// Why they do not have what the spec wants.
    pub(crate) resize: Unfinished,
    /// Something was allocated of which it was not told yet that they have it.
    pub(crate) resizing: bool,
    pub(crate) prepared: Option<Prepared>,
    /// Volumes are set up.
    pub(crate) volumes: bool,
    /// When they were made or found to be up to date, and of what.
    pub(crate) volumes_made: Option<(SystemTime, ShownOf)>,
    /// The state of what else they were made of ([`Sources::fingerprint`]).
    ///
    /// [`Sources::fingerprint`]: crate::pod::env::Sources::fingerprint
    pub(crate) volume_sources: Option<u64>,
    /// The objects that they are made of.
    pub(crate) following: Following,
    /// Tokens in the volumes.
    pub(crate) tokens: Tokens,
    /// How often in a row the volumes could not be made.
    pub(crate) volume_failures: u32,
    /// Volumes that should be in memory and are not, of which an event was written.
    pub(crate) on_disk: BTreeSet<String>,
    pub(crate) back_off: BackOff,
    pub(crate) failures: BTreeMap<String, Failure>,
    /// Containers that have begun, as the API or a runtime knew them last. They are read of those that
    /// no runtime has any more.
    pub(crate) lost: BTreeMap<String, Lost>,
    /// IDs of containers that were killed to be started again, for as long as a runtime has them.
    pub(crate) killed: BTreeSet<String>,
    /// Termination messages by container ID.
    pub(crate) messages: BTreeMap<String, String>,
    /// Back-offs of which an event was written, by container and attempt.
    pub(crate) announced: BTreeSet<(String, u32)>,
    /// The status that was made last.
    pub(crate) status: Option<PodStatus>,
}

impl Memory {
    /// What can be known of a Pod that was here before this agent.
    pub(crate) fn of(pod: &Pod, runtime: &PodRuntime) -> Self {
        Self {
            lost: lost::reported(pod, runtime),
            ..Self::default()
        }
    }

    /// Has all containers begin again, and those wait longer before that with which they do.
    pub(crate) fn begin_anew(&mut self, pod: &Pod, runtime: &PodRuntime, now: SystemTime) {
        for (container, _) in pod::containers(pod) {
            let latest = runtime.latest(&container.name);
            if let Some(exit) = latest.and_then(|of| actions::says_anew(pod, of)) {
                self.back_off.next(&container.name, exit.finished_at, now);
            }
        }
        for lost in self.lost.values_mut() {
            lost.code = None;
        }
    }

    /// The Pod with what is allocated to it.
    pub(crate) fn allocated<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        match &self.allocation {
            Some(allocation) => allocation.apply(pod),
            None => Cow::Borrowed(pod),
        }
    }

    /// Whether the spec wants other resources than are allocated.
    pub(crate) fn is_to_resize(&self, pod: &Pod) -> bool {
        let allocation = self.allocation.as_ref();
        allocation.is_some_and(|allocation| allocation.differs(pod))
    }

    /// Notes that a start failed, and when it is tried again.
    pub(crate) fn failed(&mut self, container: &str, error: StartError, now: SystemTime) {
        let failure = match error {
            StartError::Image { reason, message } => {
                let key = image_key(container);
                self.back_off.next(&key, now, now);
                let until = self.back_off.until(&key, now);
                let backs_off = matches!(reason, "ErrImagePull" | "RegistryUnavailable");
                Failure {
                    reason,
                    message,
                    retry_at: until.map_or(now, |(_, until)| until),
                    settle_at: backs_off.then_some(now + SETTLE),
                }
            }
            StartError::Config(message) => Failure {
                reason: "CreateContainerConfigError",
                message,
                retry_at: now + CONFIG_RETRY,
                settle_at: None,
            },
            StartError::Hook(message) => {
                self.started(container);
                Failure {
                    reason: Failure::HOOK,
                    message,
                    retry_at: now,
                    settle_at: None,
                }
            }
            StartError::Runtime { reason, message } => {
                self.back_off.next(container, now, now);
                let until = self.back_off.until(container, now);
                Failure {
                    reason,
                    message,
                    retry_at: until.map_or(now, |(_, until)| until),
                    settle_at: None,
                }
            }
        };
        self.failures.insert(container.to_owned(), failure);
    }

    /// Notes that a container was started after its predecessor had ended at `failed`.
    pub(crate) fn started(&mut self, container: &str) {
        if let Some(allocation) = &mut self.allocation {
            allocation.actuate(container);
        }
        self.failures.remove(container);
        self.back_off.forget(&image_key(container));
    }

    /// Calls failed pulls a back-off once their cause was seen; the names of those containers.
    pub(crate) fn settle(
        &mut self,
        now: SystemTime,
        image: impl Fn(&str) -> String,
    ) -> Vec<String> {
        let mut settled = Vec::new();
        for (name, failure) in &mut self.failures {
            if failure.settle_at.is_some_and(|at| at <= now) {
                failure.settle_at = None;
                let image = image(name);
                let cause = std::mem::take(&mut failure.message);
                let reason = std::mem::replace(&mut failure.reason, "ImagePullBackOff");
                failure.message = format!("Back-off pulling image \"{image}\": {reason}: {cause}");
                settled.push(name.clone());
            }
        }
        settled
    }

    /// When the next failed pull is to be called a back-off.
    pub(crate) fn settles_at(&self) -> Option<SystemTime> {
        self.failures
            .values()
            .filter_map(|failure| failure.settle_at)
            .min()
    }
}

fn image_key(container: &str) -> String {
    format!("image/{container}")
}
