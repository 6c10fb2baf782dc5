//! Service: one name and address for many Pods. The addresses themselves are given by the
//! registry (`service_addresses`), after validation.

mod columns;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, NameRule, Strategy, Subresource,
};
use crate::validation::service::{
    is_external, is_headless, needs_health_check, validate_service, validate_service_status,
    validate_service_update,
};
use crate::validation::{items, text};

/// How long a client stays with its endpoint: three hours.
const AFFINITY_SECONDS: i32 = 10800;

pub(super) struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    type Object = Service;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Service>()
            .short_names(&["svc"])
            .returns_deleted()
            .categories(&["all"])
            .names(NameRule::DnsLabel)
            .subresources(&[Subresource::Status, Subresource::Proxy])
            .fields(&["spec.clusterIP", "spec.type"])
            .create_on_update()
    }

    fn set_defaults(&self, object: &mut Service) {
        set_spec_defaults(object.spec.get_or_insert_default());
        let status = object.status.get_or_insert_default();
        let ingress = status
            .load_balancer
            .get_or_insert_default()
            .ingress
            .iter_mut()
            .flatten();
        for ingress in ingress.filter(|ingress| !text(&ingress.ip).is_empty()) {
            ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
    }

    fn prepare_for_create(&self, object: &mut Service) {
        object.status = Some(ServiceStatus {
            load_balancer: Some(Default::default()),
            conditions: None,
        });
        set_families(object.spec.get_or_insert_default());
    }

    fn validate(&self, object: &Service) -> ErrorList {
        validate_service(object)
    }

    fn prepare_for_update(&self, new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        let (Some(spec), Some(old)) = (new.spec.as_mut(), old.spec.as_ref()) else {
            return;
        };
        if text(&spec.type_) != "LoadBalancer"
            && let Some(status) = &mut new.status
        {
            status.load_balancer = Some(Default::default());
        }
        let new = spec;
        // A client that knows clusterIP only has changed clusterIPs with it, or cleared it.
        if text(&new.cluster_ip) != text(&old.cluster_ip)
            && items(&new.cluster_ips) == items(&old.cluster_ips)
        {
            let ip = new.cluster_ip.clone().filter(|ip| !ip.is_empty());
            new.cluster_ips = ip.map(|ip| vec![ip]);
        }
        drop_what_the_type_lost(new, old);
        if text(&new.type_) != "ExternalName" {
            if text(&old.type_) != "ExternalName" {
                new.ip_families = new.ip_families.take().or_else(|| old.ip_families.clone());
                new.ip_family_policy = new
                    .ip_family_policy
                    .take()
                    .or_else(|| old.ip_family_policy.clone());
            }
            set_families(new);
        }
    }

    fn validate_update(&self, new: &Service, old: &Service) -> ErrorList {
        validate_service_update(new, old)
    }

    fn prepare_for_status_update(&self, new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Service, _old: &Service) -> ErrorList {
        validate_service_status(new)
    }

    fn warnings(&self, object: &Service) -> Vec<String> {
        warnings(object)
    }

    fn selectable_fields(&self, object: &Service) -> Vec<(&'static str, String)> {
        let spec = object.spec.as_ref();
        vec![
            (
                "spec.clusterIP",
                spec.map_or("", |spec| text(&spec.cluster_ip)).to_owned(),
            ),
            (
                "spec.type",
                spec.map_or("", |spec| text(&spec.type_)).to_owned(),
            ),
        ]
    }

    fn columns(&self) -> Vec<Column> {
        columns::columns()
    }

    fn row(&self, object: &Service, now: jiff::Timestamp) -> Vec<Cell> {
        columns::row(object, now)
    }
}

/// The older name of the annotation for topology-aware routing.
const TOPOLOGY_AWARE_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// What of a Service is ignored, or will be.
fn warnings(service: &Service) -> Vec<String> {
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let annotations = service.metadata.annotations.as_ref();
    let external = text(&spec.type_) == "ExternalName";
    let headless = is_headless(spec) && text(&spec.type_) == "ClusterIP";
    let has_external_ips = !items(&spec.external_ips).is_empty();
    let warnings = [
        (
            annotations.is_some_and(|all| all.contains_key(TOPOLOGY_AWARE_HINTS)),
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
        ),
        (
            headless && !text(&spec.load_balancer_ip).is_empty(),
            "spec.loadBalancerIP is ignored for headless services",
        ),
        (
            headless && has_external_ips,
            "spec.externalIPs is ignored for headless services",
        ),
        (
            headless && text(&spec.session_affinity) != "None",
            "spec.SessionAffinity is ignored for headless services",
        ),
        (
            has_external_ips && !headless && !external,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        ),
        (
            has_external_ips && external,
            "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
        ),
        (
            !external && !text(&spec.external_name).is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            text(&spec.traffic_distribution) == "PreferClose",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
    ];
    warnings
        .into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, warning)| warning.to_owned())
        .collect()
}

fn set_spec_defaults(spec: &mut ServiceSpec) {
    default(&mut spec.session_affinity, "None");
    match text(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let client = spec
                .session_affinity_config
                .get_or_insert_default()
                .client_ip
                .get_or_insert_default();
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
    default(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        set_port_defaults(port);
    }
    if is_external(spec) {
        default(&mut spec.external_traffic_policy, "Cluster");
    }
    if matches!(text(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") {
        default(&mut spec.internal_traffic_policy, "Cluster");
    }
    if text(&spec.type_) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    // The older field speaks for the newer one.
    if !text(&spec.cluster_ip).is_empty() && items(&spec.cluster_ips).is_empty() {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
}

fn set_port_defaults(port: &mut ServicePort) {
    default(&mut port.protocol, "TCP");
    let unset = match &port.target_port {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(name)) => name.is_empty(),
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// The families of a Service's addresses. Those of the cluster are IPv4; of a headless Service
/// without a selector, whose endpoints are not the cluster's, they may be both.
fn set_families(spec: &mut ServiceSpec) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let foreign = is_headless(spec)
        && spec
            .selector
            .as_ref()
            .is_none_or(|selector| selector.is_empty());
    default(
        &mut spec.ip_family_policy,
        if foreign {
            "RequireDualStack"
        } else {
            "SingleStack"
        },
    );
    if items(&spec.ip_families).is_empty() {
        spec.ip_families = Some(vec!["IPv4".to_owned()]);
    }
    if foreign && text(&spec.ip_family_policy) != "SingleStack" {
        let families = spec.ip_families.get_or_insert_default();
        if let [only] = families.as_slice() {
            let other = if only == "IPv4" { "IPv6" } else { "IPv4" };
            families.push(other.to_owned());
        }
    }
}

/// Drops what the new type does not have and the client did not touch, so that a change of type
/// alone is a valid update: `dropTypeDependentFields` of Kubernetes.
fn drop_what_the_type_lost(new: &mut ServiceSpec, old: &ServiceSpec) {
    if text(&old.type_) != "ExternalName" && text(&new.type_) == "ExternalName" {
        if text(&new.cluster_ip) == text(&old.cluster_ip)
            && items(&new.cluster_ips) == items(&old.cluster_ips)
        {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    let ported = |spec: &ServiceSpec| matches!(text(&spec.type_), "NodePort" | "LoadBalancer");
    if ported(old) && !ported(new) && node_ports(old).is_superset(&node_ports(new)) {
        for port in new.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    let balances = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
    if balances(old) && !balances(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if is_external(old)
        && !is_external(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    let ports = items(&spec.ports).iter().filter_map(|port| port.node_port);
    ports.filter(|number| *number != 0).collect()
}

fn default(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

#[cfg(test)]
mod tests;
