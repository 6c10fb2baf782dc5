//! What the runtimes have of one Pod.

use std::net::IpAddr;
use std::time::SystemTime;

use coracle_runtime::{
    Container, ContainerId, ContainerState, Exit, PodSandbox, SandboxId, SandboxState,
};

/// A sandbox and the name of the runtime that has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObservedSandbox {
    pub(crate) runtime: &'static str,
    pub(crate) sandbox: PodSandbox,
}

/// A container and the name of the runtime that has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ObservedContainer {
    pub(crate) runtime: &'static str,
    pub(crate) container: Container,
}

impl ObservedContainer {
    pub(crate) fn name(&self) -> &str {
        &self.container.config.name
    }

    pub(crate) fn id(&self) -> &ContainerId {
        &self.container.id
    }

    pub(crate) fn exit(&self) -> Option<&Exit> {
        match &self.container.state {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    pub(crate) fn running_since(&self) -> Option<SystemTime> {
        match &self.container.state {
            ContainerState::Running { started_at } => Some(*started_at),
            _ => None,
        }
    }

    /// The ID as the API has it, `wasm://…`.
    pub(crate) fn api_id(&self) -> String {
        format!("{}://{}", self.runtime, self.container.id.0)
    }
}

/// Sandboxes and containers of one Pod, in all runtimes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodRuntime {
    pub(crate) sandboxes: Vec<ObservedSandbox>,
    pub(crate) containers: Vec<ObservedContainer>,
}

impl PodRuntime {
    pub(crate) fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The sandbox of that runtime in which containers may run.
    pub(crate) fn ready_sandbox(&self, runtime: &str) -> Option<&PodSandbox> {
        let ready =
            |s: &&ObservedSandbox| s.runtime == runtime && s.sandbox.state == SandboxState::Ready;
        self.sandboxes.iter().find(ready).map(|s| &s.sandbox)
    }

    /// Whether the sandbox of a container has died.
    pub(crate) fn has_lost_sandbox(&self, of: &ObservedContainer) -> bool {
        let sandbox = self.sandbox_of(of);
        sandbox.is_some_and(|sandbox| sandbox.state == SandboxState::NotReady)
    }

    /// The addresses of a container: its sandbox's.
    pub(crate) fn ips_of(&self, of: &ObservedContainer) -> &[IpAddr] {
        let sandbox = self.sandbox_of(of);
        sandbox.map_or(&[][..], |sandbox| &sandbox.config.ips[..])
    }

    fn sandbox_of(&self, of: &ObservedContainer) -> Option<&PodSandbox> {
        let own = |s: &&ObservedSandbox| s.sandbox.id == of.container.sandbox;
        self.sandboxes.iter().find(own).map(|s| &s.sandbox)
    }

    /// How many sandboxes of that runtime the Pod has had, as far as is known.
    pub(crate) fn next_sandbox_attempt(&self, runtime: &str) -> u32 {
        let of_runtime = self.sandboxes.iter().filter(|s| s.runtime == runtime);
        let attempts = of_runtime.map(|s| s.sandbox.config.attempt + 1);
        attempts.max().unwrap_or(0)
    }

    fn of(&self, name: &str) -> Vec<&ObservedContainer> {
        let mut of_name: Vec<_> = self
            .containers
            .iter()
            .filter(|c| c.name() == name)
            .collect();
        of_name.sort_by_key(|c| (c.container.config.attempt, c.container.created_at));
        of_name
    }

    /// The newest container of that name.
    pub(crate) fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.of(name).last().copied()
    }

    /// The newest ended container of that name before the latest one.
    pub(crate) fn previous(&self, name: &str) -> Option<&ObservedContainer> {
        let of_name = self.of(name);
        let earlier = of_name.iter().rev().skip(1);
        earlier.copied().find(|c| c.exit().is_some())
    }

    /// Digests of the images of its containers, and of those that are volumes of them.
    pub(crate) fn image_digests(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().flat_map(|of| {
            let config = &of.container.config;
            let volumes = config.mounts.iter();
            let volumes = volumes.filter_map(|mount| mount.image.as_deref());
            volumes.chain([&*config.image_digest])
        })
    }

    pub(crate) fn container(&self, id: &ContainerId) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.id() == id)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &ObservedContainer> {
        let running = |c: &&ObservedContainer| c.running_since().is_some();
        self.containers.iter().filter(running)
    }

    /// Notes what a runtime says about a container. Answers may overtake each other, but the
    /// state of a container only goes forward: an older answer is ignored.
    pub(crate) fn put_container(&mut self, runtime: &'static str, container: Container) {
        match self.containers.iter_mut().find(|c| *c.id() == container.id) {
            Some(known) if stage(&known.container.state) > stage(&container.state) => {}
            Some(known) => known.container = container,
            None => self
                .containers
                .push(ObservedContainer { runtime, container }),
        }
    }

    /// Notes what a runtime says about a sandbox; one that is not ready stays so.
    pub(crate) fn put_sandbox(&mut self, runtime: &'static str, sandbox: PodSandbox) {
        let known = self.sandboxes.iter_mut();
        match known.into_iter().find(|s| s.sandbox.id == sandbox.id) {
            Some(known) if known.sandbox.state == SandboxState::NotReady => {}
            Some(known) => known.sandbox = sandbox,
            None => self.sandboxes.push(ObservedSandbox { runtime, sandbox }),
        }
    }

    pub(crate) fn sandbox_died(&mut self, id: &SandboxId) {
        let of = self.sandboxes.iter_mut().find(|s| s.sandbox.id == *id);
        if let Some(of) = of {
            of.sandbox.state = SandboxState::NotReady;
        }
    }

    pub(crate) fn forget_container(&mut self, id: &ContainerId) {
        self.containers.retain(|c| c.id() != id);
    }

    /// Forgets a sandbox and what was in it.
    pub(crate) fn forget_sandbox(&mut self, id: &SandboxId) {
        self.sandboxes.retain(|s| s.sandbox.id != *id);
        self.containers.retain(|c| c.container.sandbox != *id);
    }
}

fn stage(state: &ContainerState) -> u8 {
    match state {
        ContainerState::Created => 0,
        ContainerState::Running { .. } => 1,
        ContainerState::Exited(_) => 2,
    }
}
