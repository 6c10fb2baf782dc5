#![allow(clippy::unwrap_used)]

use super::*;

/// Objects as client-go 0.37 encodes them, and the same as its JSON.
const SAMPLES: &[(&str, &str)] = &[
    (
        concat!(
            "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EroCCjIKA3dlYhIAGgAiACoAMgA4AEIICIDiz6oGEABaCgoDYXBwEg",
            "N3ZWJaCQoFZW1wdHkSABL1AQgDEgwKCgoDYXBwEgN3ZWIazQEKHAoAEgAaACIAKgAyADgAQgBaCgoDYXBwEgN3ZWIS",
            "rAEKCQoBdhIEEgIKAAoNCgFzEggyBgoBcxikAxJ0CgFjEgNpOjEiAi14IgAqADILCgAQABiQPyIAKgA6EgoBQRIAGg",
            "saCQoECgJjbRIBa0ISChAKBm1lbW9yeRIGCgQ2NE1pUh0KERIPCgEvEgYIABBQGgAaACIAEAAYACAAKAAwAGoAcgCA",
            "AQCIAQCQAQCiAQAaADIAQgBKAFIAWABgAGgAggEAigEAmgEAwgEAIg8KABILCgkIARAAGgMyNSUoADgAGgwIABAAGA",
            "AgACgAOAAaACIA",
        ),
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web","creationTimestamp":"2023-11-14T22:13:20Z","labels":{"app":"web","empty":""}},"spec":{"replicas":3,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"volumes":[{"name":"v","emptyDir":{}},{"name":"s","secret":{"secretName":"s","defaultMode":420}}],"containers":[{"name":"c","image":"i:1","args":["-x",""],"ports":[{"containerPort":8080}],"env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"cm","key":"k"}}}],"resources":{"limits":{"memory":"64Mi"}},"livenessProbe":{"httpGet":{"path":"/","port":80}}}]}},"strategy":{"rollingUpdate":{"maxUnavailable":"25%"}}},"status":{}}"#,
    ),
    (
        "azhzAAoMCgJ2MRIGU2VjcmV0Eh8KEgoAEgJzLRoAIgAqADIAOABCABIHCgFhEgJi/xoAGgAiAA==",
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"generateName":"s-"},"data":{"a":"Yv8="}}"#,
    ),
    (
        concat!(
            "azhzAAofChZjb29yZGluYXRpb24uazhzLmlvL3YxEgVMZWFzZRIlChAKABIAGgAiACoAMgA4AEIAEhEKAm1lIgsIgO",
            "LPqgYQgJTvOhoAIgA=",
        ),
        r#"{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{},"spec":{"holderIdentity":"me","renewTime":"2023-11-14T22:13:20.123456Z"}}"#,
    ),
    (
        "azhzAAoYCgdhcHBzL3YxEg1EZWxldGVPcHRpb25zEgsI////////////ARoAIgA=",
        r#"{"kind":"DeleteOptions","apiVersion":"apps/v1","gracePeriodSeconds":-1}"#,
    ),
];

/// Without nulls and empty objects, which Go's JSON leaves out here and there.
fn prune(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, prune(value)));
            kept.filter(|(_, value)| !value.is_null() && *value != json!({}))
                .collect::<Map<_, _>>()
                .into()
        }
        Value::Array(items) => items.into_iter().map(prune).collect(),
        other => other,
    }
}

#[test]
fn bodies_of_go_clients_are_read_as_their_json() {
    for (protobuf, want) in SAMPLES {
        let got = decode(&STANDARD.decode(protobuf).unwrap()).unwrap();
        let want: Value = serde_json::from_str(want).unwrap();
        assert_eq!(prune(got), prune(want));
    }
    let deployment = decode(&STANDARD.decode(SAMPLES[0].0).unwrap()).unwrap();
    assert_eq!(
        deployment["spec"]["template"]["spec"]["volumes"][0]["emptyDir"],
        json!({})
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"]["containers"][0]["args"],
        json!(["-x", ""])
    );
    // An enum that is empty is absent, so that it is defaulted.
    assert!(
        deployment["spec"]["template"]["spec"]
            .get("restartPolicy")
            .is_none()
    );
}

#[test]
fn the_table_is_whole() {
    assert_eq!(TABLE.faults, Vec::<&str>::new());
    for (version, kind) in [
        ("v1", "Pod"),
        ("policy/v1", "Eviction"),
        ("apps/v1", "DeleteOptions"),
    ] {
        assert!(
            !TABLE.kind(version, kind).unwrap().fields.is_empty(),
            "{kind}"
        );
    }
}

#[test]
fn no_body_makes_it_panic() {
    let sample = STANDARD.decode(SAMPLES[0].0).unwrap();
    for cut in 0..sample.len() {
        let _ = decode(&sample[..cut]);
        let mut damaged = sample.clone();
        damaged[cut] ^= 0xff;
        let _ = decode(&damaged);
    }
    for body in [
        &b""[..],
        b"k8s",
        b"{}",
        b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        assert!(decode(body).is_err());
    }
}
