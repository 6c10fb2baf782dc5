//! Services: what their types allow.

mod addresses;
mod balancer;

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use self::addresses::{validate_cluster_ips, validate_kept_addresses};
use self::balancer::{validate_ingress, validate_load_balancer};
use super::address::validate_non_special_ip;
use super::labels::validate_labels;
use super::legacy_address::ip_fault;
use super::port::{PROTOCOLS, validate_number, validate_number_or_name};
use super::{faults, items, one_of, shown, text};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// Longest time for which a client stays with its endpoint: a day.
const MAX_AFFINITY_SECONDS: i32 = 86400;
const TRAFFIC_DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];

/// Everything that is wrong with a Service.
pub(crate) fn validate_service(service: &Service) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    validate_by_type(spec, &at, &mut errors);
    validate_ports(spec, &at.child("ports"), &mut errors);
    validate_labels(spec.selector.as_ref(), &at.child("selector"), &mut errors);
    validate_affinity(spec, &at, &mut errors);
    validate_cluster_ips(spec, &at, &mut errors);
    for (i, ip) in items(&spec.external_ips).iter().enumerate() {
        let at = at.child("externalIPs").index(i);
        match ip_fault(ip) {
            Some(fault) => errors.push(Error::invalid(&at, ip.as_str(), fault)),
            None => validate_non_special_ip(ip, &at, &mut errors),
        }
    }
    one_of(text(&spec.type_), TYPES, &at.child("type"), &mut errors);
    validate_load_balancer(service, spec, &at, &mut errors);
    validate_traffic(spec, &at, &mut errors);
    errors
}

/// Everything that is wrong with a Service that replaces `old`.
pub(crate) fn validate_service_update(new: &Service, old: &Service) -> ErrorList {
    let mut errors = ErrorList::default();
    let (spec, was) = (
        new.spec.clone().unwrap_or_default(),
        old.spec.clone().unwrap_or_default(),
    );
    validate_kept_addresses(&spec, &was, &mut errors);
    let both_balance = text(&spec.type_) == "LoadBalancer" && text(&was.type_) == "LoadBalancer";
    if both_balance && spec.load_balancer_class != was.load_balancer_class {
        let at = Path::new("spec").child("loadBalancerClass");
        errors.push(Error::invalid(
            &at,
            shown(&spec.load_balancer_class),
            "may not change once set",
        ));
    }
    if needs_health_check(&spec)
        && needs_health_check(&was)
        && spec.health_check_node_port != was.health_check_node_port
    {
        errors.push(Error::forbidden(
            &Path::new("spec").child("healthCheckNodePort"),
            super::IMMUTABLE,
        ));
    }
    errors.extend(validate_service(new));
    errors
}

/// Everything that is wrong with the status of a Service.
pub(crate) fn validate_service_status(service: &Service) -> ErrorList {
    let mut errors = ErrorList::default();
    let Some(status) = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
    else {
        return errors;
    };
    let kind = service.spec.as_ref().map_or("", |spec| text(&spec.type_));
    let at = Path::new("status").child("loadBalancer").child("ingress");
    if kind != "LoadBalancer" && !items(&status.ingress).is_empty() {
        errors.push(Error::forbidden(
            &at,
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
    } else {
        validate_ingress(status, &at, &mut errors);
    }
    errors
}

/// Whether a Service has no address of its own, and its name stands for its endpoints.
pub(crate) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(items(&spec.cluster_ips), [only] if only == "None")
}

/// Whether a Service can be reached from outside the cluster.
pub(crate) fn is_external(spec: &ServiceSpec) -> bool {
    match text(&spec.type_) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !items(&spec.external_ips).is_empty(),
        _ => false,
    }
}

/// Whether a balancer has to know which nodes have endpoints.
pub(crate) fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

fn validate_by_type(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    let (kind, headless) = (text(&spec.type_), is_headless(spec));
    if items(&spec.ports).is_empty() && !headless && kind != "ExternalName" {
        errors.push(Error::required(&at.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(Error::invalid(
                &at.child("clusterIPs").index(0),
                "None",
                detail,
            ));
        }
        "ExternalName" => {
            let set = [
                ("clusterIPs", !items(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !items(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (field, _) in set.into_iter().filter(|(_, set)| *set) {
                errors.push(Error::forbidden(
                    &at.child(field),
                    "may not be set for ExternalName services",
                ));
            }
            // A trailing dot says that the name is complete.
            let name = text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            let at = at.child("externalName");
            if name.is_empty() {
                errors.push(Error::required(&at, ""));
            } else {
                faults(name, names::dns_subdomain(name), &at, errors);
            }
        }
        _ => {}
    }
}

fn validate_ports(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    let ports = items(&spec.ports);
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let is_taken = !text(&port.name).is_empty() && !names.insert(text(&port.name));
        validate_port(port, is_taken, ports.len() > 1, &at.index(i), errors);
        if text(&spec.type_) == "ClusterIP" && port.node_port.unwrap_or(0) != 0 {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(Error::forbidden(&at.index(i).child("nodePort"), detail));
        }
    }
    // A port is told from others by its protocol too.
    let mut node_ports: BTreeSet<(&str, i32)> = BTreeSet::new();
    let mut numbers: BTreeSet<(&str, i32)> = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let protocol = text(&port.protocol);
        if let Some(number) = port.node_port.filter(|number| *number != 0)
            && !node_ports.insert((protocol, number))
        {
            errors.push(Error::duplicate(&at.index(i).child("nodePort"), number));
        }
        if !numbers.insert((protocol, port.port)) {
            let key = serde_json::json!({"protocol": protocol, "port": port.port});
            errors.push(Error::duplicate(&at.index(i), key));
        }
    }
}

/// `is_taken` says whether a port before this one has its name.
fn validate_port(
    port: &ServicePort,
    is_taken: bool,
    named: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    let name = text(&port.name);
    if name.is_empty() {
        if named {
            errors.push(Error::required(&at.child("name"), ""));
        }
    } else {
        faults(name, names::dns_label(name), &at.child("name"), errors);
        if is_taken {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
    }
    validate_number(port.port, &at.child("port"), errors);
    one_of(
        text(&port.protocol),
        PROTOCOLS,
        &at.child("protocol"),
        errors,
    );
    let target = port
        .target_port
        .clone()
        .unwrap_or(IntOrString::Int(port.port));
    validate_number_or_name(&target, &at.child("targetPort"), errors);
    if let Some(protocol) = &port.app_protocol {
        faults(
            protocol,
            names::qualified_name(protocol),
            &at.child("appProtocol"),
            errors,
        );
    }
}

fn validate_affinity(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    let affinity = text(&spec.session_affinity);
    one_of(
        affinity,
        &["ClientIP", "None"],
        &at.child("sessionAffinity"),
        errors,
    );
    let at = at.child("sessionAffinityConfig");
    match (affinity, &spec.session_affinity_config) {
        ("ClientIP", config) => validate_client_ip(config.as_ref(), &at, errors),
        ("None", Some(_)) => {
            errors.push(Error::forbidden(
                &at,
                "must not be set when session affinity is None",
            ));
        }
        _ => {}
    }
}

fn validate_client_ip(config: Option<&SessionAffinityConfig>, at: &Path, errors: &mut ErrorList) {
    let detail = "when session affinity type is ClientIP";
    let client = at.child("clientIP");
    let Some(config) = config else {
        errors.push(Error::required(at, detail));
        return;
    };
    let Some(client_ip) = &config.client_ip else {
        errors.push(Error::required(&client, detail));
        return;
    };
    match client_ip.timeout_seconds {
        None => errors.push(Error::required(&client.child("timeoutSeconds"), detail)),
        Some(1..=MAX_AFFINITY_SECONDS) => {}
        Some(seconds) => {
            let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
            errors.push(Error::invalid(
                &client.child("timeoutSeconds"),
                seconds,
                detail,
            ));
        }
    }
}

fn validate_traffic(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    let external = text(&spec.external_traffic_policy);
    let external_at = at.child("externalTrafficPolicy");
    if is_external(spec) {
        one_of(external, &["Cluster", "Local"], &external_at, errors);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(Error::invalid(&external_at, external, detail));
    }
    let port = spec.health_check_node_port.unwrap_or(0);
    if port != 0 {
        let at = at.child("healthCheckNodePort");
        if needs_health_check(spec) {
            validate_number(port, &at, errors);
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(Error::invalid(&at, port, detail));
        }
    }
    let internal_at = at.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if matches!(text(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.push(Error::required(&internal_at, ""));
        }
        Some(policy) if !matches!(policy, "Cluster" | "Local") => {
            errors.push(Error::not_supported(
                &internal_at,
                policy,
                &["Cluster", "Local"],
            ));
        }
        _ => {}
    }
    if let Some(distribution) = &spec.traffic_distribution
        && !TRAFFIC_DISTRIBUTIONS.contains(&distribution.as_str())
    {
        let at = at.child("trafficDistribution");
        errors.push(Error::not_supported(
            &at,
            distribution.as_str(),
            TRAFFIC_DISTRIBUTIONS,
        ));
    }
}
