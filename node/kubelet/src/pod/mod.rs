//! Reading a Pod: accessors that say once what a missing field means.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use coracle_runtime::PodIdentity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub(crate) mod cgroups;
pub(crate) mod dns;
pub(crate) mod env;
pub(crate) mod expand;
pub(crate) mod fields;
pub(crate) mod security;
pub(crate) mod service_env;

/// Priority from which a Pod is critical to the cluster.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// When a container is started again after it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended with `code` is started again.
    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// What a container is to its Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: it runs beside the others.
    Sidecar,
    /// One of `spec.containers`.
    App,
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `name_namespace(uid)`, as the kubelet's messages name a Pod.
pub(crate) fn long_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity {
        namespace: namespace(pod).to_owned(),
        name: name(pod).to_owned(),
        uid: uid(pod).to_owned(),
    }
}

/// The specification; a Pod without one has no containers and asks for nothing.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn restart_policy(pod: &Pod) -> RestartPolicy {
    match spec(pod).restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Init containers in order, then the Pod's own, each with its role.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    let inits = init_containers(pod).iter().map(|c| (c, init_role(c)));
    inits.chain(spec(pod).containers.iter().map(|c| (c, Role::App)))
}

pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<(&'a Container, Role)> {
    containers(pod).find(|(container, _)| container.name == name)
}

pub(crate) fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

/// The restart policy of a container in its role.
pub(crate) fn container_restart_policy(pod: &Pod, role: Role) -> RestartPolicy {
    match (role, restart_policy(pod)) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        // An init container that succeeded is done, whatever the Pod says.
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

/// The grace period of the Pod: what a deletion asked for, else what its spec says.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let seconds = asked
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(crate) fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the API says that the Pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(
        status(pod).phase.as_deref(),
        Some("Succeeded") | Some("Failed")
    )
}

pub(crate) fn is_critical(pod: &Pod) -> bool {
    spec(pod).priority.unwrap_or(0) >= CRITICAL_PRIORITY
}

/// The host name that the Pod's containers see: at most 63 characters.
pub(crate) fn hostname(pod: &Pod) -> String {
    let wanted = spec(pod).hostname.as_deref().filter(|h| !h.is_empty());
    let mut hostname = wanted.unwrap_or(name(pod)).to_owned();
    hostname.truncate(63);
    hostname.trim_end_matches(['-', '.']).to_owned()
}

/// The Pod's addresses as the API has them.
pub(crate) fn reported_ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = status(pod).pod_ips.iter().flatten();
    ips.filter_map(|ip| ip.ip.parse().ok()).collect()
}

/// A moment in the API's type, which has whole seconds; one that it cannot express becomes the
/// epoch.
pub(crate) fn api_time(at: SystemTime) -> Time {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(seconds.as_secs()).unwrap_or(0);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}
