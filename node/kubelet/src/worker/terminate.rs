//! The end of a Pod: its containers are stopped, it is reported, cleaned up and deleted.

use std::time::Duration;

use coracle_runtime::{ContainerId, SandboxId, disk};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::run::Worker;
use super::state::{Cause, Input, State};
use crate::containers::stop;
use crate::events::Severity;
use crate::followed::Following;
use crate::pod;
use crate::volumes;

/// Least time that a Pod has to end, as in Kubernetes.
const MIN_GRACE: Duration = Duration::from_secs(1);
/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Worker {
    /// Ends all containers. Updates that come meanwhile can only shorten it.
    pub(super) async fn terminate(&mut self, grace: Duration) {
        let pod = self.inbox.borrow().pod.clone();
        let uid = pod::uid(&pod).to_owned();
        self.end_other_probes();
        self.memory.following = Following::default();
        let runtime = self.node.cache.pod(&uid);
        let began = Instant::now();
        let (shorten, deadline) = watch::channel(began + grace.max(MIN_GRACE));
        for of in runtime.running() {
            let message = format!("Stopping container {}", of.name());
            self.event(&pod, Some(of.name()), Severity::Normal, "Killing", message);
        }
        let node = self.node.clone();
        let tells = !matches!(
            &self.state,
            State::Terminating {
                // Its object stays as it is.
                cause: Cause::Shutdown,
                ..
            }
        );
        let stop = stop::stop_pod(&node, &pod, &runtime, deadline);
        let mut inbox = self.inbox.clone();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                changed = inbox.changed() => {
                    if changed.is_err() {
                        (&mut stop).await;
                        break;
                    }
                    let latest = inbox.borrow_and_update().clone();
                    self.prune_probes(&node.cache.pod(&uid));
                    if tells && !latest.removed {
                        // Who still runs and serves.
                        self.publish(&latest.pod, None, false);
                    }
                    let Some((cause, grace)) = latest.end() else { continue };
                    self.shrink(Input::End { cause, grace });
                    if let State::Terminating { grace, .. } = &self.state {
                        let nearer = began + (*grace).max(MIN_GRACE);
                        shorten.send_if_modified(|deadline| {
                            let sooner = nearer < *deadline;
                            if sooner {
                                *deadline = nearer;
                            }
                            sooner
                        });
                    }
                }
            }
        }
        self.probes.clear();
    }

    fn shrink(&mut self, input: Input) {
        let state = std::mem::replace(&mut self.state, State::Syncing);
        self.state = super::state::transition(state, input);
    }

    /// Reports, cleans up, and deletes the object if it was marked for deletion; true if
    /// nothing of the Pod is left. Called again when something has changed.
    pub(super) async fn finish(&mut self, cause: &Cause) -> bool {
        let inbox = self.inbox.borrow().clone();
        let pod = inbox.pod.clone();
        let uid = pod::uid(&pod).to_owned();
        self.node.admission.release(&uid);
        if *cause == Cause::Shutdown {
            // The object stays as it is: the next agent starts the Pod again.
            self.remove_all(&uid).await;
            self.release_memory(&uid).await;
            return true;
        }
        let runtime = self.node.cache.pod(&uid);
        self.read_messages(&pod, &runtime);
        if !inbox.removed {
            let verdict = match cause {
                Cause::Failed(verdict) => Some(verdict),
                _ => None,
            };
            self.publish(&pod, verdict, true);
            // A static Pod has no object that could go before its end is told.
            if !pod::is_static(&pod) {
                self.node.publisher.settled(&uid).await;
            }
        }
        if !inbox.removed && !pod::is_deleted(&pod) && inbox.shutdown.is_none() {
            // It has ended and stays to be looked at: its logs and records stay too.
            self.stop_sandboxes(&uid).await;
            self.release_memory(&uid).await;
            self.give_back_address(&uid).await;
            if inbox.reclaimed && pod::is_terminal(&pod) {
                // The API has its end; the room is for those who live.
                self.remove_all(&uid).await;
                self.remove_logs(&pod);
            }
            return false;
        }
        if !inbox.removed && !pod::is_deleted(&pod) {
            // The node stops; what has ended is found ended by the next agent.
            self.stop_sandboxes(&uid).await;
            self.release_memory(&uid).await;
            return true;
        }
        self.remove_all(&uid).await;
        self.give_back_address(&uid).await;
        self.tear_down(&uid).await;
        if !inbox.removed && !self.delete(&pod).await {
            return false;
        }
        self.remove_logs(&pod);
        self.node.publisher.forget(&uid);
        true
    }

    fn remove_logs(&self, pod: &Pod) {
        if let Err(error) = disk::remove_dir(&self.node.pod_logs(pod)) {
            tracing::warn!(%error, uid = pod::uid(pod), "cannot remove the logs of a Pod");
        }
    }

    /// Removes the object; true if it is gone. A finalizer may hold it.
    async fn delete(&self, pod: &Pod) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.node.client.clone(), pod::namespace(pod));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(pod::uid(pod).to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        loop {
            match pods.delete(pod::name(pod), &params).await {
                Ok(either) => {
                    // What still has the object waits for its finalizers.
                    let held = |pod: &Pod| {
                        let finalizers = pod.metadata.finalizers.as_deref();
                        finalizers.is_some_and(|list| !list.is_empty())
                    };
                    return !either.left().as_ref().is_some_and(held);
                }
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                    return true;
                }
                Err(error) => {
                    let (namespace, name) = (pod::namespace(pod), pod::name(pod));
                    tracing::warn!(namespace, name, %error, "cannot remove a Pod's object");
                    tokio::time::sleep(RETRY).await;
                    if self.inbox.borrow().removed {
                        return true;
                    }
                }
            }
        }
    }

    async fn give_back_address(&self, uid: &str) {
        if let Err(error) = self.node.network.release(uid).await {
            tracing::warn!(%error, uid, "cannot give back the address of a Pod");
        }
    }

    async fn tear_down(&self, uid: &str) {
        let (root, of) = (self.node.root.clone(), uid.to_owned());
        let torn = tokio::task::spawn_blocking(move || volumes::tear_down(&root, &of)).await;
        match torn {
            // With the folder goes the record of its users.
            Ok(Ok(())) => self.node.users.release(uid),
            Ok(Err(error)) => tracing::warn!(%error, uid, "cannot remove the volumes of a Pod"),
            Err(_) => {}
        }
    }

    async fn release_memory(&self, uid: &str) {
        let (root, of) = (self.node.root.clone(), uid.to_owned());
        let released = tokio::task::spawn_blocking(move || volumes::release_memory(&root, &of));
        if let Ok(Err(error)) = released.await {
            tracing::warn!(%error, uid, "cannot unmount the volumes of a Pod");
        }
    }

    async fn stop_sandboxes(&self, uid: &str) {
        for of in &self.node.cache.pod(uid).sandboxes {
            let Some(runtime) = self.node.router.by_name(of.runtime) else {
                continue;
            };
            if of.sandbox.state == coracle_runtime::SandboxState::NotReady {
                continue;
            }
            match runtime.stop_pod_sandbox(&of.sandbox.id).await {
                Ok(()) => {
                    let mut sandbox = of.sandbox.clone();
                    sandbox.state = coracle_runtime::SandboxState::NotReady;
                    let cache = &self.node.cache;
                    cache.update(uid, |pod| pod.put_sandbox(of.runtime, sandbox));
                }
                Err(error) => tracing::warn!(%error, uid, "cannot stop the sandbox of a Pod"),
            }
        }
    }

    /// Removes sandboxes with all their containers, however long it takes.
    async fn remove_all(&mut self, uid: &str) {
        loop {
            let known = self.node.cache.pod(uid);
            for of in &known.containers {
                self.node.probes.forget(of.id());
            }
            let mut removed = true;
            for of in &known.sandboxes {
                removed &= self.remove_sandbox(uid, &of.sandbox.id).await;
            }
            if removed {
                // Containers without a sandbox, if a runtime has lost it.
                let left = self.node.cache.pod(uid);
                for of in &left.containers {
                    removed &= self.remove_record(uid, of.id()).await;
                }
            }
            if removed {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    pub(super) async fn remove_sandbox(&self, uid: &str, id: &SandboxId) -> bool {
        let known = self.node.cache.pod(uid);
        let of = known.sandboxes.iter().find(|of| of.sandbox.id == *id);
        let Some(of) = of else { return true };
        let Some(runtime) = self.node.router.by_name(of.runtime) else {
            return true;
        };
        match runtime.remove_pod_sandbox(id).await {
            Ok(()) => {
                self.node.cache.update(uid, |pod| pod.forget_sandbox(id));
                true
            }
            Err(error) => {
                tracing::warn!(%error, uid, sandbox = id.0, "cannot remove a sandbox");
                false
            }
        }
    }

    async fn remove_record(&self, uid: &str, id: &ContainerId) -> bool {
        let known = self.node.cache.pod(uid);
        let Some(of) = known.container(id) else {
            return true;
        };
        let Some(runtime) = self.node.router.by_name(of.runtime) else {
            return true;
        };
        match runtime.remove_container(id).await {
            Ok(()) => {
                self.node.cache.update(uid, |pod| pod.forget_container(id));
                self.node.probes.forget(id);
                true
            }
            Err(error) => {
                tracing::warn!(%error, uid, container = id.0, "cannot remove a container");
                false
            }
        }
    }

    /// Removes a container of a Pod that lives, with its log and message.
    pub(super) async fn remove_container(&mut self, pod: &Pod, id: &ContainerId) -> bool {
        let uid = pod::uid(pod);
        let known = self.node.cache.pod(uid);
        let Some(of) = known.container(id) else {
            return true;
        };
        let (name, attempt) = (of.name().to_owned(), of.container.config.attempt);
        if !self.remove_record(uid, id).await {
            return false;
        }
        self.probes.remove(id);
        // Another container of the same attempt goes on with its files.
        let again = self.node.cache.pod(uid);
        let shared = |other: &crate::containers::observed::ObservedContainer| {
            other.name() == name && other.container.config.attempt == attempt
        };
        if !again.containers.iter().any(shared) {
            let log = self.node.log_file(pod, &name, attempt);
            crate::logs::files::remove(&log);
            let _ = std::fs::remove_file(self.node.termination_file(uid, &name, attempt));
        }
        true
    }
}
