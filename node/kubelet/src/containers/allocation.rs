//! What a Pod's containers have of CPU and memory, and what they are to have (in-place resize,
//! KEP-1287).
//!
//! ```text
//! spec ── the node has room ──▶ allocated ── the runtime has done it ──▶ actuated
//! ```
//!
//! A container is made with what is allocated to it, and its Pod is run as if its spec said so
//! ([`Allocation::apply`]). What has been allocated beside the spec is written down
//! (`allocation.json` in the Pod's folder) before anything is done about it; of a Pod that was never
//! resized the API's status says as much.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use coracle_apimachinery::resources::{CPU, MEMORY, Qos, ResourceList, parse, qos, whole_limits};
use coracle_runtime::{ContainerId, Resources, disk};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::observed::PodRuntime;
use super::start;
use crate::pod::{self, cgroups};
use crate::volumes;

/// Name of the file in a Pod's folder.
const FILE: &str = "allocation.json";

/// Of containers by their names, and what the Pod asks for as a whole under [`POD`].
type ByName = BTreeMap<String, ResourceRequirements>;

/// No container's name.
const POD: &str = "";

/// Requests and limits of one Pod's containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    allocated: ByName,
    /// Of those that were made.
    actuated: ByName,
    /// What all containers together have been given since a resize began; none: what their
    /// sandboxes were made with.
    pub(crate) pod: Option<Resources>,
}

/// Limits of a running container that are to change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) name: String,
    pub(crate) id: ContainerId,
    pub(crate) runtime: &'static str,
    pub(crate) resources: Resources,
    /// A memory limit that is lower than before.
    pub(crate) lowered: Option<u64>,
}

fn path(root: &Path, uid: &str) -> PathBuf {
    volumes::pod_folder(root, uid).join(FILE)
}

impl Allocation {
    /// What is known of a Pod that may have been here before this agent.
    pub(crate) fn load(root: &Path, pod: &Pod) -> Self {
        match disk::read_json(&path(root, pod::uid(pod))) {
            Ok(Some(known)) => known,
            Ok(None) => Self::of(pod),
            Err(error) => {
                tracing::warn!(%error, uid = pod::uid(pod), "cannot read what a Pod was allocated");
                Self::of(pod)
            }
        }
    }

    /// Writes it down, so that the next agent finds it.
    pub(crate) fn save(&self, root: &Path, uid: &str) -> io::Result<()> {
        disk::write_json_durably(&path(root, uid), self)
    }

    /// By the spec, and what the API was told of containers that were made by it or an earlier one.
    fn of(pod: &Pod) -> Self {
        let mut known = Self::default();
        let spec = pod::spec(pod);
        if spec.resources.is_none() && qos(spec) == Qos::BestEffort {
            // It never has any, since a resize leaves its class as it is; and there are many.
            return known;
        }
        if let Some(whole) = &spec.resources {
            // Sandboxes are made with it.
            known.allocated.insert(POD.to_owned(), whole.clone());
            known.actuated.insert(POD.to_owned(), whole.clone());
        }
        let status = pod::status(pod);
        for (container, _) in pod::containers(pod) {
            let name = &container.name;
            let inits = status.init_container_statuses.iter().flatten();
            let mut statuses = status.container_statuses.iter().flatten().chain(inits);
            let status = statuses.find(|status| status.name == *name);
            let told = status.and_then(|status| Some((status, status.resources.as_ref()?)));
            let mut allocated = container.resources.clone().unwrap_or_default();
            if let Some((status, actual)) = told {
                put(&mut allocated.limits, actual.limits.as_ref());
                let requests = status.allocated_resources.as_ref();
                put(
                    &mut allocated.requests,
                    requests.or(actual.requests.as_ref()),
                );
                if runs(status) {
                    known.actuated.insert(name.clone(), actual.clone());
                }
            }
            known.allocated.insert(name.clone(), allocated);
        }
        known
    }

    /// The Pod as it is run: with what is allocated in place of what its spec says.
    pub(crate) fn apply<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        with(pod, &self.allocated)
    }

    /// Whether the spec wants something else.
    pub(crate) fn differs(&self, pod: &Pod) -> bool {
        resources(pod).any(|(name, wanted)| {
            let allocated = self.allocated.get(name);
            allocated.is_some_and(|allocated| !same(allocated, wanted))
        })
    }

    /// Allocates what the spec says.
    pub(crate) fn take(&mut self, pod: &Pod) {
        for (name, wanted) in resources(pod) {
            let Some(allocated) = self.allocated.get_mut(name) else {
                continue;
            };
            let wanted = wanted.cloned().unwrap_or_default();
            put(&mut allocated.requests, wanted.requests.as_ref());
            put(&mut allocated.limits, wanted.limits.as_ref());
        }
    }

    /// Notes that a container has what is allocated to it.
    pub(crate) fn actuate(&mut self, name: &str) {
        if let Some(allocated) = self.allocated.get(name) {
            self.actuated.insert(name.to_owned(), allocated.clone());
        }
    }

    /// Notes that all containers together have what is allocated to the Pod.
    pub(crate) fn actuate_pod(&mut self, limits: Resources) {
        self.pod = Some(limits);
        self.actuate(POD);
    }

    /// What a running container has.
    pub(crate) fn actual(&self, name: &str) -> Option<&ResourceRequirements> {
        self.actuated.get(name).or(self.allocated.get(name))
    }

    /// What all containers together have, if their Pod asks for something as a whole.
    pub(crate) fn actual_pod(&self) -> Option<&ResourceRequirements> {
        self.actual(POD)
    }

    /// What a container has and what it is to have, if it was made with something else.
    fn change(&self, name: &str) -> Option<(&ResourceRequirements, &ResourceRequirements)> {
        let (actual, wanted) = (self.actuated.get(name)?, self.allocated.get(name)?);
        (!same(actual, Some(wanted))).then_some((actual, wanted))
    }

    /// Whether a container that runs does not have yet what is allocated to it.
    pub(crate) fn in_progress(&self, runtime: &PodRuntime) -> bool {
        self.change(POD).is_some() || self.is_to_change(runtime)
    }

    /// Whether a container runs that has something else than is allocated to it.
    pub(crate) fn is_to_change(&self, runtime: &PodRuntime) -> bool {
        let mut running = runtime.running();
        running.any(|of| self.change(of.name()).is_some())
    }

    /// Whether a container gets what is allocated to it by a restart, as its policy wants.
    pub(crate) fn restarts(&self, container: &Container) -> bool {
        let Some((actual, wanted)) = self.change(&container.name) else {
            return false;
        };
        let mut policies = container.resize_policy.iter().flatten();
        policies.any(|policy| {
            let of = |list: ResourceList| list.get(&policy.resource_name).copied();
            let pair = |of_: &ResourceRequirements| {
                let (requests, limits) = (of_.requests.as_ref(), of_.limits.as_ref());
                (of(parse(requests)), of(parse(limits)))
            };
            policy.restart_policy == "RestartContainer" && pair(actual) != pair(wanted)
        })
    }

    /// What is to be told to the runtimes of containers that run on, of a Pod as it is run: what
    /// gives memory back comes first.
    pub(crate) fn updates(&self, pod: &Pod, runtime: &PodRuntime) -> Vec<Update> {
        let mut updates: Vec<(bool, Update)> = Vec::new();
        let was_whole = self.actual_pod().map(limits).unwrap_or_default();
        let whole = whole_limits(pod::spec(pod));
        for of in runtime.running() {
            let found = pod::own_container(pod, of.name());
            let Some((container, _)) = found.filter(|(of, _)| !self.restarts(of)) else {
                continue;
            };
            let wanted = self.allocated.get(of.name());
            let change = self.change(of.name());
            let actual = change.map(|(actual, _)| actual).or(wanted);
            let was = start::units(actual, &was_whole);
            let resources = start::units(wanted, &whole);
            // Where it has no limit of its own that of its Pod may have changed.
            if change.is_none() && was == resources {
                continue;
            }
            let (before, after) = (was.memory_limit_bytes, resources.memory_limit_bytes);
            let lowered = after.filter(|after| before.is_none_or(|before| *after < before));
            let update = Update {
                name: container.name.clone(),
                id: of.id().clone(),
                runtime: of.runtime,
                resources,
                lowered,
            };
            updates.push((lowered.is_none(), update));
        }
        updates.sort_by_key(|(grows, _)| *grows);
        updates.into_iter().map(|(_, update)| update).collect()
    }

    /// What all containers together have, of a Pod as it is run.
    pub(crate) fn pod_now(&self, pod: &Pod) -> Resources {
        let actual = || cgroups::resources(&with(pod, &self.actuated));
        self.pod.clone().unwrap_or_else(actual)
    }
}

fn limits(of: &ResourceRequirements) -> ResourceList {
    let mut limits = parse(of.limits.as_ref());
    limits.retain(|_, limit| !limit.is_zero());
    limits
}

/// What is enough for both: no limit, where one has none.
pub(crate) fn larger(a: &Resources, b: &Resources) -> Resources {
    let limit = |a: Option<u64>, b: Option<u64>| Some(a?.max(b?));
    Resources {
        cpu_request_millis: a.cpu_request_millis.max(b.cpu_request_millis),
        cpu_limit_millis: limit(a.cpu_limit_millis, b.cpu_limit_millis),
        memory_limit_bytes: limit(a.memory_limit_bytes, b.memory_limit_bytes),
        // They are not resized.
        huge_pages: a.huge_pages.clone(),
    }
}

fn runs(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    state.is_some_and(|state| state.running.is_some())
}

type List = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

/// Sets CPU and memory of a list to those of another.
fn put(list: &mut Option<List>, of: Option<&List>) {
    for name in [CPU, MEMORY] {
        match of.and_then(|of| of.get(name)) {
            Some(amount) => {
                let list = list.get_or_insert_default();
                list.insert(name.to_owned(), amount.clone());
            }
            None => {
                if let Some(list) = list {
                    list.remove(name);
                }
            }
        }
    }
    if list.as_ref().is_some_and(BTreeMap::is_empty) {
        *list = None;
    }
}

/// Whether CPU and memory are the same, however they are written.
fn same(a: &ResourceRequirements, b: Option<&ResourceRequirements>) -> bool {
    let amounts = |of: Option<&ResourceRequirements>| {
        let lists = [
            of.and_then(|of| of.requests.as_ref()),
            of.and_then(|of| of.limits.as_ref()),
        ];
        lists.map(|list| {
            let mut list = parse(list);
            list.retain(|name, _| matches!(name.as_str(), CPU | MEMORY));
            list
        })
    };
    amounts(Some(a)) == amounts(b)
}

/// What the containers of a Pod are to have, and the Pod as a whole.
fn resources(pod: &Pod) -> impl Iterator<Item = (&str, Option<&ResourceRequirements>)> {
    let whole = (POD, pod::spec(pod).resources.as_ref());
    let each = pod::containers(pod).map(|(of, _)| (of.name.as_str(), of.resources.as_ref()));
    each.chain([whole])
}

/// A Pod with CPU and memory of these containers as they are here.
fn with<'a>(pod: &'a Pod, lists: &ByName) -> Cow<'a, Pod> {
    let differs = |(name, own): (&str, Option<&ResourceRequirements>)| {
        let list = lists.get(name);
        list.is_some_and(|list| !same(list, own))
    };
    if !resources(pod).any(differs) {
        return Cow::Borrowed(pod);
    }
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        let inits = spec.init_containers.iter_mut().flatten();
        let containers = spec.containers.iter_mut().chain(inits);
        let each = containers.map(|of| (of.name.as_str(), &mut of.resources));
        for (name, own) in each.chain([(POD, &mut spec.resources)]) {
            if let Some(list) = lists.get(name) {
                let own = own.get_or_insert_default();
                put(&mut own.requests, list.requests.as_ref());
                put(&mut own.limits, list.limits.as_ref());
            }
        }
    }
    Cow::Owned(pod)
}

#[cfg(test)]
#[path = "allocation_tests.rs"]
mod tests;
