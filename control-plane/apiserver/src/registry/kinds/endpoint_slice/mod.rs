//! EndpointSlice: a part of the endpoints behind a Service.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::address::{canonical_ip, validate_non_special_ip};
use crate::validation::labels::validate_labels;
use crate::validation::legacy_address::{ip_fault, ip_warning};
use crate::validation::port::PROTOCOLS;
use crate::validation::{equality, faults, immutable, items, one_of, text};

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;
/// Ports and addresses that a row shows.
const SHOWN: usize = 3;
/// Who keeps a slice, and the controllers here that do: their addresses are in their usual form.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];

pub(super) struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    type Object = EndpointSlice;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<EndpointSlice>().generation()
    }

    fn set_defaults(&self, object: &mut EndpointSlice) {
        for port in object.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    /// The labels of nodes and zones that v1beta1 had on each endpoint are not written in v1.
    fn prepare_for_create(&self, object: &mut EndpointSlice) {
        drop_topology(object);
    }

    fn prepare_for_update(&self, new: &mut EndpointSlice, old: &EndpointSlice) {
        let mut endpoints = new.endpoints.iter().flatten();
        // They may be many, so they are compared where it matters alone.
        if endpoints.any(|endpoint| endpoint.deprecated_topology.is_some())
            && !equality::semantic(&new.endpoints, &old.endpoints)
        {
            drop_topology(new);
        }
    }

    fn validate(&self, object: &EndpointSlice) -> ErrorList {
        validate(object, None)
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> ErrorList {
        let mut errors = validate(new, Some(old));
        immutable(
            &new.address_type,
            &old.address_type,
            &Path::new("addressType"),
            &mut errors,
        );
        errors
    }

    /// Everything but the metadata is the slice's content, and of that the labels.
    fn spec_changed(&self, new: &EndpointSlice, old: &EndpointSlice) -> bool {
        new.metadata.labels != old.metadata.labels
            || !equality::semantic(&new.endpoints, &old.endpoints)
            || !equality::semantic(&new.ports, &old.ports)
    }

    fn warnings(&self, object: &EndpointSlice) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.address_type == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        warnings.extend(address_warnings(object));
        warnings
    }

    fn warnings_on_update(&self, new: &EndpointSlice, _old: &EndpointSlice) -> Vec<String> {
        address_warnings(new)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("AddressType", "The type of address that the slice carries."),
            Column::text("Ports", "The ports of each endpoint in the slice."),
            Column::text("Endpoints", "The addresses of the endpoints in the slice."),
            Column::age(),
        ]
    }

    fn row(&self, object: &EndpointSlice, now: jiff::Timestamp) -> Vec<Cell> {
        let ports = items(&object.ports).iter();
        let ports = ports.map(|port| match (port.port, &port.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".to_owned(),
        });
        let addresses = items(&object.endpoints)
            .iter()
            .flat_map(|endpoint| endpoint.addresses.clone());
        let shown = |all: Vec<String>| match super::first_and_more(&all, SHOWN).as_str() {
            "" => Cell::from("<unset>"),
            shown => Cell::from(shown),
        };
        vec![
            printing::name(&object.metadata),
            Cell::from(object.address_type.as_str()),
            shown(ports.collect()),
            shown(addresses.collect()),
            printing::age(&object.metadata, now),
        ]
    }
}

fn drop_topology(object: &mut EndpointSlice) {
    for endpoint in object.endpoints.iter_mut().flatten() {
        endpoint.deprecated_topology = None;
    }
}

/// Everything that is wrong with a slice. Endpoints that have stayed what they were, stay.
fn validate(object: &EndpointSlice, old: Option<&EndpointSlice>) -> ErrorList {
    let mut errors = ErrorList::default();
    let kind = object.address_type.as_str();
    one_of(kind, ADDRESS_TYPES, &Path::new("addressType"), &mut errors);
    validate_ports(items(&object.ports), &mut errors);
    let mut wrong = ErrorList::default();
    validate_endpoints(items(&object.endpoints), kind, &mut wrong);
    // They may be many, so they are compared where it matters alone.
    let same = |old: &EndpointSlice| equality::semantic(&object.endpoints, &old.endpoints);
    if !wrong.is_empty() && !old.is_some_and(same) {
        errors.extend(wrong);
    }
    errors
}

fn address_warnings(object: &EndpointSlice) -> Vec<String> {
    let labels = object.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
    if manager.is_some_and(|manager| MANAGERS.contains(&manager.as_str())) {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for (i, endpoint) in items(&object.endpoints).iter().enumerate() {
        let at = Path::new("endpoints").index(i).child("addresses");
        for (i, address) in endpoint.addresses.iter().enumerate() {
            warnings.extend(ip_warning(address, &at.index(i)));
        }
    }
    warnings
}

fn validate_endpoints(endpoints: &[Endpoint], family: &str, errors: &mut ErrorList) {
    let at = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(Error::too_many(&at, endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(endpoint, family, &at.index(i), errors);
    }
}

fn validate_endpoint(endpoint: &Endpoint, family: &str, at: &Path, errors: &mut ErrorList) {
    let addresses_at = at.child("addresses");
    if endpoint.addresses.is_empty() {
        errors.push(Error::required(&addresses_at, ""));
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(Error::too_many(
            &addresses_at,
            endpoint.addresses.len(),
            MAX_ADDRESSES,
        ));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        match family {
            "IPv4" | "IPv6" => validate_address(address, family, i, &addresses_at, errors),
            "FQDN" => validate_domain(address, &addresses_at.index(i), errors),
            // That there is no such family has been said.
            _ => {}
        }
    }
    let topology_at = at.child("deprecatedTopology");
    if let Some(topology) = &endpoint.deprecated_topology
        && topology.len() > MAX_TOPOLOGY
    {
        errors.push(Error::too_many(&topology_at, topology.len(), MAX_TOPOLOGY));
    }
    validate_labels(endpoint.deprecated_topology.as_ref(), &topology_at, errors);
    if let Some(node) = &endpoint.node_name {
        faults(
            node,
            names::dns_subdomain(node),
            &at.child("nodeName"),
            errors,
        );
    }
    if let Some(hostname) = &endpoint.hostname {
        faults(
            hostname,
            names::dns_label(hostname),
            &at.child("hostname"),
            errors,
        );
    }
    if let Some(hints) = &endpoint.hints {
        validate_hints(hints, &at.child("hints"), errors);
    }
}

/// The address at an index of the list at `all`. One of another family is a fault of the list.
fn validate_address(address: &str, family: &str, index: usize, all: &Path, errors: &mut ErrorList) {
    let at = &all.index(index);
    if let Some(fault) = ip_fault(address) {
        errors.push(Error::invalid(at, address, fault));
        return;
    }
    // IPv6 came when addresses had one form already.
    if family == "IPv6" {
        let wrong = canonical_ip(address);
        if !wrong.is_empty() {
            faults(address, wrong, at, errors);
            return;
        }
    }
    if address.contains(':') != (family == "IPv6") {
        let detail = format!("must be an {family} address");
        errors.push(Error::invalid(all, address, detail));
    }
    validate_non_special_ip(address, at, errors);
}

fn validate_domain(name: &str, at: &Path, errors: &mut ErrorList) {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    let wrong = names::dns_subdomain(name).join(",");
    let long = name.split('.').find_map(|label| {
        Some((label, names::dns_label(label).join(","))).filter(|(_, wrong)| !wrong.is_empty())
    });
    if !wrong.is_empty() {
        errors.push(Error::invalid(at, name, wrong));
    } else if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(at, name, detail));
    } else if let Some((label, wrong)) = long {
        errors.push(Error::invalid(at, label, wrong));
    }
}

fn validate_hints(hints: &EndpointHints, at: &Path, errors: &mut ErrorList) {
    let zones: Vec<&str> = items(&hints.for_zones)
        .iter()
        .map(|zone| zone.name.as_str())
        .collect();
    let nodes: Vec<&str> = items(&hints.for_nodes)
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    for (field, names) in [("forZones", zones), ("forNodes", nodes)] {
        let at = at.child(field);
        if names.len() > MAX_HINTS {
            errors.push(Error::too_many(&at, names.len(), MAX_HINTS));
            continue;
        }
        for (i, name) in names.iter().enumerate() {
            let name_at = at.index(i).child("name");
            if names[..i].contains(name) {
                errors.push(Error::duplicate(&name_at, *name));
            }
            // Zones are values of a label, nodes are names.
            let wrong = if field == "forZones" {
                names::label_value(name)
            } else {
                names::dns_subdomain(name)
            };
            faults(name, wrong, &name_at, errors);
        }
    }
}

fn validate_ports(ports: &[EndpointPort], errors: &mut ErrorList) {
    let at = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.push(Error::too_many(&at, ports.len(), MAX_PORTS));
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            faults(name, names::dns_label(name), &at.child("name"), errors);
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        let (protocol, protocol_at) = (text(&port.protocol), at.child("protocol"));
        if !PROTOCOLS.contains(&protocol) {
            errors.push(Error::not_supported(&protocol_at, protocol, PROTOCOLS));
        }
        // Kubernetes takes any number: who reads slices passes over those that are no ports.
        if let Some(protocol) = &port.app_protocol {
            faults(
                protocol,
                names::qualified_name(protocol),
                &at.child("appProtocol"),
                errors,
            );
        }
    }
}

#[cfg(test)]
mod tests;
