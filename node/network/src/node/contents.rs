//! Rules and names as the snapshot has them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::rules::{Lead, Rules, ServicePort};
use crate::snapshot::{Answer, Socket, Virtual};
use crate::zone::{Record, Zone};

/// Services by their addresses. Those in the cluster go before those that a Service only claims to
/// have outside, and of two Services with one address the first has it.
pub(super) fn services(rules: &Rules) -> BTreeMap<Socket, Virtual> {
    let mut services = BTreeMap::new();
    for port in &rules.ports {
        for address in &port.addresses {
            let socket = (*address, port.port, port.protocol);
            let service = || to_guests(port, port.internal());
            services.entry(socket).or_insert_with(service);
        }
    }
    for port in &rules.ports {
        for address in &port.external_addresses {
            let socket = (*address, port.port, port.protocol);
            // The node's Pods are not from outside.
            let service = || to_guests(port, port.external_from_here());
            services.entry(socket).or_insert_with(service);
        }
    }
    services
}

fn to_guests(port: &ServicePort, lead: Lead<'_>) -> Virtual {
    let endpoints = match lead {
        Lead::To(endpoints) => endpoints,
        Lead::Refused | Lead::Dropped => &[],
    };
    Virtual {
        affinity: port.affinity.is_some(),
        endpoints: endpoints.to_vec(),
        elsewhere: lead == Lead::Dropped,
    }
}

/// Names that have addresses.
pub(super) fn names(zone: &Zone) -> BTreeMap<String, Answer> {
    zone.names
        .iter()
        .filter_map(|(name, records)| Some((name.clone(), answer(records)?)))
        .collect()
}

/// What a guest's look-up of addresses gets; a name with nothing but ports has none.
fn answer(records: &[Record]) -> Option<Answer> {
    let addresses: Vec<IpAddr> = records
        .iter()
        .filter_map(|record| match record {
            Record::Address(address) => Some(*address),
            _ => None,
        })
        .collect();
    if !addresses.is_empty() {
        return Some(Answer::Addresses(addresses));
    }
    records.iter().find_map(|record| match record {
        Record::Alias(target) => Some(Answer::Alias(target.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_nothing_but_ports_has_no_answer() {
        let srv = Record::Service {
            port: 1,
            target: "a".into(),
        };
        assert_eq!(answer(std::slice::from_ref(&srv)), None);
        let address = Record::Address("10.42.0.2".parse().unwrap());
        assert!(answer(&[srv, address]).is_some());
    }

    fn port(address: &str, external: &[&str], endpoints: &[&str]) -> ServicePort {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        ServicePort {
            namespace: "shop".into(),
            service: "web".into(),
            port_name: String::new(),
            port: 80,
            protocol: coracle_runtime::Protocol::Tcp,
            addresses: addresses(&[address]),
            external_addresses: addresses(external),
            node_port: None,
            affinity: None,
            endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
            local_endpoints: Vec::new(),
            internal_is_local: false,
            external_is_local: false,
        }
    }

    #[test]
    fn guests_are_told_where_calls_of_their_node_lead() {
        let mut one = port(
            "10.43.0.9",
            &["203.0.113.5", "10.43.0.1"],
            &["10.42.1.2:80"],
        );
        one.internal_is_local = true;
        one.external_is_local = true;
        let rules = Rules {
            ports: vec![one, port("10.43.0.1", &[], &["10.42.1.3:80"])],
            ..Rules::default()
        };
        let services = services(&rules);
        let told: Vec<String> = services
            .iter()
            .map(|((address, port, _), service)| {
                let Virtual {
                    endpoints,
                    elsewhere,
                    ..
                } = service;
                format!("{address}:{port} {endpoints:?} {elsewhere}")
            })
            .collect();
        assert_eq!(
            told,
            [
                // It is the other's, whoever claims it.
                "10.43.0.1:80 [10.42.1.3:80] false",
                "10.43.0.9:80 [] true",
                "203.0.113.5:80 [10.42.1.2:80] false",
            ]
        );
    }
}
