//! Services: what their types allow.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    LoadBalancerStatus, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::address::{self, validate_cidr, validate_ip, validate_non_special_ip};
use super::labels::validate_labels;
use super::port::{PROTOCOLS, validate_number, validate_number_or_name};
use super::{faults, items, one_of, shown, text};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// The older form of loadBalancerSourceRanges.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Longest time for which a client stays with its endpoint: a day.
const MAX_AFFINITY_SECONDS: i32 = 86400;
const TRAFFIC_DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];

/// Everything that is wrong with a Service.
pub(crate) fn validate_service(service: &Service) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let spec = service.spec.clone().unwrap_or_default();
    validate_by_type(&spec, &at, &mut errors);
    validate_ports(&spec, &at.child("ports"), &mut errors);
    validate_labels(spec.selector.as_ref(), &at.child("selector"), &mut errors);
    validate_affinity(&spec, &at, &mut errors);
    validate_cluster_ips(&spec, &at, &mut errors);
    for (i, ip) in items(&spec.external_ips).iter().enumerate() {
        let at = at.child("externalIPs").index(i);
        match address::parse(ip) {
            None => validate_ip(ip, &at, &mut errors),
            Some(_) => validate_non_special_ip(ip, &at, &mut errors),
        }
    }
    one_of(text(&spec.type_), TYPES, &at.child("type"), &mut errors);
    validate_load_balancer(service, &spec, &at, &mut errors);
    validate_traffic(&spec, &at, &mut errors);
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
    for (i, port) in ports.iter().enumerate() {
        validate_port(port, &ports[..i], ports.len() > 1, &at.index(i), errors);
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

fn validate_port(
    port: &ServicePort,
    before: &[ServicePort],
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
        if before.iter().any(|other| text(&other.name) == name) {
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

/// Cluster IPs and their families. The cluster has addresses of IPv4 only.
fn validate_cluster_ips(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let ips = items(&spec.cluster_ips);
    let ips_at = at.child("clusterIPs");
    match (text(&spec.cluster_ip), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(Error::invalid(&ips_at, shown(&ips), detail));
        }
        (_, None) => errors.push(Error::required(&ips_at, "")),
        (ip, Some(first)) if ip != first => {
            errors.push(Error::invalid(
                &ips_at,
                shown(&ips),
                "first value must match `clusterIP`",
            ));
        }
        _ => {}
    }
    validate_families(spec, at, errors);
    let before = errors.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                errors.push(Error::invalid(
                    &ips_at,
                    shown(&ips),
                    "'None' must be the first and only value",
                ));
            }
        } else {
            validate_ip(ip, &ips_at.index(i), errors);
        }
    }
    if errors.len() > before {
        return;
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(
            &ips_at,
            shown(&ips),
            "may only hold up to 2 values",
        ));
    }
    if ips.len() > 1 && !address::is_dual_stack(ips) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid(&ips_at, shown(&ips), detail));
    }
    let families = items(&spec.ip_families);
    for (i, (ip, family)) in ips
        .iter()
        .zip(families)
        .enumerate()
        .filter(|_| !is_headless(spec))
    {
        let is_v6 = address::parse(ip).is_some_and(|ip| ip.is_ipv6());
        if is_v6 != (family == "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(Error::invalid(&ips_at.index(i), ip.as_str(), detail));
        }
    }
}

fn validate_families(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    let families = items(&spec.ip_families);
    let families_at = at.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        one_of(family, &["IPv4", "IPv6"], &families_at.index(i), errors);
        if families[..i].contains(family) {
            errors.push(Error::duplicate(&families_at.index(i), family.as_str()));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        one_of(policy, &supported, &at.child("ipFamilyPolicy"), errors);
    }
    // The endpoints of a headless Service without a selector are somebody else's.
    if is_headless(spec)
        && spec
            .selector
            .as_ref()
            .is_none_or(|selector| selector.is_empty())
    {
        return;
    }
    if text(&spec.ip_family_policy) == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(
            &at.child("ipFamilyPolicy"),
            "RequireDualStack",
            detail,
        ));
    }
    for (i, _) in families
        .iter()
        .enumerate()
        .filter(|(_, family)| *family == "IPv6")
    {
        errors.push(Error::invalid(
            &families_at.index(i),
            "IPv6",
            "not configured on this cluster",
        ));
    }
}

/// A Service keeps its addresses for as long as it has any.
fn validate_kept_addresses(spec: &ServiceSpec, was: &ServiceSpec, errors: &mut ErrorList) {
    if text(&spec.type_) == "ExternalName" || text(&was.type_) == "ExternalName" {
        return;
    }
    let (headless, was_headless) = (is_headless(spec), is_headless(was));
    let (ips, old_ips) = (items(&spec.cluster_ips), items(&was.cluster_ips));
    let ips_at = Path::new("spec").child("clusterIPs");
    if !(headless && was_headless) {
        if ips.is_empty() && !old_ips.is_empty() {
            let detail = "primary clusterIP can not be unset";
            errors.push(Error::invalid(&ips_at.index(0), shown(&ips), detail));
        }
        for (i, (ip, old)) in ips.iter().zip(old_ips).enumerate() {
            if ip != old {
                errors.push(Error::invalid(
                    &ips_at.index(i),
                    shown(&ips),
                    "may not change once set",
                ));
            }
        }
    }
    if headless || was_headless {
        return;
    }
    let (families, old_families) = (items(&spec.ip_families), items(&was.ip_families));
    if let (Some(family), Some(old)) = (families.first(), old_families.first())
        && family != old
    {
        let at = Path::new("spec").child("ipFamilies").index(0);
        errors.push(Error::invalid(
            &at,
            shown(&families),
            "may not change once set",
        ));
    }
}

fn validate_load_balancer(
    service: &Service,
    spec: &ServiceSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    const DETAIL: &str = "may only be used when `type` is 'LoadBalancer'";
    let balances = text(&spec.type_) == "LoadBalancer";
    let ranges = items(&spec.load_balancer_source_ranges);
    let annotation = service
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(SOURCE_RANGES));
    if !ranges.is_empty() {
        // The field is spelled like this in Kubernetes' errors.
        let at = at.child("LoadBalancerSourceRanges");
        if !balances {
            errors.push(Error::forbidden(&at, DETAIL));
        }
        for (i, range) in ranges.iter().enumerate() {
            validate_cidr(range.trim(), &at.index(i), errors);
        }
    } else if let Some(value) = annotation {
        let at = Path::new("metadata")
            .child("annotations")
            .key(SOURCE_RANGES);
        if !balances {
            errors.push(Error::forbidden(&at, DETAIL));
        }
        for range in value
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
        {
            validate_cidr(range, &at, errors);
        }
    }
    match (balances, spec.allocate_load_balancer_node_ports) {
        (false, Some(_)) => errors.push(Error::forbidden(
            &at.child("allocateLoadBalancerNodePorts"),
            DETAIL,
        )),
        (true, None) => errors.push(Error::required(
            &Path::new("allocateLoadBalancerNodePorts"),
            "",
        )),
        _ => {}
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = at.child("loadBalancerClass");
        if balances {
            faults(class, names::qualified_name(class), &at, errors);
        } else {
            errors.push(Error::forbidden(&at, DETAIL));
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

fn validate_ingress(status: &LoadBalancerStatus, at: &Path, errors: &mut ErrorList) {
    for (i, ingress) in items(&status.ingress).iter().enumerate() {
        let at = at.index(i);
        let (ip, host) = (text(&ingress.ip), text(&ingress.hostname));
        if !ip.is_empty() {
            validate_ip(ip, &at.child("ip"), errors);
        }
        let mode_at = at.child("ipMode");
        match ingress.ip_mode.as_deref() {
            None if !ip.is_empty() => {
                errors.push(Error::required(
                    &mode_at,
                    "must be specified when `ip` is set",
                ));
            }
            Some(_) if ip.is_empty() => {
                errors.push(Error::forbidden(
                    &mode_at,
                    "may not be specified when `ip` is not set",
                ));
            }
            Some(mode) if !matches!(mode, "Proxy" | "VIP") => {
                errors.push(Error::not_supported(&mode_at, mode, &["Proxy", "VIP"]));
            }
            _ => {}
        }
        if !host.is_empty() {
            let at = at.child("hostname");
            faults(host, names::dns_subdomain(host), &at, errors);
            if address::parse(host).is_some() {
                errors.push(Error::invalid(
                    &at,
                    host,
                    "must be a DNS name, not an IP address",
                ));
            }
        }
    }
}
