#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::{Value, json};

fn service(spec: Value) -> Service {
    let metadata = json!({"name": "web", "namespace": "ns", "uid": "s"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn endpoints(metadata: Value) -> Endpoints {
    let mut endpoints = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "e"},
        "subsets": [
            {
                "addresses": [{"ip": "10.1.2.3", "nodeName": "n1"}, {"ip": "fd00::1"}],
                "notReadyAddresses": [{"ip": "10.1.2.4"}],
                "ports": [{"name": "http", "port": 80}],
            },
            {"addresses": [{"ip": "10.1.2.3"}], "ports": [{"port": 53, "protocol": "UDP"}]},
        ],
    });
    for (field, value) in metadata.as_object().unwrap() {
        endpoints["metadata"][field] = value.clone();
    }
    serde_json::from_value(endpoints).unwrap()
}

/// The slices after a plan.
fn after(actions: Vec<Action>) -> Vec<Arc<EndpointSlice>> {
    let mut slices = Vec::new();
    for (number, action) in actions.into_iter().enumerate() {
        let (Action::Create(mut slice) | Action::Update(mut slice)) = action else {
            panic!("{action:?}");
        };
        let name = slice.metadata.name.take();
        slice.metadata.name = name.or_else(|| Some(format!("web-{number}")));
        slices.push(Arc::new(slice));
    }
    slices
}

#[test]
fn endpoints_become_slices_by_family_and_ports() {
    let given = endpoints(json!({
        "labels": {"team": "a"},
        "annotations": {"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }));
    let service = service(json!({"ports": [{"port": 80}]}));
    let slices = after(plan(Some(&given), Some(&service), &[]));
    let line = |slice: &Arc<EndpointSlice>| {
        let port = slice.ports.as_ref().unwrap()[0].port.unwrap();
        let mut line = format!("{} {port}:", slice.address_type);
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().unwrap().ready.unwrap();
            let address = &endpoint.addresses[0];
            line += &format!(" {address} {}", if ready { "ready" } else { "not" });
        }
        line
    };
    let shown: Vec<String> = slices.iter().map(line).collect();
    let want = [
        "IPv4 53: 10.1.2.3 ready",
        "IPv4 80: 10.1.2.3 ready 10.1.2.4 not",
        "IPv6 80: fd00::1 ready",
    ];
    assert_eq!(shown, want);
    let slice = &slices[1];
    assert_eq!(slice.labels()[SERVICE_NAME], "web");
    assert_eq!(slice.labels()[MANAGED_BY], US);
    assert_eq!(slice.labels()["team"], "a");
    assert_eq!(slice.annotations().len(), 1);
    assert_eq!(slice.owner_references()[0].kind, "Endpoints");
    assert!(plan(Some(&given), Some(&service), &slices).is_empty());
}

#[test]
fn what_is_no_list_of_endpoints_is_not_mirrored() {
    let plain = service(json!({}));
    let selecting = service(json!({"selector": {"a": "b"}}));
    let skipped = endpoints(json!({"labels": {SKIP: "true"}}));
    let lock = endpoints(json!({"annotations": {LEADER: "me"}}));
    let given = endpoints(json!({}));
    let slices = after(plan(Some(&given), Some(&plain), &[]));
    for (endpoints, service) in [
        (Some(&given), Some(&selecting)),
        (Some(&given), None),
        (None, Some(&plain)),
        (Some(&skipped), Some(&plain)),
        (Some(&lock), Some(&plain)),
    ] {
        let deleted = plan(endpoints, service, &slices);
        assert!(
            deleted
                .iter()
                .all(|action| matches!(action, Action::Delete(_)))
        );
        assert_eq!(deleted.len(), slices.len());
    }
}
