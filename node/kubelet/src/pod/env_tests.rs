//! Tables for the environment of containers.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn sources() -> Sources {
    let map: ConfigMap = serde_json::from_value(json!({
        "data": {"color": "red", "size": "big", "odd key": "x"},
    }))
    .unwrap();
    let secret: Secret = serde_json::from_value(json!({
        "data": {"password": "cDQ1NQ==", "binary": "/w=="},
    }))
    .unwrap();
    Sources {
        config_maps: BTreeMap::from([("cm".to_owned(), Some(map)), ("gone".to_owned(), None)]),
        secrets: BTreeMap::from([("s".to_owned(), Some(secret)), ("gone".to_owned(), None)]),
        files: BTreeMap::from([
            (
                ("v".to_owned(), "env".to_owned()),
                Ok(Some("K='1'".to_owned())),
            ),
            (("v".to_owned(), "gone".to_owned()), Ok(None)),
            (("v".to_owned(), "bad".to_owned()), Err("no".to_owned())),
        ]),
        ..Sources::default()
    }
}

fn made(container: Value, services: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let mut container = container;
    container["name"] = json!("main");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [container]},
    }))
    .unwrap();
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let services = services
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let around = Surroundings::default();
    let env = environment(&pod, container, services, &sources(), &around);
    env.map(|env| env.iter().map(|(k, v)| format!("{k}={v}")).collect())
        .map_err(|error| error.to_string())
}

#[test]
fn values_come_from_files_of_volumes() {
    let of = |path: &str, key: &str, optional: bool| {
        let source = json!({"volumeName": "v", "path": path, "key": key, "optional": optional});
        made(
            json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": source}}]}),
            &[],
        )
    };
    assert_eq!(of("env", "K", false).unwrap(), ["A=1"]);
    for path in ["env", "gone"] {
        let missing = of(path, "L", false).unwrap_err();
        assert_eq!(
            missing,
            format!("environment variable key \"L\" not found in file \"{path}\"")
        );
        assert!(of(path, "L", true).unwrap().is_empty());
    }
    assert_eq!(
        of("bad", "K", true).unwrap_err(),
        "couldn't parse env file \"bad\": no"
    );
}

#[test]
fn values_in_order_with_references() {
    let env = made(
        json!({"env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(C)-$(SVC)"},
            {"name": "C", "value": "3"},
            {"name": "A", "value": "again $(A)"},
            {"name": "NONE"},
        ]}),
        &[("SVC", "10.0.0.1"), ("C", "hidden")],
    );
    let expected = [
        "SVC=10.0.0.1",
        "A=again 1",
        "B=1-hidden-10.0.0.1",
        "C=3",
        "NONE=",
    ];
    assert_eq!(env.unwrap(), expected);
}

#[test]
fn from_config_maps_and_secrets() {
    let env = made(
        json!({
            "envFrom": [
                {"configMapRef": {"name": "cm"}, "prefix": "P_"},
                {"configMapRef": {"name": "gone", "optional": true}},
                {"secretRef": {"name": "gone", "optional": true}},
            ],
            "env": [
                {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "P_size", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "color"}}},
                {"name": "OPT", "valueFrom":
                    {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
                {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
        }),
        &[],
    );
    let expected = [
        "P_color=red",
        "P_odd key=x",
        "P_size=red",
        "PW=p455",
        "ME=p",
    ];
    assert_eq!(env.unwrap(), expected);
}

#[test]
fn what_is_missing_is_named() {
    let key = |kind: &str, name: &str, key: &str| json!({"env": [{"name": "X", "valueFrom": {kind: {"name": name, "key": key}}}]});
    let table = [
        (
            key("configMapKeyRef", "gone", "k"),
            "configmap \"gone\" not found",
        ),
        (
            key("secretKeyRef", "gone", "k"),
            "secret \"gone\" not found",
        ),
        (
            key("configMapKeyRef", "cm", "k"),
            "couldn't find key k in ConfigMap ns/cm",
        ),
        (
            key("secretKeyRef", "s", "k"),
            "couldn't find key k in Secret ns/s",
        ),
        (
            key("secretKeyRef", "s", "binary"),
            "key binary of secret ns/s is not text",
        ),
        (
            json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}),
            "configmap \"gone\" not found",
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            "unsupported fieldPath: spec.x",
        ),
    ];
    for (container, expected) in table {
        assert_eq!(made(container, &[]).unwrap_err(), expected);
    }
}

#[test]
fn references_are_collected() {
    let container: Container = serde_json::from_value(json!({
        "name": "main",
        "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
        "env": [
            {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}},
        ],
    }))
    .unwrap();
    let mut found = References::default();
    references(&container, &mut found);
    assert_eq!(Vec::from_iter(found.config_maps), ["a", "c"]);
    assert_eq!(Vec::from_iter(found.secrets), ["b", "d"]);
}
