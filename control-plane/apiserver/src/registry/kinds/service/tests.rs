//! Tables for Services: defaults, what their types allow, rows.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::validation::testing::assert_causes;

fn service(spec: Value) -> Service {
    let mut service = serde_json::from_value(
        json!({"metadata": {"name": "web", "namespace": "a"}, "spec": spec}),
    )
    .unwrap();
    ServiceStrategy.set_defaults(&mut service);
    service
}

fn created(spec: Value) -> Service {
    let mut service = service(spec);
    ServiceStrategy.prepare_for_create(&mut service);
    service
}

#[test]
fn defaults() {
    let table = [
        (
            json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}),
            json!({
                "selector": {"a": "b"}, "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            }),
        ),
        (
            json!({"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": "http", "protocol": "UDP"}]}),
            json!({
                "type": "NodePort", "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "UDP", "targetPort": "http"}],
            }),
        ),
        (
            json!({"clusterIP": "None"}),
            json!({
                "clusterIP": "None", "clusterIPs": ["None"], "type": "ClusterIP", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            }),
        ),
        (
            json!({"type": "ExternalName", "externalName": "example.com"}),
            json!({"type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None"}),
        ),
        (
            json!({"type": "LoadBalancer", "ports": [{"port": 80}]}),
            json!({
                "type": "LoadBalancer", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true,
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            }),
        ),
    ];
    for (given, want) in table {
        let service = created(given);
        assert_eq!(serde_json::to_value(&service.spec).unwrap(), want);
        assert_causes(&ServiceStrategy.validate(&service), &[]);
    }
}

#[test]
fn create() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec!["spec.ports FieldValueRequired"]),
        (
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}], "selector": {"a": "b"}}),
            vec![
                "spec.clusterIPs[0] FieldValueInvalid may not be set to 'None' for NodePort services",
            ],
        ),
        (
            json!({"type": "ExternalName"}),
            vec!["spec.externalName FieldValueRequired"],
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.43.0.9"}),
            vec!["spec.clusterIPs FieldValueForbidden may not be set for ExternalName services"],
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 80, "name": "b", "nodePort": 30000}, {"port": 0, "name": "b", "protocol": "ICMP"}]}),
            vec![
                "spec.ports[0].name FieldValueRequired",
                "spec.ports[1].nodePort FieldValueForbidden may not be used when `type` is 'ClusterIP'",
                "spec.ports[2].name FieldValueDuplicate",
                "spec.ports[2].port FieldValueInvalid",
                "spec.ports[2].protocol FieldValueNotSupported",
                "spec.ports[2].targetPort FieldValueInvalid",
                "spec.ports[1] FieldValueDuplicate",
            ],
        ),
        (
            json!({"type": "Magic", "sessionAffinity": "Cookie", "ports": [{"port": 80}]}),
            vec![
                "spec.sessionAffinity FieldValueNotSupported",
                "spec.type FieldValueNotSupported",
            ],
        ),
        (
            json!({"clusterIP": "10.43.0", "ports": [{"port": 80}]}),
            vec!["spec.clusterIPs[0] FieldValueInvalid must be a valid IP address"],
        ),
        (
            json!({"clusterIPs": ["10.43.0.1"], "ports": [{"port": 80}]}),
            vec![
                "spec.clusterIPs FieldValueInvalid must be empty when `clusterIP` is not specified",
            ],
        ),
        (
            json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]}),
            vec![
                "spec.ipFamilyPolicy FieldValueInvalid this cluster is not configured for dual-stack services",
                "spec.ipFamilies[0] FieldValueInvalid not configured on this cluster",
            ],
        ),
        (
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1/8"], "ports": [{"port": 80}]}),
            vec![
                "spec.LoadBalancerSourceRanges[0] FieldValueInvalid must not have bits set beyond",
            ],
        ),
        (
            json!({"externalIPs": ["127.0.0.1", "x"], "ports": [{"port": 80}], "externalTrafficPolicy": "Far"}),
            vec![
                "spec.externalIPs[0] FieldValueInvalid may not be in the loopback range",
                "spec.externalIPs[1] FieldValueInvalid must be a valid IP address",
                "spec.externalTrafficPolicy FieldValueNotSupported",
            ],
        ),
        (
            json!({"ports": [{"port": 80}], "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["x"], "trafficDistribution": "Near"}),
            vec![
                "spec.LoadBalancerSourceRanges FieldValueForbidden",
                "spec.LoadBalancerSourceRanges[0] FieldValueInvalid must be a valid CIDR value",
                "spec.externalTrafficPolicy FieldValueInvalid may only be set for externally-accessible services",
                "spec.trafficDistribution FieldValueNotSupported",
            ],
        ),
    ];
    for (spec, want) in table {
        assert_causes(&ServiceStrategy.validate(&created(spec)), &want);
    }
}

#[test]
fn update() {
    let old = created(json!({
        "type": "NodePort", "clusterIP": "10.43.0.9", "ports": [{"port": 80, "nodePort": 30000}], "selector": {"a": "b"},
    }));
    let table: Vec<(Value, Vec<&str>)> = vec![
        (
            json!({"type": "NodePort", "clusterIP": "10.43.0.9", "ports": [{"port": 81, "nodePort": 30000}]}),
            vec![],
        ),
        (
            json!({"type": "ClusterIP", "clusterIP": "10.43.0.9", "ports": [{"port": 80}], "externalTrafficPolicy": "Cluster"}),
            vec![],
        ),
        (
            json!({"type": "NodePort", "clusterIP": "10.43.0.10", "ports": [{"port": 80}]}),
            vec!["spec.clusterIPs[0] FieldValueInvalid may not change once set"],
        ),
        (
            json!({"type": "NodePort", "ports": [{"port": 80}]}),
            vec!["spec.clusterIPs[0] FieldValueInvalid primary clusterIP can not be unset"],
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b"}),
            vec![],
        ),
    ];
    for (spec, want) in table {
        let mut new = service(spec);
        ServiceStrategy.prepare_for_update(&mut new, &old);
        assert_causes(&ServiceStrategy.validate_update(&new, &old), &want);
    }
}

/// A change of type drops what the client left as it was, and nothing that it changed.
#[test]
fn changes_of_type() {
    let old = created(json!({
        "type": "LoadBalancer", "clusterIP": "10.43.0.9", "selector": {"a": "b"},
        "ports": [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81, "nodePort": 30001}],
    }));
    let balanced = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}});
    let with_status = |mut service: Service| {
        service.status = serde_json::from_value(balanced.clone()).unwrap();
        service
    };
    let old = with_status(old);
    let ports = |first: i32| json!([{"name": "a", "port": 80, "nodePort": first}, {"name": "c", "port": 82}]);
    let table: [(Value, Value, &[&str]); 6] = [
        (
            json!({"type": "ClusterIP", "clusterIP": "10.43.0.9", "ports": ports(30001)}),
            json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ports": [{}, {}]}),
            &[],
        ),
        (
            json!({"type": "ClusterIP", "clusterIP": "10.43.0.9", "ports": ports(30002)}),
            json!({"ports": [{"nodePort": 30002}, {}]}),
            &["spec.ports[0].nodePort FieldValueForbidden"],
        ),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.43.0.9", "ports": ports(30000), "allocateLoadBalancerNodePorts": false}),
            json!({"ports": [{"nodePort": 30000}, {}]}),
            &[],
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIPs": ["10.43.0.9"]}),
            json!({"clusterIP": null, "clusterIPs": null}),
            &[],
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": ports(30000)}),
            json!({"clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null, "ports": [{}, {}]}),
            &[],
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b", "ipFamilies": ["IPv6"]}),
            json!({"ipFamilies": ["IPv6"]}),
            &["spec.ipFamilies FieldValueForbidden"],
        ),
    ];
    for (spec, want, errors) in table {
        let balances = spec["type"] == "LoadBalancer";
        let mut new = service(spec);
        ServiceStrategy.prepare_for_update(&mut new, &old);
        assert_causes(&ServiceStrategy.validate_update(&new, &old), errors);
        let got = serde_json::to_value(&new.spec).unwrap();
        for (field, want) in want.as_object().unwrap() {
            let got = match field.as_str() {
                "ports" => node_ports_of(&got),
                field => got[field].clone(),
            };
            assert_eq!(&got, want, "{field}");
        }
        let status = serde_json::to_value(&new.status).unwrap();
        assert_eq!(status == balanced, balances, "{status}");
    }
    // A name that is no more used stays, as does a selector.
    let old = created(json!({"type": "ExternalName", "externalName": "a.b"}));
    let mut new = service(json!({"externalName": "a.b", "ports": [{"port": 80}]}));
    ServiceStrategy.prepare_for_update(&mut new, &old);
    assert_causes(&ServiceStrategy.validate_update(&new, &old), &[]);
    assert_eq!(new.spec.unwrap().external_name.as_deref(), Some("a.b"));
}

/// The port for health checks is dropped with what needs it, unless the client has changed it.
#[test]
fn ports_for_health_checks() {
    let spec = |kind: &str, policy: &str, port: i32| {
        json!({
            "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": port,
            "clusterIP": "10.43.0.9", "ports": [{"port": 80}],
        })
    };
    let invalid = created(spec("LoadBalancer", "Local", 70000));
    assert_causes(
        &ServiceStrategy.validate(&invalid),
        &["spec.healthCheckNodePort FieldValueInvalid must be between 1 and 65535, inclusive"],
    );
    let old = created(spec("LoadBalancer", "Local", 30000));
    assert_causes(&ServiceStrategy.validate(&old), &[]);
    let kept = "spec.healthCheckNodePort FieldValueForbidden field is immutable";
    let unasked = "spec.healthCheckNodePort FieldValueInvalid may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
    type Case<'a> = (&'a str, &'a str, i32, Option<i32>, &'a [&'a str]);
    let table: [Case<'_>; 5] = [
        ("LoadBalancer", "Local", 30000, Some(30000), &[]),
        ("LoadBalancer", "Local", 30001, Some(30001), &[kept]),
        ("LoadBalancer", "Cluster", 30000, None, &[]),
        ("LoadBalancer", "Cluster", 30001, Some(30001), &[unasked]),
        ("NodePort", "Local", 30000, None, &[]),
    ];
    for (kind, policy, port, want, errors) in table {
        let mut new = service(spec(kind, policy, port));
        ServiceStrategy.prepare_for_update(&mut new, &old);
        assert_causes(&ServiceStrategy.validate_update(&new, &old), errors);
        let got = new.spec.unwrap().health_check_node_port;
        assert_eq!(got, want, "{kind} {policy} {port}");
    }
}

/// The ports of a spec, with nothing but their node ports.
fn node_ports_of(spec: &Value) -> Value {
    let ports = spec["ports"].as_array().unwrap().iter();
    let ports = ports.map(|port| match port.get("nodePort") {
        Some(number) => json!({"nodePort": number}),
        None => json!({}),
    });
    ports.collect()
}

#[test]
fn status_update() {
    let mut object = created(json!({"ports": [{"port": 80}]}));
    let ingress = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3"}]}});
    object.status = serde_json::from_value(ingress.clone()).unwrap();
    assert_causes(
        &ServiceStrategy.validate_status_update(&object, &object),
        &["status.loadBalancer.ingress FieldValueForbidden"],
    );
    let mut object = created(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    object.status = serde_json::from_value(ingress).unwrap();
    ServiceStrategy.set_defaults(&mut object);
    assert_causes(
        &ServiceStrategy.validate_status_update(&object, &object),
        &["status.loadBalancer.ingress[0].ip FieldValueInvalid"],
    );
}

#[test]
fn rows() {
    let table = [
        (
            json!({"clusterIP": "10.43.0.9", "ports": [{"port": 80}], "selector": {"a": "b", "c": "d"}}),
            [
                "web",
                "ClusterIP",
                "10.43.0.9",
                "<none>",
                "80/TCP",
                "<unknown>",
                "a=b,c=d",
            ],
        ),
        (
            json!({"type": "NodePort", "clusterIP": "10.43.0.9", "ports": [{"port": 80, "nodePort": 30000}, {"port": 53, "protocol": "UDP"}]}),
            [
                "web",
                "NodePort",
                "10.43.0.9",
                "<none>",
                "80:30000/TCP,53/UDP",
                "<unknown>",
                "<none>",
            ],
        ),
        (
            json!({"clusterIP": "None"}),
            [
                "web",
                "ClusterIP",
                "None",
                "<none>",
                "<none>",
                "<unknown>",
                "<none>",
            ],
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b"}),
            [
                "web",
                "ExternalName",
                "<none>",
                "a.b",
                "<none>",
                "<unknown>",
                "<none>",
            ],
        ),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.43.0.9", "ports": [{"port": 80}]}),
            [
                "web",
                "LoadBalancer",
                "10.43.0.9",
                "<pending>",
                "80/TCP",
                "<unknown>",
                "<none>",
            ],
        ),
    ];
    for (spec, want) in table {
        let row = ServiceStrategy.row(&service(spec), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row, want.map(Cell::from));
        assert_eq!(row.len(), ServiceStrategy.columns().len());
    }
}
