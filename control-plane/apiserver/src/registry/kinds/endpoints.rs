//! Endpoints: the addresses behind a Service, as they were before EndpointSlices.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};

use super::join_host_port;
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::address::validate_non_special_ip;
use crate::validation::legacy_address::{NEW, validate_legacy_ip};
use crate::validation::port::{PROTOCOLS, validate_number};
use crate::validation::{faults, items, one_of, text};

/// Addresses that a row shows.
const SHOWN: usize = 3;

pub(super) struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    type Object = Endpoints;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Endpoints>()
            .short_names(&["ep"])
            .create_on_update()
            .deprecated(
                "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
            )
    }

    fn set_defaults(&self, object: &mut Endpoints) {
        let ports = object
            .subsets
            .iter_mut()
            .flatten()
            .filter_map(|subset| subset.ports.as_mut())
            .flatten();
        for port in ports.filter(|port| text(&port.protocol).is_empty()) {
            port.protocol = Some("TCP".to_owned());
        }
    }

    fn validate(&self, object: &Endpoints) -> ErrorList {
        let mut errors = ErrorList::default();
        for (i, subset) in items(&object.subsets).iter().enumerate() {
            validate_subset(subset, &Path::new("subsets").index(i), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Endpoints, _old: &Endpoints) -> ErrorList {
        self.validate(new)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Endpoints", "The addresses and ports that are ready."),
            Column::age(),
        ]
    }

    fn row(&self, object: &Endpoints, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(summary(items(&object.subsets))),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_subset(subset: &EndpointSubset, at: &Path, errors: &mut ErrorList) {
    let (ready, not_ready) = (items(&subset.addresses), items(&subset.not_ready_addresses));
    if ready.is_empty() && not_ready.is_empty() {
        errors.push(Error::required(
            at,
            "must specify `addresses` or `notReadyAddresses`",
        ));
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        let at = at.child(field);
        for (i, address) in addresses.iter().enumerate() {
            validate_address(address, &at.index(i), errors);
        }
    }
    let ports = items(&subset.ports);
    for (i, port) in ports.iter().enumerate() {
        validate_port(port, ports.len() > 1, &at.child("ports").index(i), errors);
    }
}

fn validate_address(address: &EndpointAddress, at: &Path, errors: &mut ErrorList) {
    let ip_at = at.child("ip");
    validate_legacy_ip(&address.ip, NEW, &ip_at, errors);
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        faults(
            hostname,
            names::dns_label(hostname),
            &at.child("hostname"),
            errors,
        );
    }
    if let Some(node) = &address.node_name {
        faults(
            node,
            names::dns_subdomain(node),
            &at.child("nodeName"),
            errors,
        );
    }
    validate_non_special_ip(&address.ip, &ip_at, errors);
}

fn validate_port(port: &EndpointPort, named: bool, at: &Path, errors: &mut ErrorList) {
    let name = text(&port.name);
    if name.is_empty() && named {
        errors.push(Error::required(&at.child("name"), ""));
    } else if !name.is_empty() {
        faults(name, names::dns_label(name), &at.child("name"), errors);
    }
    validate_number(port.port, &at.child("port"), errors);
    one_of(
        text(&port.protocol),
        PROTOCOLS,
        &at.child("protocol"),
        errors,
    );
    if let Some(protocol) = &port.app_protocol {
        faults(
            protocol,
            names::qualified_name(protocol),
            &at.child("appProtocol"),
            errors,
        );
    }
}

/// The first few, and how many there are beside.
fn summary(subsets: &[EndpointSubset]) -> String {
    let mut all: Vec<String> = Vec::new();
    for subset in subsets {
        let addresses = items(&subset.addresses)
            .iter()
            .map(|address| address.ip.as_str());
        let ports = items(&subset.ports);
        if ports.is_empty() {
            all.extend(addresses.clone().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses.clone().map(|ip| join_host_port(ip, port.port)));
        }
    }
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    super::first_and_more(&all, SHOWN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn endpoints(subsets: Value) -> Endpoints {
        let mut endpoints =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "subsets": subsets}))
                .unwrap();
        EndpointsStrategy.set_defaults(&mut endpoints);
        endpoints
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!([{"addresses": [{"ip": "10.42.0.2"}], "ports": [{"port": 80}]}]),
                vec![],
            ),
            (
                json!([{"ports": [{"port": 80}]}]),
                vec!["subsets[0] FieldValueRequired must specify `addresses`"],
            ),
            (
                json!([{"addresses": [{"ip": "127.0.0.1", "hostname": "A"}], "ports": [{"port": 0}, {"port": 1, "name": "b"}]}]),
                vec![
                    "subsets[0].addresses[0].hostname FieldValueInvalid",
                    "subsets[0].addresses[0].ip FieldValueInvalid may not be in the loopback range",
                    "subsets[0].ports[0].name FieldValueRequired",
                    "subsets[0].ports[0].port FieldValueInvalid",
                ],
            ),
        ];
        for (subsets, want) in table {
            assert_causes(&EndpointsStrategy.validate(&endpoints(subsets)), &want);
        }
    }

    #[test]
    fn rows() {
        let ips = |n: usize| {
            (1..=n)
                .map(|i| json!({"ip": format!("10.42.0.{i}")}))
                .collect::<Vec<_>>()
        };
        let table = [
            (json!(null), "<none>"),
            (
                json!([{"addresses": ips(2), "ports": [{"port": 80}]}]),
                "10.42.0.1:80,10.42.0.2:80",
            ),
            (
                json!([{"addresses": ips(5), "ports": [{"port": 80}]}]),
                "10.42.0.1:80,10.42.0.2:80,10.42.0.3:80 + 2 more...",
            ),
            (
                json!([{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]),
                "[fd00::1]:80",
            ),
            (json!([{"addresses": ips(1)}]), "10.42.0.1"),
        ];
        for (subsets, want) in table {
            let row = EndpointsStrategy.row(&endpoints(subsets), jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(row[1], Cell::from(want));
        }
    }
}
