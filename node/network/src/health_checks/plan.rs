//! Which health checks there are, and what is answered: a function of Services and EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::rules::{by_service, is_proxied, leads_somewhere};

/// What is answered at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// Namespace of the Service.
    pub(super) namespace: String,
    /// Name of the Service.
    pub(super) service: String,
    /// How many of its endpoints are ready on the node.
    pub(super) local_endpoints: usize,
}

/// The checks of a node by their ports.
pub(crate) fn checks<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &str,
) -> BTreeMap<u16, Check> {
    let services = services.into_iter().filter(|service| is_proxied(service));
    let mut asked: Vec<(u16, &str, &str)> = services.filter_map(asked_at).collect();
    if asked.is_empty() {
        // Most clusters have no such Service.
        return BTreeMap::new();
    }
    // The API server gives a port to one Service. If two have it all the same, it stays with one.
    asked.sort_unstable();
    asked.dedup_by_key(|(port, ..)| *port);
    let slices = by_service(slices.into_iter().filter(|slice| leads_somewhere(slice)));
    let check = |(port, namespace, service): (u16, &str, &str)| {
        let slices = slices.get(&(namespace, service));
        let check = Check {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            local_endpoints: local_endpoints(slices.map_or(&[][..], Vec::as_slice), node),
        };
        (port, check)
    };
    asked.into_iter().map(check).collect()
}

/// The port at which nodes are asked for a Service, with its namespace and name.
fn asked_at(service: &Service) -> Option<(u16, &str, &str)> {
    let spec = service.spec.as_ref()?;
    let is_asked = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let port = u16::try_from(spec.health_check_node_port?).ok();
    let port = port.filter(|&port| is_asked && port != 0)?;
    let metadata = &service.metadata;
    Some((
        port,
        metadata.namespace.as_deref()?,
        metadata.name.as_deref()?,
    ))
}

/// How many endpoints are ready on a node. An endpoint is one address, however many ports it has and
/// in however many slices it is. Services have IPv4 addresses, and so have the endpoints that count.
fn local_endpoints(slices: &[&EndpointSlice], node: &str) -> usize {
    let addresses: BTreeSet<Ipv4Addr> = slices
        .iter()
        .filter(|slice| has_port(slice))
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|endpoint| endpoint.node_name.as_deref() == Some(node) && is_ready(endpoint))
        .filter_map(|endpoint| endpoint.addresses.first()?.parse().ok())
        .collect();
    addresses.len()
}

/// Whether anything leads to a slice's endpoints.
fn has_port(slice: &EndpointSlice) -> bool {
    let mut ports = slice.ports.iter().flatten();
    ports.any(|port| port.port.is_some_and(|number| number != 0))
}

/// An absent condition means ready (EndpointConditions in the API reference).
fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready);
    ready.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, kind: &str, policy: &str, port: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port,
                "clusterIP": "10.43.0.9", "ports": [{"port": 80}],
            },
        }))
        .unwrap()
    }

    /// A slice of `web`.
    fn slice(ports: Value, endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        }))
        .unwrap()
    }

    /// An endpoint, with the conditions that are set.
    fn endpoint(address: &str, node: &str, conditions: Value) -> Value {
        json!({"addresses": [address], "nodeName": node, "conditions": conditions})
    }

    #[test]
    fn services_that_nodes_are_asked_for() {
        let table: [(&str, &str, Value, Option<u16>); 6] = [
            ("LoadBalancer", "Local", json!(30000), Some(30000)),
            ("LoadBalancer", "Local", json!(null), None),
            ("LoadBalancer", "Local", json!(0), None),
            ("LoadBalancer", "Local", json!(70000), None),
            ("LoadBalancer", "Cluster", json!(30000), None),
            ("NodePort", "Local", json!(30000), None),
        ];
        for (kind, policy, port, want) in table {
            let row = format!("{kind} {policy} {port}");
            let service = service("web", kind, policy, port);
            let checks = checks([&service], [], "one");
            let ports: Vec<u16> = checks.keys().copied().collect();
            assert_eq!(ports, Vec::from_iter(want), "{row}");
        }
    }

    #[test]
    fn endpoints_count_that_are_ready_on_the_node() {
        let http = json!([{"name": "http", "port": 8080}]);
        let two = json!([{"name": "http", "port": 8080}, {"name": "https", "port": 8443}]);
        let ready = |address: &str| endpoint(address, "one", json!({"ready": true}));
        let table = [
            ("no slice", vec![], 0),
            (
                "ready here",
                vec![slice(
                    http.clone(),
                    json!([ready("10.42.0.2"), ready("10.42.0.3")]),
                )],
                2,
            ),
            (
                "nothing is said of it",
                vec![slice(
                    http.clone(),
                    json!([endpoint("10.42.0.2", "one", json!({}))]),
                )],
                1,
            ),
            (
                "elsewhere, or nowhere",
                vec![slice(
                    http.clone(),
                    json!([
                        endpoint("10.42.1.2", "two", json!({"ready": true})),
                        {"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                    ]),
                )],
                0,
            ),
            (
                "not ready, or ending",
                vec![slice(
                    http.clone(),
                    json!([
                        endpoint("10.42.0.2", "one", json!({"ready": false})),
                        endpoint(
                            "10.42.0.3",
                            "one",
                            json!({"ready": false, "serving": true, "terminating": true})
                        ),
                    ]),
                )],
                0,
            ),
            (
                "two ports of one, in two slices",
                vec![
                    slice(two, json!([ready("10.42.0.2")])),
                    slice(http.clone(), json!([ready("10.42.0.2")])),
                ],
                1,
            ),
            (
                "no port leads there",
                vec![
                    slice(json!(null), json!([ready("10.42.0.2")])),
                    slice(json!([{"name": "http"}]), json!([ready("10.42.0.3")])),
                ],
                0,
            ),
            (
                "of another family",
                vec![slice(http, json!([ready("fd00::2")]))],
                0,
            ),
        ];
        let service = service("web", "LoadBalancer", "Local", json!(30000));
        for (row, slices, want) in table {
            let check = Check {
                namespace: "shop".to_owned(),
                service: "web".to_owned(),
                local_endpoints: want,
            };
            let got = checks([&service], &slices, "one");
            assert_eq!(got, BTreeMap::from([(30000, check)]), "{row}");
        }
    }

    #[test]
    fn endpoints_are_those_of_the_service_and_a_port_has_one() {
        let web = service("web", "LoadBalancer", "Local", json!(30000));
        let other = service("other", "LoadBalancer", "Local", json!(30001));
        let same = service("zzz", "LoadBalancer", "Local", json!(30000));
        let ready = endpoint("10.42.0.2", "one", json!({"ready": true}));
        let slices = [slice(json!([{"port": 8080}]), json!([ready]))];
        let got: Vec<_> = checks([&same, &web, &other], &slices, "one")
            .into_iter()
            .map(|(port, check)| (port, check.service, check.local_endpoints))
            .collect();
        let want = [(30000, "web".to_owned(), 1), (30001, "other".to_owned(), 0)];
        assert_eq!(got, want);
    }

    #[test]
    fn another_proxys_service_is_not_ours_to_speak_of() {
        let mut web = service("web", "LoadBalancer", "Local", json!(30000));
        let ready = endpoint("10.42.0.2", "one", json!({"ready": true}));
        let mut slices = [slice(json!([{"port": 8080}]), json!([ready]))];
        let count = |web: &Service, slices: &[EndpointSlice]| -> Option<usize> {
            let checks = checks([web], slices, "one");
            checks.get(&30000).map(|check| check.local_endpoints)
        };
        assert_eq!(count(&web, &slices), Some(1));
        let labels = slices[0].metadata.labels.get_or_insert_default();
        labels.insert("service.kubernetes.io/headless".into(), String::new());
        assert_eq!(count(&web, &slices), Some(0));
        let labels = web.metadata.labels.get_or_insert_default();
        labels.insert(
            "service.kubernetes.io/service-proxy-name".into(),
            "other".into(),
        );
        assert_eq!(count(&web, &slices), None);
    }
}
