//! In-place resize of a Pod that runs: what its spec wants is allocated if the node has room for
//! it, and then done.
//!
//! The limits of the Pod as a whole are raised first and lowered last, and of its containers those
//! change first that give memory back: at no time has a container more than its Pod. What a policy
//! wants to be restarted is killed and started as containers are that have changed
//! ([`crate::containers::actions`]).

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use super::run::{Outcome, Worker};
use crate::admission::NoRoom;
use crate::containers::allocation::{self, Update};
use crate::events::Severity;
use crate::pod::{self, cgroups};

/// What is to be said of a resize that is not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// It was not allocated.
    pub(crate) pending: Option<NoRoom>,
    /// It was allocated, and could not be done.
    pub(crate) error: Option<String>,
}

impl Worker {
    /// One look at a Pod that lives, run with what is allocated to it.
    pub(super) async fn look(&mut self, wanted: &Pod) -> Outcome {
        let root = &self.node.root;
        if self.memory.allocation.is_none() {
            let known = allocation::Allocation::load(root, wanted);
            self.memory.allocation = Some(known);
        }
        loop {
            let admitted = self.memory.admitted;
            if admitted {
                self.reallocate(wanted);
            }
            let pod = self.memory.allocated(wanted);
            let outcome = self.sync(&pod).await;
            let again = !admitted && self.memory.admitted && self.memory.is_to_resize(wanted);
            match outcome {
                Outcome::Wait(_) if again => {}
                outcome => return outcome,
            }
        }
    }

    /// Allocates what the spec wants, or notes why not.
    fn reallocate(&mut self, wanted: &Pod) {
        self.freed = None;
        let node = self.node.clone();
        let Some(known) = self.memory.allocation.as_mut() else {
            return;
        };
        if !known.differs(wanted) {
            if self.memory.resize.pending.take().is_some() {
                node.admission.withdraw(pod::uid(wanted));
            }
            return;
        }
        // Before it is tried: whoever goes meanwhile is not missed.
        let freed = node.admission.freed();
        let mut next = known.clone();
        next.take(wanted);
        match node.admission.resize(&next.apply(wanted)) {
            Ok(()) => {
                let uid = pod::uid(wanted);
                if let Err(error) = next.save(&node.root, uid) {
                    // It is allocated all the same; the next agent would find what the API knows.
                    tracing::warn!(%error, uid, "cannot write down what a Pod was allocated");
                }
                *known = next;
                // They may show what was allocated.
                self.memory.volumes_made = None;
                self.memory.resize = Unfinished::default();
                self.memory.resizing = true;
                let text = message("Pod resize started", wanted, None);
                self.event(wanted, None, Severity::Normal, "ResizeStarted", text);
            }
            Err(no_room) => {
                self.freed = Some(freed);
                if self.memory.resize.pending.as_ref() != Some(&no_room) {
                    let event = format!("Resize{}", no_room.reason);
                    let said = format!("Pod resize {}", no_room.reason);
                    let text = message(&said, wanted, Some(&no_room.message));
                    self.event(wanted, None, Severity::Warning, &event, text);
                }
                self.memory.resize.pending = Some(no_room);
            }
        }
    }

    /// Notes that all containers have what is allocated to them.
    fn resized(&mut self, pod: &Pod) {
        self.memory.resize.error = None;
        if std::mem::take(&mut self.memory.resizing) {
            let text = message("Pod resize completed", pod, None);
            self.event(pod, None, Severity::Normal, "ResizeCompleted", text);
        }
    }

    /// Notes how it went, and tells of what is new.
    fn tell_error(&mut self, pod: &Pod, error: Option<String>) {
        if let Some(error) = error.as_ref()
            && self.memory.resize.error.as_ref() != Some(error)
        {
            let text = message("Pod resize error", pod, Some(error));
            self.event(pod, None, Severity::Warning, "ResizeError", text);
        }
        self.memory.resize.error = error;
    }

    /// Brings the Pod to what should run, and what runs to what is allocated; false if something
    /// failed that is to be tried again soon.
    pub(super) async fn act_within(&mut self, pod: &Pod) -> bool {
        let uid = pod::uid(pod);
        let known = self.node.cache.pod(uid);
        let target = cgroups::resources(pod);
        let is_done = |this: &Self| {
            this.memory.allocation.as_ref().is_none_or(|allocation| {
                let limits = allocation.pod.as_ref();
                !allocation.in_progress(&this.node.cache.pod(uid))
                    && limits.is_none_or(|limits| *limits == target)
            })
        };
        if is_done(self) {
            self.resized(pod);
            return self.act(pod).await;
        }
        // An earlier agent may have begun it.
        self.memory.resizing = true;
        let before = self.memory.allocation.clone();
        let grown = match &self.memory.allocation {
            Some(allocation) => allocation::larger(&allocation.pod_now(pod), &target),
            None => target.clone(),
        };
        let mut result = self.limit_pod(pod, grown).await;
        if result.is_ok() {
            let updates = self.memory.allocation.as_ref();
            let updates = updates.map(|allocation| allocation.updates(pod, &known));
            for update in updates.unwrap_or_default() {
                result = self.update(update).await;
                if result.is_err() {
                    break;
                }
            }
        }
        let acted = self.act(pod).await;
        let runtime = self.node.cache.pod(uid);
        let allocation = self.memory.allocation.as_ref();
        let left = allocation.is_some_and(|allocation| allocation.is_to_change(&runtime));
        if result.is_ok() && !left {
            result = self.limit_pod(pod, target.clone()).await;
            if let (Ok(()), Some(allocation)) = (&result, &mut self.memory.allocation) {
                allocation.actuate_pod(target.clone());
            }
        }
        let resized = result.is_ok();
        self.tell_error(pod, result.err());
        if resized && is_done(self) {
            self.resized(pod);
        }
        if self.memory.allocation != before
            && let Some(allocation) = &self.memory.allocation
            && let Err(error) = allocation.save(&self.node.root, uid)
        {
            tracing::warn!(%error, uid, "cannot write down what a Pod was given");
        }
        acted && resized
    }

    /// Sets what all containers of the Pod may use together.
    async fn limit_pod(
        &mut self,
        pod: &Pod,
        limits: coracle_runtime::Resources,
    ) -> Result<(), String> {
        let Some(allocation) = &mut self.memory.allocation else {
            return Ok(());
        };
        if allocation.pod_now(pod) != limits {
            for of in &self.node.cache.pod(pod::uid(pod)).sandboxes {
                let ready = of.sandbox.state == coracle_runtime::SandboxState::Ready;
                let runtime = self.node.router.by_name(of.runtime).filter(|_| ready);
                let Some(runtime) = runtime else { continue };
                let id = &of.sandbox.id;
                let set = runtime.update_pod_sandbox_resources(id, limits.clone());
                set.await.map_err(|error| error.to_string())?;
            }
        }
        allocation.pod = Some(limits);
        Ok(())
    }

    /// Changes the limits of a container that runs on.
    async fn update(&mut self, update: Update) -> Result<(), String> {
        let runtime = self.node.router.by_name(update.runtime).cloned();
        let Some(runtime) = runtime else {
            return Ok(());
        };
        if let Some(limit) = update.lowered {
            let stats = runtime.stats().await.map_err(|error| error.to_string())?;
            let used = stats.iter().find(|of| of.id == update.id);
            let used = used.map_or(0, |of| of.memory_bytes);
            if used > limit {
                return Err(format!(
                    "cannot resize container \"{}\": attempting to set memory limit ({limit}) below \
                     current usage ({used})",
                    update.name
                ));
            }
        }
        let resources = update.resources.clone();
        let done = runtime.update_container_resources(&update.id, resources);
        done.await
            .map_err(|error| format!("cannot resize container \"{}\": {error}", update.name))?;
        if let Some(allocation) = &mut self.memory.allocation {
            allocation.actuate(&update.name);
        }
        Ok(())
    }
}

/// What an event of a resize says of the resources.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Of<'a>>,
    containers: Vec<Of<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Of<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

impl<'a> Of<'a> {
    fn container(of: &'a Container) -> Self {
        Self {
            name: &of.name,
            resources: of.resources.clone().unwrap_or_default(),
        }
    }
}

/// The message of an event, as Kubernetes has it.
fn message(said: &str, pod: &Pod, error: Option<&str>) -> String {
    let summary = Summary {
        init_containers: pod::init_containers(pod)
            .iter()
            .map(Of::container)
            .collect(),
        containers: pod::spec(pod)
            .containers
            .iter()
            .map(Of::container)
            .collect(),
        generation: pod.metadata.generation.unwrap_or(0),
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(summary) => format!("{said}: {summary}"),
        Err(_) => said.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_say_what_was_wanted() {
        let limits = json!({"limits": {"cpu": "1"}});
        let pod = serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"containers": [{"name": "a", "resources": limits}, {"name": "b"}]},
        }))
        .unwrap();
        assert_eq!(
            message("Pod resize Deferred", &pod, Some("no room")),
            "Pod resize Deferred: {\"containers\":[{\"name\":\"a\",\"resources\":{\"limits\":\
             {\"cpu\":\"1\"}}},{\"name\":\"b\",\"resources\":{}}],\"generation\":3,\
             \"error\":\"no room\"}"
        );
    }
}
