//! Ports of containers, Services, endpoints and probes.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{Container, ContainerPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{faults, items, one_of, text};

/// Protocols that a port may have.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The number of a port.
pub(crate) fn validate_number(port: i32, at: &Path, errors: &mut ErrorList) {
    errors.extend(
        names::port_number(port)
            .into_iter()
            .map(|fault| Error::invalid(at, port, fault)),
    );
}

/// A port by its number or its name.
pub(crate) fn validate_number_or_name(port: &IntOrString, at: &Path, errors: &mut ErrorList) {
    match port {
        IntOrString::Int(number) => validate_number(*number, at, errors),
        IntOrString::String(name) => faults(name, names::port_name(name), at, errors),
    }
}

/// The ports of one container.
pub(crate) fn validate_container_ports(ports: &[ContainerPort], at: &Path, errors: &mut ErrorList) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if !wrong.is_empty() {
                faults(name, wrong, &at.child("name"), errors);
            } else if !seen.insert(name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
        if port.container_port == 0 {
            errors.push(Error::required(&at.child("containerPort"), ""));
        } else {
            validate_number(port.container_port, &at.child("containerPort"), errors);
        }
        match port.host_port {
            None | Some(0) => {}
            Some(host_port) => validate_number(host_port, &at.child("hostPort"), errors),
        }
        one_of(
            text(&port.protocol),
            PROTOCOLS,
            &at.child("protocol"),
            errors,
        );
    }
}

/// Ports of the host that two of the containers claim.
pub(crate) fn validate_host_port_conflicts(
    containers: &[Container],
    at: &Path,
    errors: &mut ErrorList,
) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (c, container) in containers.iter().enumerate() {
        for (p, port) in items(&container.ports).iter().enumerate() {
            let Some(host_port) = port.host_port.filter(|&port| port != 0) else {
                continue;
            };
            let claim = format!(
                "{}/{}/{host_port}",
                text(&port.protocol),
                text(&port.host_ip)
            );
            if seen.contains(&claim) {
                let at = at.index(c).child("ports").index(p).child("hostPort");
                errors.push(Error::duplicate(&at, claim));
            } else {
                seen.insert(claim);
            }
        }
    }
}
