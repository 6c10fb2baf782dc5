//! A runtime in memory, for tests of the kubelet.
//!
//! Containers do nothing until the test says so: [`FakeRuntime::exit`] ends one,
//! [`FakeRuntime::behave`] says beforehand what containers of a name do, and
//! [`FakeRuntime::fail_next`] makes one call of a verb fail. All state lives in the value and
//! is shared by its clones, so that a clone stands for the next agent after a restart.
//!
//! Deliberately absent: time. Nothing happens by itself, except that a container that ignores
//! its request to stop ends when its grace period is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::service::{Error, Result};
use crate::usage::DiskUsage;
use crate::{
    Container, ContainerConfig, ContainerId, ContainerState, Exit, ImageUser, PodSandbox,
    RuntimeEvent, SandboxId, SandboxState,
};

mod verbs;

/// Events that a lagging subscriber may miss at most before it loses some.
const EVENTS: usize = 1024;

/// A verb that can be made to fail, and that is recorded when called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    EnsureImage,
    RunPodSandbox,
    StopPodSandbox,
    RemovePodSandbox,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    ListContainers,
    UpdateContainer,
    UpdatePodSandbox,
}

/// What a container does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Lines that it writes to stdout when it starts.
    pub output: Vec<String>,
    /// Exit code with which it ends as soon as it has started.
    pub exits: Option<i32>,
    /// It does not end when asked to, but only when its grace period is over.
    pub ignores_stop: bool,
    /// Ports on which it listens while it runs.
    pub listens: Vec<u16>,
}

/// The runtime. Clones share their state.
#[derive(Clone)]
pub struct FakeRuntime {
    name: &'static str,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<RuntimeEvent>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, PodSandbox>,
    containers: BTreeMap<ContainerId, Container>,
    images: BTreeSet<String>,
    own_images: BTreeSet<String>,
    image_users: BTreeMap<String, ImageUser>,
    invalid_images: BTreeMap<String, String>,
    behaviours: BTreeMap<String, Behaviour>,
    layers: BTreeMap<String, DiskUsage>,
    faults: Vec<(Verb, VecDeque<Error>)>,
    calls: Vec<(Verb, String)>,
    next_id: u64,
}

impl State {
    fn fault(&mut self, verb: Verb, subject: &str) -> Result<()> {
        self.calls.push((verb, subject.to_owned()));
        let queue = self.faults.iter_mut().find(|(of, _)| *of == verb);
        match queue.and_then(|(_, faults)| faults.pop_front()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("{:064x}", self.next_id)
    }

    fn behaviour(&self, config: &ContainerConfig) -> Behaviour {
        let by_image = || self.behaviours.get(&config.image);
        let found = self.behaviours.get(&config.name).or_else(by_image);
        found.cloned().unwrap_or_default()
    }
}

impl FakeRuntime {
    /// A runtime of that name without images or Pods.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Arc::default(),
            events: broadcast::Sender::new(EVENTS),
            changed: watch::Sender::new(0),
        }
    }

    /// Says what containers do from now on; `of` is a container's name or its image's
    /// reference.
    pub fn behave(&self, of: &str, behaviour: Behaviour) {
        let mut state = self.state.lock();
        state.behaviours.insert(of.to_owned(), behaviour);
    }

    /// Says what containers of that name have written.
    pub fn write_layer(&self, of: &str, usage: DiskUsage) {
        self.state.lock().layers.insert(of.to_owned(), usage);
    }

    /// Puts an image there by that reference, of which nobody else knows.
    pub fn put_image(&self, reference: &str) {
        let mut state = self.state.lock();
        state.own_images.insert(reference.to_owned());
    }

    /// Says as whom the image of a reference runs.
    pub fn put_image_user(&self, reference: &str, user: ImageUser) {
        let mut state = self.state.lock();
        state.image_users.insert(reference.to_owned(), user);
    }

    /// Refuses an image, by digest, with that message.
    pub fn refuse_image(&self, digest: &str, message: &str) {
        let mut state = self.state.lock();
        let (digest, message) = (digest.to_owned(), message.to_owned());
        state.invalid_images.insert(digest, message);
    }

    /// Makes the next call of the verb fail. Several faults are used up in order.
    pub fn fail_next(&self, verb: Verb, error: Error) {
        let mut state = self.state.lock();
        match state.faults.iter_mut().find(|(of, _)| *of == verb) {
            Some((_, faults)) => faults.push_back(error),
            None => state.faults.push((verb, VecDeque::from([error]))),
        }
    }

    /// All calls so far, with the sandbox's Pod or the container's name.
    pub fn calls(&self) -> Vec<(Verb, String)> {
        self.state.lock().calls.clone()
    }

    /// How often a verb was called.
    pub fn count(&self, verb: Verb) -> usize {
        let state = self.state.lock();
        state.calls.iter().filter(|(of, _)| *of == verb).count()
    }

    /// The newest container of that name, in any Pod.
    pub fn container(&self, name: &str) -> Option<Container> {
        let state = self.state.lock();
        let mut of_name: Vec<&Container> = state
            .containers
            .values()
            .filter(|c| c.config.name == name)
            .collect();
        of_name.sort_by_key(|c| c.id.clone());
        of_name.last().map(|c| (*c).clone())
    }

    /// Containers that run now.
    pub fn running(&self) -> usize {
        let state = self.state.lock();
        let running = |c: &&Container| matches!(c.state, ContainerState::Running { .. });
        state.containers.values().filter(running).count()
    }

    /// Containers that exist, whatever their state.
    pub fn list(&self) -> Vec<Container> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// Sandboxes that exist.
    pub fn sandboxes(&self) -> Vec<PodSandbox> {
        self.state.lock().sandboxes.values().cloned().collect()
    }

    /// Ends a container as if it had done so itself.
    pub fn exit(&self, id: &ContainerId, code: i32, reason: &str, message: &str) {
        self.end(id, code, reason, message);
    }

    /// Ends a sandbox with all that runs in it, as a crash of its process would.
    pub fn crash_sandbox(&self, id: &SandboxId) {
        let (containers, pod_uid) = {
            let mut state = self.state.lock();
            let Some(sandbox) = state.sandboxes.get_mut(id) else {
                return;
            };
            sandbox.state = SandboxState::NotReady;
            let pod_uid = sandbox.config.pod.uid.clone();
            (containers_of(&state, id), pod_uid)
        };
        for container in containers {
            self.end(&container, 137, "Error", "the sandbox died");
        }
        let id = id.clone();
        self.tell(RuntimeEvent::Sandbox { pod_uid, id });
    }

    /// Waits until the state of the runtime is as wanted.
    ///
    /// # Panics
    /// After ten seconds, with what was waited for.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !condition(self) {
                if changed.changed().await.is_err() {
                    break;
                }
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(
            waited.is_ok(),
            "not within 10 s: {what}; calls: {:?}",
            self.calls()
        );
    }

    fn tell(&self, event: RuntimeEvent) {
        // Nobody listening is no fault of an event.
        let _ = self.events.send(event);
        self.changed.send_modify(|n| *n += 1);
    }

    fn end(&self, id: &ContainerId, code: i32, reason: &str, message: &str) {
        let (pod_uid, listened) = {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get_mut(id) else {
                return;
            };
            let started_at = match container.state {
                ContainerState::Exited(_) => return,
                ContainerState::Created => None,
                ContainerState::Running { started_at } => Some(started_at),
            };
            container.state = ContainerState::Exited(Exit {
                started_at,
                finished_at: SystemTime::now(),
                code,
                reason: reason.to_owned(),
                message: message.to_owned(),
            });
            let container = container.clone();
            let listened = !state.behaviour(&container.config).listens.is_empty();
            (container.pod.uid, listened)
        };
        let id = id.clone();
        self.tell(RuntimeEvent::Container { pod_uid, id });
        if listened {
            self.tell(RuntimeEvent::Listeners);
        }
    }

    fn not_found(&self, kind: &'static str, id: &str) -> Error {
        Error::NotFound {
            kind,
            id: id.to_owned(),
            runtime: self.name,
        }
    }
}

fn containers_of(state: &State, sandbox: &SandboxId) -> Vec<ContainerId> {
    let of_sandbox = state.containers.values().filter(|c| c.sandbox == *sandbox);
    of_sandbox.map(|c| c.id.clone()).collect()
}
