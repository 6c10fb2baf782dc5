//! Tables for EndpointSlices.

#![allow(clippy::unwrap_used)]

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
                "endpoints[0].addresses FieldValueRequired",
                "endpoints[1].addresses FieldValueInvalid must be an IPv4 address",
                "endpoints[1].addresses[1] FieldValueInvalid may not be in the loopback range",
            ],
        ),
        (
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.01", "x"]}]}),
            vec![
                "endpoints[0].addresses[0] FieldValueInvalid must not have leading 0s",
                "endpoints[0].addresses[1] FieldValueInvalid must be a valid IP address, (e.g.",
            ],
        ),
        (
            json!({"addressType": "IPv6", "endpoints": [{"addresses": ["FD00::1", "10.0.0.1", "::1"]}]}),
            vec![
                "endpoints[0].addresses[0] FieldValueInvalid must be in canonical form (\"fd00::1\")",
                "endpoints[0].addresses FieldValueInvalid must be an IPv6 address",
                "endpoints[0].addresses[2] FieldValueInvalid may not be in the loopback range",
            ],
        ),
        (
            json!({"addressType": "IPv4", "ports": [{"port": 0}, {"name": "b", "port": 65_536}, {"name": "c", "protocol": ""}]}),
            vec!["ports[2].protocol FieldValueNotSupported"],
        ),
        (
            json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b", "a", "A", format!("a.{}", "b".repeat(64))]}], "ports": [{"name": "A"}, {}, {}]}),
            vec![
                "ports[0].name FieldValueInvalid",
                "ports[2].name FieldValueDuplicate",
                "endpoints[0].addresses[1] FieldValueInvalid should be a domain",
                "endpoints[0].addresses[2] FieldValueInvalid a lowercase RFC 1123 subdomain",
                "endpoints[0].addresses[3] FieldValueInvalid must be no more than 63",
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
fn what_an_older_version_wrote() {
    let endpoint =
        json!({"addresses": ["10.0.0.01"], "deprecatedTopology": {"kubernetes.io/hostname": "n"}});
    let odd = slice(json!({"addressType": "IPv4", "endpoints": [endpoint]}));
    assert_causes(&EndpointSliceStrategy.validate_update(&odd, &odd), &[]);
    let topology = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.clone().unwrap();
        endpoints[0].deprecated_topology.is_some()
    };
    let mut new = odd.clone();
    EndpointSliceStrategy.prepare_for_update(&mut new, &odd);
    assert!(topology(&new), "what stays, stays whole");
    new.endpoints.as_mut().unwrap()[0].node_name = Some("n".to_owned());
    EndpointSliceStrategy.prepare_for_update(&mut new, &odd);
    assert!(!topology(&new));
    let mut created = odd.clone();
    EndpointSliceStrategy.prepare_for_create(&mut created);
    assert!(!topology(&created));
}

#[test]
fn warnings() {
    let mut object = slice(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]}));
    let deprecated = ["spec.addressType: FQDN endpoints are deprecated"];
    assert_eq!(EndpointSliceStrategy.warnings(&object), deprecated);
    assert!(
        EndpointSliceStrategy
            .warnings_on_update(&object, &object)
            .is_empty()
    );
    object = slice(json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.01"]}]}));
    let odd = [
        "endpoints[0].addresses[0]: non-standard IP address \"10.0.0.01\" is invalid: use \"10.0.0.1\"",
    ];
    assert_eq!(EndpointSliceStrategy.warnings(&object), odd);
    assert_eq!(
        EndpointSliceStrategy.warnings_on_update(&object, &object),
        odd
    );
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGERS[0].to_owned());
    assert!(EndpointSliceStrategy.warnings(&object).is_empty());
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
        "80,any",
        "10.42.0.1,10.42.0.2,10.42.0.3 + 1 more...",
        "<unknown>",
    ];
    assert_eq!(row, want.map(Cell::from));
    let row = EndpointSliceStrategy.row(&EndpointSlice::default(), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!((&row[2], &row[3]), (&"<unset>".into(), &"<unset>".into()));
}
