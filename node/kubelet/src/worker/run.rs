//! The loop of a worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_runtime::ContainerId;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Workers;
use super::inbox::{Handle, Inbox};
use super::memory::Memory;
use super::probing::Probing;
use super::state::{Cause, Input, State, transition};
use crate::containers::actions::{Actions, Observed, pod_actions};
use crate::containers::lost;
use crate::containers::observed::PodRuntime;
use crate::node_context::NodeContext;
use crate::pod;
use crate::shutdown;
use crate::status::{self, StatusInput, Verdict};

/// What is to be done after a look at a Pod that lives.
pub(super) enum Outcome {
    /// Look again when told to, or at that time.
    Wait(Option<SystemTime>),
    /// It ends.
    End(Cause, Duration),
}

/// One Pod's worker.
pub(crate) struct Worker {
    pub(super) node: Arc<NodeContext>,
    /// All of the node, which may have to go for this one.
    pub(super) workers: Workers,
    /// For those who wake this worker: probes.
    pub(super) handle: Arc<Handle>,
    pub(super) inbox: watch::Receiver<Inbox>,
    pub(super) state: State,
    pub(super) memory: Memory,
    /// Probes that run, by container.
    pub(super) probes: HashMap<ContainerId, Probing>,
    /// Tells when a Pod leaves room on the node, while this one waits for it.
    pub(super) freed: Option<watch::Receiver<u64>>,
}

impl Worker {
    pub(crate) fn new(
        workers: Workers,
        handle: Arc<Handle>,
        inbox: watch::Receiver<Inbox>,
    ) -> Self {
        let pod = inbox.borrow().pod.clone();
        let node = workers.node.clone();
        let memory = Memory::of(&pod, &node.cache.pod(pod::uid(&pod)));
        Self {
            node,
            workers,
            handle,
            inbox,
            state: State::Syncing,
            memory,
            probes: HashMap::new(),
            freed: None,
        }
    }

    /// Runs until the Pod is gone from the API and from the node.
    pub(crate) async fn run(mut self) {
        loop {
            let inbox = self.inbox.borrow_and_update().clone();
            if let Some((cause, grace)) = inbox.end() {
                let cause = self.judge(cause, &inbox.pod);
                self.input(Input::End { cause, grace });
            } else if pod::is_terminal(&inbox.pod) && self.state == State::Syncing {
                // It ended under an earlier agent.
                let (cause, grace) = (Cause::Finished, pod::grace(&inbox.pod));
                self.input(Input::End { cause, grace });
            }
            let wake_at = match self.state.clone() {
                State::Syncing => match self.look(&inbox.pod).await {
                    Outcome::Wait(wake_at) => wake_at,
                    Outcome::End(cause, grace) => {
                        self.input(Input::End { cause, grace });
                        continue;
                    }
                },
                State::Terminating { grace, .. } => {
                    self.terminate(grace).await;
                    self.input(Input::Stopped);
                    continue;
                }
                State::Terminated { cause } => {
                    let gone = self.finish(&cause).await;
                    self.handle.set_over();
                    if gone {
                        return;
                    }
                    None
                }
            };
            self.wait(wake_at).await;
        }
    }

    fn input(&mut self, input: Input) {
        let state = std::mem::replace(&mut self.state, State::Syncing);
        self.state = transition(state, input);
    }

    async fn wait(&mut self, until: Option<SystemTime>) {
        let pause = until.map(|until| {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            // The clock of the system and that of timers differ by a little.
            left + Duration::from_millis(1)
        });
        let pause = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let freed = async {
            let told = match &mut self.freed {
                Some(freed) => freed.changed().await.is_ok(),
                None => false,
            };
            if !told {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = pause => {}
            () = freed => {}
            // An error means that nobody is left to tell anything; the task is being ended.
            changed = self.inbox.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
        }
    }

    /// Returns once the Pod is to end, for what may be given up half way.
    pub(super) async fn ends(mut inbox: watch::Receiver<Inbox>) {
        if inbox.wait_for(|inbox| inbox.end().is_some()).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A Pod whose containers are not started again fails when the node stops, and that is told: the
    /// next agent would know no more of it than that it is gone.
    fn judge(&self, cause: Cause, pod: &Pod) -> Cause {
        if cause != Cause::Shutdown || self.state != State::Syncing {
            return cause;
        }
        if self.has_finished(pod) {
            return Cause::Finished;
        }
        let mut lost = self.memory.lost.clone();
        lost::note(&mut lost, pod, &self.node.cache.pod(pod::uid(pod)));
        let left = PodRuntime::default();
        let found = self.observed(pod, &left, SystemTime::now());
        let found = pod_actions(&Observed {
            lost: &lost,
            ..found
        });
        match found.finished {
            true => Cause::Failed(shutdown::terminated()),
            false => Cause::Shutdown,
        }
    }

    /// Whether its containers have ended, and none is started again.
    pub(super) fn has_finished(&self, pod: &Pod) -> bool {
        let runtime = self.node.cache.pod(pod::uid(pod));
        self.actions(pod, &runtime, SystemTime::now()).finished
    }

    pub(super) fn actions(&self, pod: &Pod, runtime: &PodRuntime, now: SystemTime) -> Actions {
        pod_actions(&self.observed(pod, runtime, now))
    }

    fn observed<'a>(
        &'a self,
        pod: &'a Pod,
        runtime: &'a PodRuntime,
        now: SystemTime,
    ) -> Observed<'a> {
        Observed {
            pod,
            runtime,
            probes: &self.node.probes,
            back_off: &self.memory.back_off,
            failures: &self.memory.failures,
            lost: &self.memory.lost,
            killed: &self.memory.killed,
            allocation: self.memory.allocation.as_ref(),
            lives: self.state == State::Syncing,
            now,
        }
    }

    /// Makes the status of now and has it sent.
    pub(super) fn publish(&mut self, pod: &Pod, verdict: Option<&Verdict>, terminated: bool) {
        if pod::is_terminal(pod) {
            // What has ended stays as it was reported.
            return;
        }
        let status = self.status(pod, verdict, terminated);
        self.memory.status = Some(status.clone());
        self.node.publisher.publish(pod, status);
    }

    pub(super) fn status(
        &self,
        pod: &Pod,
        verdict: Option<&Verdict>,
        terminated: bool,
    ) -> PodStatus {
        let now = SystemTime::now();
        let runtime = self.node.cache.pod(pod::uid(pod));
        let allocated = self.memory.allocated(pod);
        let pod = allocated.as_ref();
        let mut actions = self.actions(pod, &runtime, now);
        if self.state != State::Syncing {
            // Nothing waits to be started any more.
            actions.crash_loop.clear();
            actions.anew = false;
        }
        let reported = pod::reported_ips(pod);
        let pod_ips = match &self.memory.prepared {
            Some(prepared) if !prepared.ips.is_empty() => &prepared.ips,
            _ => &reported,
        };
        status::pod_status(&StatusInput {
            pod,
            old: self.memory.status.as_ref().unwrap_or(pod::status(pod)),
            runtime: &runtime,
            actions: &actions,
            failures: &self.memory.failures,
            probes: &self.node.probes,
            messages: &self.memory.messages,
            allocation: self.memory.allocation.as_ref(),
            resize: &self.memory.resize,
            pod_ips,
            host_ips: &self.node.host_ips,
            ready_to_start: self.memory.volumes,
            terminated,
            verdict,
            now,
        })
    }

    /// Reads the last words of containers that have ended since the last look.
    pub(super) fn read_messages(&mut self, pod: &Pod, runtime: &PodRuntime) {
        for of in &runtime.containers {
            let Some(exit) = of.exit() else { continue };
            if self.memory.messages.contains_key(&of.id().0) {
                continue;
            }
            let config = &of.container.config;
            let (name, attempt) = (config.name.as_str(), config.attempt);
            let file = self.node.termination_file(pod::uid(pod), name, attempt);
            let container = pod::container(pod, name);
            let policy = container.and_then(|(c, _)| c.termination_message_policy.clone());
            let fallback = policy.as_deref() == Some("FallbackToLogsOnError") && exit.code != 0;
            let log = fallback.then(|| self.node.log_file(pod, name, attempt));
            let said = status::termination::message(&file, log.as_deref());
            let message = said.unwrap_or_default();
            self.memory.messages.insert(of.id().0.clone(), message);
        }
        let known = |id: &String| runtime.containers.iter().any(|of| of.id().0 == *id);
        self.memory.messages.retain(|id, _| known(id));
        self.memory.killed.retain(known);
    }
}

/// A token that ends when the guard that comes with it is dropped.
pub(super) fn guard() -> (CancellationToken, DropGuard) {
    let token = CancellationToken::new();
    (token.clone(), token.drop_guard())
}
