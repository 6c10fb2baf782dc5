//! NetworkPolicy: who may talk to whom.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::selector::format_label_selector;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::address::{family_of_cidr, is_strict_subset};
use crate::validation::labels::validate_label_selector;
use crate::validation::legacy_address::{NEW, Was, cidr_warnings, validate_legacy_cidr};
use crate::validation::{faults, items, shown};

const TYPES: &[&str] = &["Ingress", "Egress"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

pub(super) struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    type Object = NetworkPolicy;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<NetworkPolicy>()
            .short_names(&["netpol"])
            .generation()
    }

    fn set_defaults(&self, object: &mut NetworkPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        if items(&spec.policy_types).is_empty() {
            // A policy that says nothing of its types is about what comes in at least.
            let mut types = vec!["Ingress".to_owned()];
            if !items(&spec.egress).is_empty() {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
        let ingress = spec
            .ingress
            .iter_mut()
            .flatten()
            .map(|rule| &mut rule.ports);
        let egress = spec.egress.iter_mut().flatten().map(|rule| &mut rule.ports);
        for port in ingress.chain(egress).flatten().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(&self, object: &NetworkPolicy) -> ErrorList {
        validate(object, NEW)
    }

    fn validate_update(&self, new: &NetworkPolicy, old: &NetworkPolicy) -> ErrorList {
        let blocks = blocks(old);
        let was: Was<'_> = blocks
            .iter()
            .flat_map(|(_, block)| [&block.cidr].into_iter().chain(items(&block.except)))
            .map(String::as_str)
            .collect();
        validate(new, &was)
    }

    /// A selector of everything is not the same as none.
    fn spec_changed(&self, new: &NetworkPolicy, old: &NetworkPolicy) -> bool {
        new.spec != old.spec
    }

    fn warnings(&self, object: &NetworkPolicy) -> Vec<String> {
        let mut warnings = Vec::new();
        for (at, block) in blocks(object) {
            warnings.extend(cidr_warnings(&block.cidr, &at.child("cidr")));
            for (i, except) in items(&block.except).iter().enumerate() {
                warnings.extend(cidr_warnings(except, &at.child("except").index(i)));
            }
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Pod-Selector", "The pods that it is about."),
            Column::age(),
        ]
    }

    fn row(&self, object: &NetworkPolicy, now: jiff::Timestamp) -> Vec<Cell> {
        let selector = object.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        vec![
            printing::name(&object.metadata),
            Cell::from(format_label_selector(selector)),
            printing::age(&object.metadata, now),
        ]
    }
}

/// Everything that is wrong with a policy; `was` are the ranges that it had before.
fn validate(object: &NetworkPolicy, was: &Was<'_>) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec");
    let Some(spec) = &object.spec else {
        return errors;
    };
    if let Some(selector) = &spec.pod_selector {
        validate_label_selector(selector, &at.child("podSelector"), &mut errors);
    }
    for (i, rule) in items(&spec.ingress).iter().enumerate() {
        let at = at.child("ingress").index(i);
        validate_ports(items(&rule.ports), &at.child("ports"), &mut errors);
        validate_peers(items(&rule.from), was, &at.child("from"), &mut errors);
    }
    for (i, rule) in items(&spec.egress).iter().enumerate() {
        let at = at.child("egress").index(i);
        validate_ports(items(&rule.ports), &at.child("ports"), &mut errors);
        validate_peers(items(&rule.to), was, &at.child("to"), &mut errors);
    }
    let (types, types_at) = (items(&spec.policy_types), at.child("policyTypes"));
    if types.len() > TYPES.len() {
        let detail = "may not specify more than two policyTypes";
        errors.push(Error::invalid(&types_at, shown(&types), detail));
        return errors;
    }
    for (i, kind) in types.iter().enumerate() {
        if !TYPES.contains(&kind.as_str()) {
            let at = types_at.index(i);
            errors.push(Error::not_supported(&at, kind.as_str(), TYPES));
        }
    }
    errors
}

/// The blocks of addresses in a policy, and where they stand.
fn blocks(object: &NetworkPolicy) -> Vec<(Path, &IPBlock)> {
    let at = Path::new("spec");
    let Some(spec) = &object.spec else {
        return Vec::new();
    };
    let ingress = items(&spec.ingress).iter().map(|rule| &rule.from);
    let egress = items(&spec.egress).iter().map(|rule| &rule.to);
    let ingress = ingress.enumerate().map(|(i, peers)| {
        let at = at.child("ingress").index(i).child("from");
        (at, items(peers))
    });
    let egress = egress.enumerate().map(|(i, peers)| {
        let at = at.child("egress").index(i).child("to");
        (at, items(peers))
    });
    let mut blocks = Vec::new();
    for (at, peers) in ingress.chain(egress) {
        for (i, peer) in peers.iter().enumerate() {
            if let Some(block) = &peer.ip_block {
                blocks.push((at.index(i).child("ipBlock"), block));
            }
        }
    }
    blocks
}

fn validate_ports(ports: &[NetworkPolicyPort], at: &Path, errors: &mut ErrorList) {
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        if let Some(protocol) = port
            .protocol
            .as_deref()
            .filter(|protocol| !PROTOCOLS.contains(protocol))
        {
            let at = at.child("protocol");
            errors.push(Error::not_supported(&at, protocol, PROTOCOLS));
        }
        validate_port(port, &at, errors);
    }
}

fn validate_port(port: &NetworkPolicyPort, at: &Path, errors: &mut ErrorList) {
    let (port_at, end_at) = (at.child("port"), at.child("endPort"));
    let mut refuse_end = |detail: &str| {
        if let Some(end) = port.end_port {
            errors.push(Error::invalid(&end_at, end, detail));
        }
    };
    match &port.port {
        None => refuse_end("may not be specified when `port` is not specified"),
        Some(IntOrString::String(name)) => {
            refuse_end("may not be specified when `port` is non-numeric");
            faults(name, names::port_name(name), &port_at, errors);
        }
        Some(IntOrString::Int(number)) => {
            for fault in names::port_number(*number) {
                errors.push(Error::invalid(&port_at, *number, fault));
            }
            let Some(end) = port.end_port else { return };
            if end < *number {
                let detail = "must be greater than or equal to `port`";
                errors.push(Error::invalid(&end_at, end, detail));
            }
            for fault in names::port_number(end) {
                errors.push(Error::invalid(&end_at, end, fault));
            }
        }
    }
}

fn validate_peers(peers: &[NetworkPolicyPeer], was: &Was<'_>, at: &Path, errors: &mut ErrorList) {
    for (i, peer) in peers.iter().enumerate() {
        let at = at.index(i);
        let selectors = [
            ("podSelector", &peer.pod_selector),
            ("namespaceSelector", &peer.namespace_selector),
        ];
        let mut selected = false;
        for (field, selector) in selectors {
            if let Some(selector) = selector {
                selected = true;
                validate_label_selector(selector, &at.child(field), errors);
            }
        }
        if let Some(block) = &peer.ip_block {
            validate_block(block, was, &at.child("ipBlock"), errors);
        }
        match (selected, peer.ip_block.is_some()) {
            (false, false) => errors.push(Error::required(&at, "must specify a peer")),
            (true, true) => {
                let detail = "may not specify both ipBlock and another peer";
                errors.push(Error::forbidden(&at, detail));
            }
            _ => {}
        }
    }
}

fn validate_block(block: &IPBlock, was: &Was<'_>, at: &Path, errors: &mut ErrorList) {
    let cidr_at = at.child("cidr");
    if block.cidr.is_empty() {
        errors.push(Error::required(&cidr_at, ""));
        return;
    }
    validate_legacy_cidr(&block.cidr, was, &cidr_at, errors);
    if family_of_cidr(&block.cidr).is_none() {
        return;
    }
    for (i, except) in items(&block.except).iter().enumerate() {
        let at = at.child("except").index(i);
        validate_legacy_cidr(except, was, &at, errors);
        if is_strict_subset(except, &block.cidr) == Some(false) {
            let detail = "must be a strict subset of `cidr`";
            errors.push(Error::invalid(&at, except.as_str(), detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn policy(spec: Value) -> NetworkPolicy {
        let mut policy =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        NetworkPolicyStrategy.set_defaults(&mut policy);
        policy
    }

    #[test]
    fn defaults() {
        let types = |spec| policy(spec).spec.unwrap().policy_types.unwrap();
        assert_eq!(types(json!({"podSelector": {}})), ["Ingress"]);
        let egress = json!({"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]});
        assert_eq!(types(egress.clone()), ["Ingress", "Egress"]);
        let spec = serde_json::to_value(policy(egress).spec).unwrap();
        assert_eq!(spec["egress"][0]["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn validation() {
        let from = |peers: Value| json!({"podSelector": {}, "ingress": [{ "from": peers }]});
        let ports = |ports: Value| json!({"podSelector": {}, "ingress": [{ "ports": ports }]});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                from(
                    json!([{"podSelector": {}, "namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]),
                ),
                vec![],
            ),
            (
                from(
                    json!([{}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.0.0.0/8", "x"]}}, {"ipBlock": {"cidr": ""}}]),
                ),
                vec![
                    "spec.ingress[0].from[0] FieldValueRequired must specify a peer",
                    "spec.ingress[0].from[1].ipBlock.except[0] FieldValueInvalid must be a strict subset of `cidr`",
                    "spec.ingress[0].from[1].ipBlock.except[1] FieldValueInvalid must be a strict subset of `cidr`",
                    "spec.ingress[0].from[1].ipBlock.except[2] FieldValueInvalid must be a valid CIDR value",
                    "spec.ingress[0].from[1] FieldValueForbidden may not specify both ipBlock and another peer",
                    "spec.ingress[0].from[2].ipBlock.cidr FieldValueRequired",
                ],
            ),
            (
                ports(
                    json!([{"protocol": "ICMP", "port": 80, "endPort": 79}, {"port": "Web_", "endPort": 1}, {"endPort": 1}, {"port": 0}]),
                ),
                vec![
                    "spec.ingress[0].ports[0].protocol FieldValueNotSupported",
                    "spec.ingress[0].ports[0].endPort FieldValueInvalid must be greater than or equal to `port`",
                    "spec.ingress[0].ports[1].endPort FieldValueInvalid may not be specified when `port` is non-numeric",
                    "spec.ingress[0].ports[1].port FieldValueInvalid",
                    "spec.ingress[0].ports[2].endPort FieldValueInvalid may not be specified when `port` is not specified",
                    "spec.ingress[0].ports[3].port FieldValueInvalid",
                ],
            ),
            (
                json!({"podSelector": {}, "policyTypes": ["Odd"]}),
                vec!["spec.policyTypes[0] FieldValueNotSupported"],
            ),
        ];
        for (spec, want) in table {
            assert_causes(&NetworkPolicyStrategy.validate(&policy(spec)), &want);
        }
        let (all, none) = (json!([{"podSelector": {}}]), json!([{"podSelector": null}]));
        let (all, none) = (policy(from(all)), policy(from(none)));
        assert!(NetworkPolicyStrategy.spec_changed(&all, &none));
        assert!(!NetworkPolicyStrategy.spec_changed(&all, &all.clone()));
        let bad = policy(from(json!([{"ipBlock": {"cidr": "x", "except": ["y"]}}])));
        assert_causes(
            &NetworkPolicyStrategy.validate(&bad),
            &["spec.ingress[0].from[0].ipBlock.cidr FieldValueInvalid must be a valid CIDR value"],
        );
        let odd = policy(from(
            json!([{"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.1.0.0/016"]}}]),
        ));
        let plain = policy(from(json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}])));
        assert_causes(
            &NetworkPolicyStrategy.validate_update(&odd, &plain),
            &[
                "spec.ingress[0].from[0].ipBlock.cidr FieldValueInvalid must not have bits set",
                "spec.ingress[0].from[0].ipBlock.except[0] FieldValueInvalid must not have leading 0s",
            ],
        );
        assert_causes(&NetworkPolicyStrategy.validate_update(&odd, &odd), &[]);
        let warnings = NetworkPolicyStrategy.warnings(&odd);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("spec.ingress[0].from[0].ipBlock.cidr: CIDR value"));
        assert!(NetworkPolicyStrategy.warnings(&plain).is_empty());
    }
}
