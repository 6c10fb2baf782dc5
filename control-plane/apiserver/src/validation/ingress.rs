//! Ingresses: hosts, paths and what is behind them.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, IngressBackend, IngressLoadBalancerStatus, IngressServiceBackend, IngressSpec,
};

use super::address;
use super::legacy_address::{Was, validate_legacy_ip};
use super::references::validate_segment;
use super::{faults, items, shown, text};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
/// What could be read as another path by somebody on the way.
const MISLEADING: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const MISLEADING_ENDS: [&str; 2] = ["/..", "/."];
const WILDCARD_MESSAGE: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Everything that is wrong with a spec.
pub(crate) fn validate_ingress_spec(spec: &IngressSpec, at: &Path, errors: &mut ErrorList) {
    let rules = items(&spec.rules);
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(at, shown(&rules), detail));
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(backend, &at.child("defaultBackend"), errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.child("rules").index(i);
        let (host, host_at) = (text(&rule.host), at.child("host"));
        if !host.is_empty() {
            refuse_address(host, &host_at, errors);
            validate_host(host, &host_at, errors);
        }
        let Some(http) = &rule.http else { continue };
        let at = at.child("http").child("paths");
        if http.paths.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        for (i, path) in http.paths.iter().enumerate() {
            validate_path(path, &at.index(i), errors);
        }
    }
    for (i, tls) in items(&spec.tls).iter().enumerate() {
        let at = at.child("tls").index(i);
        for (i, host) in items(&tls.hosts).iter().enumerate() {
            validate_host(host, &at.child("hosts").index(i), errors);
        }
        let secret = text(&tls.secret_name);
        if !secret.is_empty() {
            let at = at.child("secretName");
            faults(secret, names::dns_subdomain(secret), &at, errors);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        let at = at.child("ingressClassName");
        faults(class, names::dns_subdomain(class), &at, errors);
    }
}

/// The addresses of a load balancer, and those that it had.
pub(crate) fn validate_ingress_status(
    status: &IngressLoadBalancerStatus,
    old: Option<&IngressLoadBalancerStatus>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let old = old.map(|old| items(&old.ingress)).unwrap_or_default();
    let was: Was<'_> = old.iter().map(|ingress| text(&ingress.ip)).collect();
    for (i, ingress) in items(&status.ingress).iter().enumerate() {
        let at = at.child("ingress").index(i);
        let (ip, host) = (text(&ingress.ip), text(&ingress.hostname));
        if !ip.is_empty() {
            validate_legacy_ip(ip, &was, &at.child("ip"), errors);
        }
        if !host.is_empty() {
            let at = at.child("hostname");
            faults(host, names::dns_subdomain(host), &at, errors);
            refuse_address(host, &at, errors);
        }
    }
}

fn refuse_address(host: &str, at: &Path, errors: &mut ErrorList) {
    if address::parse(host).is_some() {
        let detail = "must be a DNS name, not an IP address";
        errors.push(Error::invalid(at, host, detail));
    }
}

/// A host, or all hosts of a domain.
fn validate_host(host: &str, at: &Path, errors: &mut ErrorList) {
    if !host.contains('*') {
        faults(host, names::dns_subdomain(host), at, errors);
        return;
    }
    let domain = host.strip_prefix("*.").unwrap_or_default();
    if domain.is_empty() || !names::dns_subdomain(domain).is_empty() {
        errors.push(Error::invalid(at, host, WILDCARD_MESSAGE));
    }
}

fn validate_path(path: &HTTPIngressPath, at: &Path, errors: &mut ErrorList) {
    let (kind, type_at) = (path.path_type.as_str(), at.child("pathType"));
    if kind.is_empty() {
        errors.push(Error::required(&type_at, "pathType must be specified"));
        return;
    }
    let (value, path_at) = (text(&path.path), at.child("path"));
    let mut invalid = |detail: String| errors.push(Error::invalid(&path_at, value, detail));
    let absolute = value.starts_with('/');
    match kind {
        "Exact" | "Prefix" => {
            if !absolute {
                invalid("must be an absolute path".to_owned());
            }
            for part in MISLEADING.into_iter().filter(|part| value.contains(part)) {
                invalid(format!("must not contain '{part}'"));
            }
            for end in MISLEADING_ENDS
                .into_iter()
                .filter(|end| value.ends_with(end))
            {
                invalid(format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !absolute {
                invalid("must be an absolute path".to_owned());
            }
        }
        _ => errors.push(Error::not_supported(&type_at, kind, PATH_TYPES)),
    }
    validate_backend(&path.backend, &at.child("backend"), errors);
}

fn validate_backend(backend: &IngressBackend, at: &Path, errors: &mut ErrorList) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(Error::invalid(at, "", detail));
        }
        (None, None) => {
            let detail = "resource or service backend is required";
            errors.push(Error::invalid(at, "", detail));
        }
        (Some(resource), None) => {
            let at = at.child("resource");
            if let Some(group) = &resource.api_group {
                let at = at.child("apiGroup");
                faults(group, names::dns_subdomain(group), &at, errors);
            }
            validate_segment(&resource.kind, &at.child("kind"), errors);
            validate_segment(&resource.name, &at.child("name"), errors);
        }
        (None, Some(service)) => validate_service(service, at, errors),
    }
}

fn validate_service(service: &IngressServiceBackend, at: &Path, errors: &mut ErrorList) {
    let (name, service_at) = (service.name.as_str(), at.child("service"));
    let name_at = service_at.child("name");
    if name.is_empty() {
        errors.push(Error::required(&name_at, ""));
    } else {
        faults(name, names::dns_label(name), &name_at, errors);
    }
    let port = service.port.clone().unwrap_or_default();
    let port_at = service_at.child("port");
    match (text(&port.name), port.number.unwrap_or(0)) {
        ("", 0) => errors.push(Error::required(at, "port name or number is required")),
        ("", number) => {
            for fault in names::port_number(number) {
                errors.push(Error::invalid(&port_at.child("number"), number, fault));
            }
        }
        (name, 0) => faults(name, names::port_name(name), &port_at.child("name"), errors),
        _ => {
            let detail = "cannot set both port name & port number";
            errors.push(Error::invalid(at, "", detail));
        }
    }
}
