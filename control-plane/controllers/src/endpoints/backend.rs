//! The Pods behind a Service, as both forms of endpoints need them.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_apimachinery::pods::target_port;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::pods;

/// One address of one Pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Backend {
    pub(super) address: IpAddr,
    /// The ports that the Pod has of those that the Service names.
    pub(super) ports: Vec<EndpointPort>,
    /// Its condition Ready.
    pub(super) serving: bool,
    pub(super) terminating: bool,
    /// Whether it is to get traffic: serving and not terminating, or published regardless.
    pub(super) ready: bool,
    pub(super) hostname: Option<String>,
    pub(super) node: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) target: ObjectReference,
}

/// Whether its endpoints are ours to make.
pub(super) fn has_backends(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    let external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    !external && selector.is_some_and(|selector| !selector.is_empty())
}

/// Whether the Pod is behind the Service.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    service.metadata.namespace == pod.metadata.namespace
        && has_backends(service)
        && service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref())
            .is_some_and(|selector| {
                selector
                    .iter()
                    .all(|(key, value)| pod.labels().get(key) == Some(value))
            })
}

/// Whether the Service has no address of its own.
pub(super) fn headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The address families of the Service, IPv4 where it does not say.
pub(super) fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.clone())
        .unwrap_or_default();
    if families.is_empty() {
        vec!["IPv4".to_owned()]
    } else {
        families
    }
}

/// The family of an address.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The backends, in the order of their addresses.
pub(super) fn backends(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: impl Fn(&Pod) -> Option<String>,
) -> Vec<Backend> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let families = families(service);
    let mut backends = Vec::new();
    for pod in pods.iter().filter(|pod| !pods::finished(pod)) {
        for address in addresses(pod) {
            if families.iter().any(|name| name == family(address)) {
                let zone = zone(pod);
                backends.push(backend(service, spec, pod, address, zone));
            }
        }
    }
    backends.sort_by(|a, b| (a.address, &a.target.uid).cmp(&(b.address, &b.target.uid)));
    backends
}

fn backend(
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    address: IpAddr,
    zone: Option<String>,
) -> Backend {
    let serving = pods::ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let publish = spec.publish_not_ready_addresses == Some(true);
    let name = service.name_any();
    let pod_spec = pod.spec.as_ref();
    let subdomain = pod_spec.and_then(|spec| spec.subdomain.as_deref());
    let hostname = pod_spec.and_then(|spec| spec.hostname.clone());
    Backend {
        address,
        ports: spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| endpoint_port(port, pod))
            .collect(),
        serving,
        terminating,
        ready: publish || serving && !terminating,
        hostname: hostname.filter(|host| !host.is_empty() && subdomain == Some(name.as_str())),
        node: pods::node(pod).map(str::to_owned),
        // A label without a value names none.
        zone: zone.filter(|zone| !zone.is_empty()),
        target: ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        },
    }
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref());
    let all: Vec<_> = all
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.ip.parse().ok())
        .collect();
    if !all.is_empty() {
        return all;
    }
    let one = status.and_then(|status| status.pod_ip.as_ref());
    one.and_then(|ip| ip.parse().ok()).into_iter().collect()
}

fn endpoint_port(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let same = IntOrString::Int(port.port);
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => &same,
        Some(target) => target,
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(target_port(pod, target, protocol)?.into()),
        protocol: Some(protocol.to_owned()),
        app_protocol: port.app_protocol.clone(),
    })
}
