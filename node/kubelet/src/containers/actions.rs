//! The difference between what should run and what runs.
//!
//! [`pod_actions`] is a pure function; nothing else decides which container of a Pod is
//! started, killed or removed while the Pod lives. The order of init containers and sidecars
//! is that of the Pod lifecycle page of Kubernetes and KEP-753.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use coracle_runtime::{ContainerId, ContainerState, Exit, SandboxId, SandboxState};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::allocation::Allocation;
use super::back_off::BackOff;
use super::lost::{Lost, is_reborn};
use super::observed::{ObservedContainer, ObservedSandbox, PodRuntime};
use crate::pod::{self, RestartPolicy, Role};
use crate::probes::ProbeView;

/// What is known of a Pod beside its runtimes.
pub(crate) struct Observed<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) runtime: &'a PodRuntime,
    /// Results of probes by container.
    pub(crate) probes: &'a dyn ProbeView,
    pub(crate) back_off: &'a BackOff,
    /// Starts that failed, by container, and when they may be tried again.
    pub(crate) failures: &'a BTreeMap<String, Failure>,
    /// Containers that have begun, which count where no runtime knows one any more.
    pub(crate) lost: &'a BTreeMap<String, Lost>,
    /// Containers that were killed to be started again ([`Kill::restarts`]).
    pub(crate) killed: &'a BTreeSet<String>,
    /// What its containers have and are to have.
    pub(crate) allocation: Option<&'a Allocation>,
    /// The Pod is not being ended.
    pub(crate) lives: bool,
    pub(crate) now: SystemTime,
}

/// A start that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The reason of the waiting state, `ErrImagePull` and so on.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) retry_at: SystemTime,
    /// When a failed pull is called a back-off: its cause is to be seen for a moment.
    pub(crate) settle_at: Option<SystemTime>,
}

impl Failure {
    /// The reason of one whose hook has failed.
    pub(crate) const HOOK: &'static str = "PostStartHookError";

    /// The container was started, and has ended: it is that end after which it waits.
    pub(crate) fn has_started(&self) -> bool {
        self.reason == Self::HOOK
    }
}

/// A container to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// When the container before it ended, if this is a restart.
    pub(crate) after_failure: Option<SystemTime>,
}

/// Why a container is killed while its Pod lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillCause {
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// Its definition changed.
    Changed,
    /// It gets the resources that are allocated to it by a restart.
    Resized,
    /// Another has ended with which all begin anew.
    Anew,
}

/// A container to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) cause: KillCause,
    /// It is started again, with whatever code it ends.
    pub(crate) restarts: bool,
}

/// A container that waits for its back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) delay: Duration,
    pub(crate) until: SystemTime,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    pub(crate) remove_sandboxes: Vec<SandboxId>,
    pub(crate) kill: Vec<Kill>,
    pub(crate) start: Vec<Start>,
    /// Containers that are no longer needed: older than the previous one, or never started.
    pub(crate) remove: Vec<ContainerId>,
    pub(crate) crash_loop: BTreeMap<String, Waiting>,
    /// Containers whose start failed and is not yet tried again.
    pub(crate) held: BTreeMap<String, SystemTime>,
    /// When to look again even if nothing happens.
    pub(crate) wake_at: Option<SystemTime>,
    /// All containers have ended but sidecars, and those that debug, and none will be started again:
    /// the Pod ends, and what still runs with it.
    pub(crate) finished: bool,
    /// All init containers are through.
    pub(crate) initialized: bool,
    /// All containers are forgotten, for the Pod begins anew.
    pub(crate) anew: bool,
    /// What has ended in a sandbox that has died, or is lost, counts no more ([`is_reborn`]): init
    /// containers that were through run again.
    pub(crate) reborn: bool,
}

/// What becomes of one container.
enum Next {
    /// Its state is what it should be.
    Runs,
    Ended {
        code: i32,
    },
    /// It is being started, or killed, or waits.
    Busy,
}

/// Compares.
pub(crate) fn pod_actions(observed: &Observed<'_>) -> Actions {
    let mut plan = Plan {
        observed,
        actions: Actions {
            reborn: is_reborn(observed),
            ..Actions::default()
        },
        done: false,
    };
    plan.sandboxes();
    if plan.begins_anew() {
        return plan.actions;
    }
    let initialized = plan.init_containers();
    plan.actions.initialized = initialized == Init::Done;
    match initialized {
        Init::Failed => plan.pod_done(),
        Init::Done => plan.app_containers(),
        Init::InProgress => {}
    }
    plan.ephemeral_containers();
    plan.remove_old();
    let crashed = plan.actions.crash_loop.values().map(|w| w.until);
    let held = plan.actions.held.values().copied();
    plan.actions.wake_at = crashed.chain(held).min();
    plan.actions
}

/// Whether a container of the Pod proper was made: its init containers were through then, whatever
/// became of them since.
pub(crate) fn has_app_container(pod: &Pod, runtime: &PodRuntime) -> bool {
    let mut apps = pod::spec(pod).containers.iter();
    apps.any(|app| runtime.latest(&app.name).is_some())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Init {
    InProgress,
    Done,
    Failed,
}

struct Plan<'a> {
    observed: &'a Observed<'a>,
    actions: Actions,
    /// Nothing starts any more.
    done: bool,
}

impl Plan<'_> {
    /// A dead sandbox goes once a live one, or nothing, is needed in its place; the ended
    /// containers in it stay readable until then.
    fn sandboxes(&mut self) {
        for of in &self.observed.runtime.sandboxes {
            let replaced = self.observed.runtime.ready_sandbox(of.runtime).is_some();
            if of.sandbox.state == SandboxState::NotReady && replaced {
                let holds_record = self.observed.runtime.containers.iter().any(|c| {
                    let name = c.name();
                    let latest = self.observed.runtime.latest(name);
                    let previous = self.observed.runtime.previous(name);
                    let keep = [latest, previous].into_iter().flatten();
                    c.container.sandbox == of.sandbox.id
                        && keep.into_iter().any(|k| k.id() == c.id())
                });
                if !holds_record {
                    self.actions.remove_sandboxes.push(of.sandbox.id.clone());
                }
            }
        }
    }

    /// Where a container has ended with which all begin anew, they are killed and forgotten, those last
    /// that say so: at once, or when its back-off is over, until which the others run.
    fn begins_anew(&mut self) -> bool {
        let (pod, runtime) = (self.observed.pod, self.observed.runtime);
        let says = |of: &ObservedContainer| says_anew(pod, of).is_some();
        let due = |of: &ObservedContainer| {
            says_anew(pod, of).is_some_and(|exit| self.waits(of.name(), exit).is_none())
        };
        let names = pod::containers(pod).map(|(container, _)| &container.name);
        let mut latest = names.filter_map(|name| runtime.latest(name));
        if !latest.any(due) {
            return false;
        }
        self.actions.anew = true;
        self.actions.initialized = has_app_container(pod, runtime);
        let own = |of: &&ObservedContainer| pod::own_container(pod, of.name()).is_some();
        for of in runtime.running().filter(own) {
            self.kill(of, KillCause::Anew, true);
        }
        if self.actions.kill.is_empty() {
            let mut all: Vec<&ObservedContainer> = runtime.containers.iter().filter(own).collect();
            all.sort_by_key(|of| says(of));
            self.actions.remove = all.into_iter().map(|of| of.id().clone()).collect();
        }
        true
    }

    fn init_containers(&mut self) -> Init {
        let mut apps = pod::spec(self.observed.pod).containers.iter();
        let passed = apps.any(|app| match self.observed.runtime.latest(&app.name) {
            Some(of) => !self.is_past(of),
            None => !self.actions.reborn && self.has_run(&app.name),
        });
        for container in pod::init_containers(self.observed.pod) {
            let role = pod::init_role(container);
            if role == Role::Init && passed {
                continue;
            }
            match (role, self.container(container, role)) {
                (Role::Init, Next::Ended { code: 0 }) => {}
                (Role::Init, Next::Ended { .. }) => return Init::Failed,
                (Role::Sidecar, Next::Runs) if self.is_started(container) => {}
                // A sidecar that is restarted holds nobody up who has passed it before.
                (Role::Sidecar, _) if passed => {}
                _ => return Init::InProgress,
            }
        }
        Init::Done
    }

    /// Whether a container was in a sandbox in whose place another comes.
    fn is_past(&self, of: &ObservedContainer) -> bool {
        self.actions.reborn && self.observed.runtime.has_lost_sandbox(of)
    }

    /// Whether a container that no runtime has has run, as far as that counts.
    fn has_run(&self, name: &str) -> bool {
        let lost = self.observed.lost.get(name);
        lost.is_some_and(|lost| lost.code.is_some())
    }

    fn is_started(&self, container: &Container) -> bool {
        let latest = self.observed.runtime.latest(&container.name);
        let has_probe = container.startup_probe.is_some();
        latest.is_some_and(|c| !has_probe || self.observed.probes.started(c.id()))
    }

    fn app_containers(&mut self) {
        let pod = self.observed.pod;
        let mut all_ended = true;
        for container in &pod::spec(pod).containers {
            let next = self.container(container, Role::App);
            all_ended &= matches!(next, Next::Ended { .. });
        }
        if all_ended && !pod::spec(pod).containers.is_empty() {
            self.pod_done();
        }
    }

    /// Nothing starts any more. Whatever runs is ended in its order, which is that of a Pod's end.
    fn pod_done(&mut self) {
        self.done = true;
        self.actions.start.clear();
        self.actions.kill.clear();
        self.actions.crash_loop.clear();
        self.actions.held.clear();
        self.actions.finished = true;
    }

    /// Those that were added to debug the Pod are started once, whatever becomes of its own
    /// containers, where there is a sandbox: none is made for their sake.
    fn ephemeral_containers(&mut self) {
        let (pod, runtime) = (self.observed.pod, self.observed.runtime);
        let ready = |of: &ObservedSandbox| of.sandbox.state == SandboxState::Ready;
        if self.done || !runtime.sandboxes.iter().any(ready) {
            return;
        }
        for container in pod::ephemeral::all(pod) {
            let name = &container.name;
            match runtime.latest(name) {
                None if pod::ephemeral::was_made(pod, name) => {}
                None => self.start(name, 0, None),
                Some(of) if of.container.state == ContainerState::Created => {
                    self.actions.remove.push(of.id().clone());
                    self.start(name, 0, None);
                }
                Some(_) => {}
            }
        }
    }

    fn container(&mut self, container: &Container, role: Role) -> Next {
        let name = &container.name;
        let Some(latest) = self.observed.runtime.latest(name) else {
            return self.unseen(container, role);
        };
        let attempt = latest.container.config.attempt;
        match &latest.container.state {
            ContainerState::Created => {
                // Its start failed, or the agent ended between the two verbs.
                self.actions.remove.push(latest.id().clone());
                self.start(name, attempt, None);
                Next::Busy
            }
            ContainerState::Running { .. } => match self.cause_to_kill(container, role, latest) {
                Some(cause) => {
                    let policy = pod::restart_policy(self.observed.pod, container, role);
                    let restarts = match cause {
                        // It is another container now.
                        KillCause::Changed => true,
                        _ => policy != RestartPolicy::Never,
                    };
                    self.kill(latest, cause, restarts);
                    Next::Busy
                }
                None => Next::Runs,
            },
            ContainerState::Exited(exit) => {
                let policy = pod::restart_policy(self.observed.pod, container, role);
                let resized = self.resizes(container);
                let again = self.observed.killed.contains(&latest.id().0)
                    || (resized && policy != RestartPolicy::Never)
                    || (role == Role::Init && self.is_past(latest));
                if !pod::restarts(self.observed.pod, container, role, exit.code) && !again {
                    return Next::Ended { code: exit.code };
                }
                if resized {
                    // It was no failure.
                    self.start(name, attempt + 1, None);
                    return Next::Busy;
                }
                match self.waits(name, exit) {
                    Some(waiting) => {
                        self.actions.crash_loop.insert(name.clone(), waiting);
                    }
                    None => self.start(name, attempt + 1, Some(exit.finished_at)),
                }
                Next::Busy
            }
        }
    }

    /// A container that no runtime has is started, unless it has run and does not run again.
    fn unseen(&mut self, container: &Container, role: Role) -> Next {
        let (pod, name) = (self.observed.pod, &container.name);
        let lost = self.observed.lost.get(name);
        let begins = role == Role::Init && self.actions.reborn;
        let code = lost.and_then(|lost| lost.code).filter(|_| !begins);
        match code.filter(|code| !pod::restarts(pod, container, role, *code)) {
            Some(code) => Next::Ended { code },
            None => {
                self.start(name, lost.map_or(0, |lost| lost.attempt + 1), None);
                Next::Busy
            }
        }
    }

    /// Until when a container that has ended is not started again.
    fn waits(&self, name: &str, exit: &Exit) -> Option<Waiting> {
        let (delay, until) = self.observed.back_off.until(name, exit.finished_at)?;
        (until > self.observed.now).then_some(Waiting { delay, until })
    }

    fn cause_to_kill(
        &self,
        container: &Container,
        role: Role,
        of: &ObservedContainer,
    ) -> Option<KillCause> {
        // What runs to its end is let run to it.
        if role != Role::Init && image_changed(container, of) {
            return Some(KillCause::Changed);
        }
        if self.resizes(container) {
            return Some(KillCause::Resized);
        }
        if self.observed.probes.liveness_failed(of.id()) {
            return Some(KillCause::Liveness);
        }
        let failed = self.observed.probes.startup_failed(of.id());
        failed.then_some(KillCause::Startup)
    }

    fn resizes(&self, container: &Container) -> bool {
        let allocation = self.observed.allocation;
        allocation.is_some_and(|allocation| allocation.restarts(container))
    }

    fn kill(&mut self, of: &ObservedContainer, cause: KillCause, restarts: bool) {
        self.actions.kill.push(Kill {
            id: of.id().clone(),
            name: of.name().to_owned(),
            cause,
            restarts,
        });
    }

    fn start(&mut self, name: &str, attempt: u32, after_failure: Option<SystemTime>) {
        if let Some(failure) = self.observed.failures.get(name)
            && failure.retry_at > self.observed.now
        {
            self.actions.held.insert(name.to_owned(), failure.retry_at);
            return;
        }
        self.actions.start.push(Start {
            name: name.to_owned(),
            attempt,
            after_failure,
        });
    }

    /// Keeps the latest of each name and the one before it, for `lastState` and the previous
    /// log.
    fn remove_old(&mut self) {
        let runtime = self.observed.runtime;
        for of in &runtime.containers {
            let latest = runtime.latest(of.name()).is_some_and(|c| c.id() == of.id());
            let previous = runtime
                .previous(of.name())
                .is_some_and(|c| c.id() == of.id());
            let listed = self.actions.remove.contains(of.id());
            if !latest && !previous && !listed && of.running_since().is_none() {
                self.actions.remove.push(of.id().clone());
            }
        }
    }
}

/// How a container ended with which all of its Pod begin anew.
pub(crate) fn says_anew<'a>(pod: &Pod, of: &'a ObservedContainer) -> Option<&'a Exit> {
    let (container, role) = pod::own_container(pod, of.name())?;
    let exit = of.exit()?;
    pod::restarts_all(container, role, exit.code).then_some(exit)
}

fn image_changed(container: &Container, of: &ObservedContainer) -> bool {
    let wanted = container.image.as_deref().unwrap_or_default();
    wanted != of.container.config.image
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
