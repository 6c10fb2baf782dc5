//! What pods ask of a node: the sums of requests and limits, and the quality of service.
//!
//! Quantities that do not parse count as nothing: validation has refused them long before.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::quantity::Quantity;

/// Amounts by the name of the resource.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Processor time, in cores.
pub const CPU: &str = "cpu";
/// Memory, in bytes.
pub const MEMORY: &str = "memory";
/// Local disk, in bytes.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// Pods on a node.
pub const PODS: &str = "pods";

/// Huge pages, in bytes; those of each size are a resource of their own, whose name ends with it.
pub const HUGE_PAGES: &str = "hugepages-";

/// The size in bytes of the huge pages that a resource is; none if it is something else.
pub fn huge_page_size(name: &str) -> Option<u64> {
    let size: Quantity = name.strip_prefix(HUGE_PAGES)?.parse().ok()?;
    u64::try_from(size.value()).ok().filter(|size| *size > 0)
}

/// The huge pages in a list, in bytes, by their size.
pub fn huge_pages(list: &ResourceList) -> BTreeMap<u64, u64> {
    let of = |(name, amount): (&String, &Quantity)| {
        let bytes = u64::try_from(amount.value()).ok()?;
        Some((huge_page_size(name)?, bytes))
    };
    list.iter().filter_map(of).collect()
}

/// A list of the API as amounts.
pub fn parse(list: Option<&BTreeMap<String, ApiQuantity>>) -> ResourceList {
    let amount =
        |(name, quantity): (&String, &ApiQuantity)| Some((name.clone(), quantity.try_into().ok()?));
    list.into_iter().flatten().filter_map(amount).collect()
}

/// Amounts as a list of the API.
pub fn to_api(list: &ResourceList) -> BTreeMap<String, ApiQuantity> {
    list.iter()
        .map(|(name, amount)| (name.clone(), amount.into()))
        .collect()
}

/// Adds each amount of a list.
pub fn add(sum: &mut ResourceList, list: &ResourceList) {
    for (name, amount) in list {
        sum.entry(name.clone()).or_default().add(amount);
    }
}

/// Takes each amount of a list away.
pub fn sub(sum: &mut ResourceList, list: &ResourceList) {
    for (name, amount) in list {
        sum.entry(name.clone()).or_default().sub(amount);
    }
}

/// Raises each amount to that of the list, where it is larger.
pub fn max(most: &mut ResourceList, list: &ResourceList) {
    for (name, amount) in list {
        match most.get_mut(name) {
            Some(present) if *present >= *amount => {}
            Some(present) => *present = *amount,
            None => {
                most.insert(name.clone(), *amount);
            }
        }
    }
}

/// What one container asks for.
pub fn container_requests(container: &Container) -> ResourceList {
    parse(
        container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref()),
    )
}

/// What one container may have at most.
pub fn container_limits(container: &Container) -> ResourceList {
    parse(
        container
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref()),
    )
}

/// Whether an init container goes on running beside the containers (a sidecar, KEP-753).
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// What a pod needs of a node: the larger of what runs together at any time, init containers
/// with the sidecars started before them, or containers with all sidecars; requests of the pod
/// as a whole in place of those; and the overhead of its RuntimeClass.
pub fn pod_requests(spec: &PodSpec) -> ResourceList {
    requests_by(spec, container_requests, whole_requests(spec))
}

/// Requests of the pod as a whole.
fn whole_requests(spec: &PodSpec) -> ResourceList {
    let resources = spec.resources.as_ref();
    parse(resources.and_then(|resources| resources.requests.as_ref()))
}

fn requests_by(
    spec: &PodSpec,
    of: impl Fn(&Container) -> ResourceList,
    whole: ResourceList,
) -> ResourceList {
    let mut requests = combined(spec, of);
    requests.extend(whole);
    add(&mut requests, &parse(spec.overhead.as_ref()));
    requests
}

/// What a pod on a node is counted with while it is resized (KEP-1287): of each container, and of the
/// pod as a whole where that asks for something (KEP-5419), the largest of what it asks for, what was
/// allocated to it, and what it has. What its node never had is not waited for.
pub fn pod_requests_in_place(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else {
        return ResourceList::new();
    };
    let status = pod.status.as_ref();
    let mut conditions = status
        .and_then(|status| status.conditions.as_ref())
        .into_iter();
    let infeasible = conditions.any(|conditions| {
        conditions.iter().any(|of| {
            let reason = of.reason.as_deref();
            of.type_ == "PodResizePending" && reason == Some("Infeasible")
        })
    });
    let most = |actual: &ResourceRequirements,
                allocated: Option<&BTreeMap<String, ApiQuantity>>,
                asked: ResourceList| {
        let mut most = parse(actual.requests.as_ref());
        max(&mut most, &parse(allocated));
        if !infeasible {
            max(&mut most, &asked);
        }
        most
    };
    let statuses = |container: &Container| {
        let status = status?;
        let apps = status.container_statuses.iter().flatten();
        let inits = status.init_container_statuses.iter().flatten();
        let mut all = apps.chain(inits);
        all.find(|status| status.name == container.name)
    };
    let of = |container: &Container| {
        let asked = container_requests(container);
        let Some(status) = statuses(container) else {
            return asked;
        };
        let Some(actual) = &status.resources else {
            return asked;
        };
        most(actual, status.allocated_resources.as_ref(), asked)
    };
    let asked = whole_requests(spec);
    let actual = status.and_then(|status| Some((status, status.resources.as_ref()?)));
    let whole = match actual {
        Some((status, actual)) if !asked.is_empty() => {
            most(actual, status.allocated_resources.as_ref(), asked)
        }
        _ => asked,
    };
    requests_by(spec, of, whole)
}

/// Limits of the pod as a whole (KEP-2837); a limit of zero is none.
pub fn whole_limits(spec: &PodSpec) -> ResourceList {
    let resources = spec.resources.as_ref();
    let mut limits = parse(resources.and_then(|resources| resources.limits.as_ref()));
    limits.retain(|_, limit| !limit.is_zero());
    limits
}

/// What a pod may have at most, combined as [`pod_requests`] does. Overhead is added only where
/// there is a limit, for none is no limit.
pub fn pod_limits(spec: &PodSpec) -> ResourceList {
    let mut limits = combined(spec, container_limits);
    limits.extend(whole_limits(spec));
    for (name, amount) in parse(spec.overhead.as_ref()) {
        if let Some(limit) = limits.get_mut(&name) {
            limit.add(&amount);
        }
    }
    limits
}

fn combined(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut running = ResourceList::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    let (mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new());
    for container in spec.init_containers.iter().flatten() {
        let mut together = of(container);
        add(&mut together, &sidecars);
        if is_sidecar(container) {
            sidecars = together.clone();
        }
        max(&mut peak, &together);
    }
    add(&mut running, &sidecars);
    max(&mut running, &peak);
    running
}

/// The quality of service of a pod: who is evicted last when a node runs short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// It asks for nothing.
    BestEffort,
    /// It asks for something.
    Burstable,
    /// Limits of CPU and memory for every container, and requests equal to them.
    Guaranteed,
}

impl Qos {
    /// As `status.qosClass` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// The quality of service that a spec amounts to.
pub fn qos(spec: &PodSpec) -> Qos {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let claims: Vec<Claim> = match &spec.resources {
        Some(whole) if claims_something(whole) => vec![Claim::of(Some(whole))],
        _ => containers
            .map(|container| Claim::of(container.resources.as_ref()))
            .collect(),
    };
    let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
    let mut guaranteed = true;
    for claim in &claims {
        add(&mut requests, &claim.requests);
        add(&mut limits, &claim.limits);
        guaranteed &= claim.limits.len() == 2;
    }
    match (
        requests.is_empty() && limits.is_empty(),
        guaranteed && requests == limits,
    ) {
        (true, _) => Qos::BestEffort,
        (false, true) => Qos::Guaranteed,
        (false, false) => Qos::Burstable,
    }
}

/// What counts for the quality of service: CPU and memory, where they are more than nothing.
struct Claim {
    requests: ResourceList,
    limits: ResourceList,
}

impl Claim {
    fn of(resources: Option<&ResourceRequirements>) -> Self {
        let counted = |list: Option<&BTreeMap<String, ApiQuantity>>| {
            let mut list = parse(list);
            list.retain(|name, amount| (name == CPU || name == MEMORY) && *amount > Quantity::ZERO);
            list
        };
        Self {
            requests: counted(resources.and_then(|resources| resources.requests.as_ref())),
            limits: counted(resources.and_then(|resources| resources.limits.as_ref())),
        }
    }
}

fn claims_something(resources: &ResourceRequirements) -> bool {
    let claim = Claim::of(Some(resources));
    !claim.requests.is_empty() || !claim.limits.is_empty()
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
