//! Rules and names as the snapshot has them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::rules::Rules;
use crate::snapshot::{Answer, Socket, Virtual};
use crate::zone::{Record, Zone};

/// Services by their addresses.
pub(super) fn services(rules: &Rules) -> BTreeMap<Socket, Virtual> {
    let ports = rules.ports.iter().flat_map(|port| {
        port.addresses.iter().map(|address| {
            let service = Virtual {
                affinity: port.affinity.is_some(),
                endpoints: port.endpoints.clone(),
            };
            ((*address, port.port, port.protocol), service)
        })
    });
    ports.collect()
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
}
