//! Reading a Pod: accessors that say once what a missing field means.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use coracle_runtime::PodIdentity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub(crate) mod app_armor;
pub(crate) mod cgroups;
pub(crate) mod dns;
pub(crate) mod env;
mod env_file;
pub(crate) mod ephemeral;
pub(crate) mod expand;
pub(crate) mod fields;
pub(crate) mod host_ports;
pub(crate) mod oom;
mod restart;
pub(crate) mod security;
pub(crate) mod service_env;

pub(crate) use restart::{RestartPolicy, may_begin_anew, restart_policy, restarts, restarts_all};

/// Annotation: where a Pod comes from, `file` or `api`.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: the hash of a static Pod's manifest.
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation: when the node read a static Pod's manifest.
pub(crate) const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// Annotation of the object that shows a static Pod in the API: the hash of what it shows.
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Priority from which a Pod is critical to the cluster.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a container is to its Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: it runs beside the others.
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// One that was added to debug the Pod, whose phase and readiness it does not touch.
    Ephemeral,
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

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Init containers in order, then the Pod's own, each with its role.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    let inits = init_containers(pod).iter().map(|c| (c, init_role(c)));
    inits.chain(spec(pod).containers.iter().map(|c| (c, Role::App)))
}

/// The container of that name, if it is one of the Pod's own.
pub(crate) fn own_container<'a>(pod: &'a Pod, name: &str) -> Option<(&'a Container, Role)> {
    containers(pod).find(|(container, _)| container.name == name)
}

/// The container of that name, which may be an ephemeral one.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<(Cow<'a, Container>, Role)> {
    let own = own_container(pod, name);
    let own = own.map(|(container, role)| (Cow::Borrowed(container), role));
    own.or_else(|| {
        let container = ephemeral::as_container(ephemeral::named(pod, name)?);
        Some((Cow::Owned(container), Role::Ephemeral))
    })
}

pub(crate) fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

/// The grace period of the Pod: what a deletion asked for, else what its spec says.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let seconds = asked
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(30);
    grace_of(seconds)
}

/// A grace period of so many seconds. They are the user's to choose, and none at all where there
/// would be less; as there is an end of time, a period lasts no longer than 30 years.
pub(crate) fn grace_of(seconds: i64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(30 * 365 * 86400);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST)
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

/// An annotation of the Pod.
pub(crate) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Whether the Pod is run because of a file of the node. Pods of the API cannot say so of
/// themselves: see [`crate::source`].
pub(crate) fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE) == Some("file")
}

/// Whether the node ends all others first: static Pods are critical to it.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || spec(pod).priority.unwrap_or(0) >= CRITICAL_PRIORITY
}

/// The longest host name that Linux takes.
const MAX_HOSTNAME: usize = 64;

/// What the Pod is called whatever its names elsewhere are (`hostnameOverride`, KEP-4762).
fn other_hostname(pod: &Pod) -> Option<&str> {
    let wanted = spec(pod).hostname_override.as_deref();
    wanted.filter(|name| !name.is_empty())
}

/// The host name that the Pod's containers see: at most 63 characters.
pub(crate) fn hostname(pod: &Pod) -> String {
    let own = spec(pod).hostname.as_deref().filter(|h| !h.is_empty());
    let wanted = other_hostname(pod).or(own);
    let mut hostname = wanted.unwrap_or(name(pod)).to_owned();
    hostname.truncate(63);
    hostname.trim_end_matches(['-', '.']).to_owned()
}

/// Whether the Pod's own name is the full one (`setHostnameAsFQDN`).
pub(crate) fn is_known_in_full(pod: &Pod) -> bool {
    spec(pod).set_hostname_as_fqdn == Some(true)
}

/// The Pod's name in the cluster's domain, if it says under which subdomain it is known.
pub(crate) fn full_name(pod: &Pod, domain: Option<&str>) -> Result<Option<String>, String> {
    let subdomain = spec(pod).subdomain.as_deref().filter(|s| !s.is_empty());
    let Some(subdomain) = subdomain.filter(|_| other_hostname(pod).is_none()) else {
        return Ok(None);
    };
    let Some(domain) = domain else {
        return match is_known_in_full(pod) {
            true => Err("setHostnameAsFQDN is not supported where Pods have no network".to_owned()),
            false => Ok(None),
        };
    };
    let full = format!(
        "{}.{subdomain}.{}.svc.{domain}",
        hostname(pod),
        namespace(pod)
    );
    if is_known_in_full(pod) && full.len() > MAX_HOSTNAME {
        return Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long ({MAX_HOSTNAME} characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(Some(full))
}

/// What the Pod adds to its containers' file of hosts (`hostAliases`): addresses and their names.
pub(crate) fn host_aliases(pod: &Pod) -> Vec<(String, Vec<String>)> {
    let aliases = spec(pod).host_aliases.iter().flatten();
    aliases
        .map(|alias| {
            (
                alias.ip.clone(),
                alias.hostnames.clone().unwrap_or_default(),
            )
        })
        .collect()
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(mut spec: Value) -> Pod {
        spec["containers"] = json!([]);
        let metadata = json!({"name": "web", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_may_be_called_otherwise() {
        let own = json!({"hostname": "h", "subdomain": "sub", "hostnameOverride": "db.example"});
        let own = pod(own);
        assert_eq!(hostname(&own), "db.example");
        assert_eq!(full_name(&own, Some("c.local")), Ok(None));
        assert_eq!(hostname(&pod(json!({"hostname": "h"}))), "h");
        let long = pod(json!({"hostnameOverride": "x".repeat(64)}));
        assert_eq!(hostname(&long).len(), 63);
    }

    #[test]
    fn a_grace_period_ends() {
        for (seconds, expected) in [(-1, 0), (0, 0), (30, 30), (i64::MAX, 30 * 365 * 86400)] {
            let grace = grace(&pod(json!({"terminationGracePeriodSeconds": seconds})));
            assert_eq!(grace.as_secs(), expected, "{seconds}");
            let now = tokio::time::Instant::now();
            assert!(now + grace >= now, "{seconds}");
        }
    }

    #[test]
    fn a_pods_full_name_is_below_its_subdomain() {
        let long = "x".repeat(40);
        for (spec, domain, want) in [
            (json!({}), Some("c.local"), Ok(None)),
            (json!({"setHostnameAsFQDN": true}), None, Ok(None)),
            (
                json!({"subdomain": "sub"}),
                Some("c.local"),
                Ok(Some("web.sub.shop.svc.c.local")),
            ),
            (
                json!({"subdomain": "sub", "hostname": "h"}),
                Some("c.local"),
                Ok(Some("h.sub.shop.svc.c.local")),
            ),
            (json!({"subdomain": "sub"}), None, Ok(None)),
            (
                json!({"subdomain": "sub", "setHostnameAsFQDN": true}),
                None,
                Err("where Pods have no network"),
            ),
            (
                json!({"subdomain": long, "setHostnameAsFQDN": true}),
                Some("cluster.local"),
                Err("64 characters is the max, 67 characters requested"),
            ),
        ] {
            match (full_name(&pod(spec.clone()), domain), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.as_deref(), want, "{spec}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                other => panic!("{spec}: {other:?}"),
            }
        }
    }
}
