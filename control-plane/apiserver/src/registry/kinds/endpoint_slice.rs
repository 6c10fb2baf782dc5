//! EndpointSlice: a part of the endpoints behind a Service.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::address::{parse, validate_non_special_ip};
use crate::validation::labels::validate_labels;
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

    fn validate(&self, object: &EndpointSlice) -> ErrorList {
        let mut errors = ErrorList::default();
        one_of(
            &object.address_type,
            ADDRESS_TYPES,
            &Path::new("addressType"),
            &mut errors,
        );
        validate_endpoints(items(&object.endpoints), &object.address_type, &mut errors);
        validate_ports(items(&object.ports), &mut errors);
        errors
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> ErrorList {
        let mut errors = self.validate(new);
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
        let ports = ports.map(|port| {
            port.port
                .map_or_else(|| "*".to_owned(), |number| number.to_string())
        });
        let addresses = items(&object.endpoints)
            .iter()
            .flat_map(|endpoint| endpoint.addresses.clone());
        let shown = |all: Vec<String>| match all.is_empty() {
            true => Cell::from("<unset>"),
            false => Cell::from(super::first_and_more(&all, SHOWN)),
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
        errors.push(Error::required(
            &addresses_at,
            "must contain at least 1 address",
        ));
    } else if endpoint.addresses.len() > MAX_ADDRESSES {
        errors.push(Error::too_many(
            &addresses_at,
            endpoint.addresses.len(),
            MAX_ADDRESSES,
        ));
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        let at = addresses_at.index(i);
        match family {
            "IPv4" | "IPv6" => validate_address(address, family, &at, errors),
            "FQDN" => validate_domain(address, &at, errors),
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

fn validate_address(address: &str, family: &str, at: &Path, errors: &mut ErrorList) {
    match parse(address) {
        Some(ip) if ip.is_ipv6() == (family == "IPv6") => {}
        _ => errors.push(Error::invalid(
            at,
            address,
            format!("must be a valid {family} address"),
        )),
    }
    validate_non_special_ip(address, at, errors);
}

fn validate_domain(name: &str, at: &Path, errors: &mut ErrorList) {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    faults(name, names::dns_subdomain(name), at, errors);
    if !name.contains('.') {
        errors.push(Error::invalid(
            at,
            name,
            "should be a domain with at least two segments separated by dots",
        ));
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
        one_of(
            text(&port.protocol),
            PROTOCOLS,
            &at.child("protocol"),
            errors,
        );
        if let Some(number) = port.port {
            crate::validation::port::validate_number(number, &at.child("port"), errors);
        }
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
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn slice(value: Value) -> EndpointSlice {
        let mut slice = serde_json::from_value(value).unwrap();
        EndpointSliceStrategy.set_defaults(&mut slice);
        slice
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.2"]}], "ports": [{"port": 80}]}),
                vec![],
            ),
            (
                json!({"addressType": ""}),
                vec!["addressType FieldValueRequired"],
            ),
            (
                json!({"addressType": "IPv4", "endpoints": [{"addresses": []}, {"addresses": ["fd00::1", "127.0.0.1"]}]}),
                vec![
                    "endpoints[0].addresses FieldValueRequired must contain at least 1 address",
                    "endpoints[1].addresses[0] FieldValueInvalid must be a valid IPv4 address",
                    "endpoints[1].addresses[1] FieldValueInvalid may not be in the loopback range",
                ],
            ),
            (
                json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b", "a"]}], "ports": [{"name": "A"}, {}, {}]}),
                vec![
                    "endpoints[0].addresses[1] FieldValueInvalid should be a domain",
                    "ports[0].name FieldValueInvalid",
                    "ports[2].name FieldValueDuplicate",
                ],
            ),
        ];
        for (value, want) in table {
            assert_causes(&EndpointSliceStrategy.validate(&slice(value)), &want);
        }
        let (old, new) = (
            slice(json!({"addressType": "IPv4"})),
            slice(json!({"addressType": "IPv6"})),
        );
        assert_causes(
            &EndpointSliceStrategy.validate_update(&new, &old),
            &["addressType FieldValueInvalid field is immutable"],
        );
    }

    #[test]
    fn rows() {
        let slice = slice(json!({
            "metadata": {"name": "web-1"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.42.0.1"]}, {"addresses": ["10.42.0.2", "10.42.0.3"]}, {"addresses": ["10.42.0.4"]}],
            "ports": [{"port": 80}, {"name": "any"}],
        }));
        let row = EndpointSliceStrategy.row(&slice, jiff::Timestamp::UNIX_EPOCH);
        let want = [
            "web-1",
            "IPv4",
            "80,*",
            "10.42.0.1,10.42.0.2,10.42.0.3 + 1 more...",
            "<unknown>",
        ];
        assert_eq!(row, want.map(Cell::from));
        let row = EndpointSliceStrategy.row(&EndpointSlice::default(), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!((&row[2], &row[3]), (&"<unset>".into(), &"<unset>".into()));
    }
}
