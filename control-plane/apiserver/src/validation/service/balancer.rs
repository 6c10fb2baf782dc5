//! What a Service says of the load balancer before it.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServiceSpec};

use crate::validation::address;
use crate::validation::legacy_address::{NEW, validate_legacy_cidr, validate_legacy_ip};
use crate::validation::{faults, items, text};

/// The older form of loadBalancerSourceRanges.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub(super) fn validate_load_balancer(
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
            validate_legacy_cidr(range.trim(), NEW, &at.index(i), errors);
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
            validate_legacy_cidr(range, NEW, &at, errors);
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

pub(super) fn validate_ingress(status: &LoadBalancerStatus, at: &Path, errors: &mut ErrorList) {
    for (i, ingress) in items(&status.ingress).iter().enumerate() {
        let at = at.index(i);
        let (ip, host) = (text(&ingress.ip), text(&ingress.hostname));
        if !ip.is_empty() {
            validate_legacy_ip(ip, NEW, &at.child("ip"), errors);
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
