//! Objects that fit their schema and nothing else: no input may get more than a refusal.
//!
//! For every kind that is served, values are drawn from the kind's own published schema with
//! strings and numbers that people, and people who mean harm, put there. Whatever comes of it,
//! the answer is below 500, nobody panics, and what was accepted can be read in every form.

use std::collections::BTreeSet;
use std::sync::Mutex;

use http::Method;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::harness::Api;

/// Objects drawn for each kind.
const DRAWN: u32 = 48;
/// Schemas refer to themselves (`JSONSchemaProps`); values end somewhere.
const MAX_DEPTH: usize = 9;

const STRINGS: &[&str] = &[
    "",
    "a",
    "web",
    "Always",
    "Never",
    "IfNotPresent",
    "ClusterIP",
    "NodePort",
    "None",
    "TCP",
    "UDP",
    "Exists",
    "In",
    "DoesNotExist",
    "NoSchedule",
    "RollingUpdate",
    "Recreate",
    "OnDelete",
    "true",
    "1",
    "-1",
    "0",
    "100%",
    "%",
    "-5%",
    "1Gi",
    "-1Gi",
    "1e400",
    "99999999999999999999Ei",
    "1m",
    ".",
    "10.43.0.9",
    "10.43.0.0",
    "999.1.1.1",
    "::1",
    "fe80::1%eth0",
    "2020-02-30T00:00:00Z",
    "2020-01-01T00:00:00Z",
    "app:v1",
    "metadata.name",
    "metadata.annotations['",
    "spec..nodeName",
    "$(A)",
    "$(",
    "/",
    "../..",
    "/a/../b",
    "a/b/c",
    "kubernetes.io/hostname",
    "-",
    "A_b.C",
    "\u{0}",
    "\u{202e}x",
    "ü",
    "a\nb",
    "{",
    "[[[",
    "* * * * *",
    "@every 1ns",
    "https://[::1",
];

/// What schemas there are, by name.
struct Schemas(Map<String, Value>);

impl Schemas {
    fn draw(&self, rng: &mut StdRng, schema: &Value, depth: usize) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.draw(rng, &self.0[name], depth);
        }
        for several in ["allOf", "oneOf", "anyOf"] {
            if let Some(choices) = schema[several].as_array()
                && let Some(choice) = choices.choose(rng)
            {
                return self.draw(rng, choice, depth);
            }
        }
        match schema["type"].as_str() {
            Some("object") if depth < MAX_DEPTH => self.object(rng, schema, depth),
            Some("object") => json!({}),
            Some("array") if depth < MAX_DEPTH => {
                let length = *[0, 1, 1, 2, 3].choose(rng).unwrap_or(&0);
                (0..length)
                    .map(|_| self.draw(rng, &schema["items"], depth + 1))
                    .collect()
            }
            Some("array") => json!([]),
            Some("integer") => json!(
                [
                    0,
                    1,
                    -1,
                    2,
                    80,
                    8080,
                    65536,
                    i64::from(i32::MAX),
                    i64::from(i32::MIN)
                ]
                .choose(rng)
            ),
            Some("number") => json!([0.0, -1.5, 1e308].choose(rng)),
            Some("boolean") => json!(rng.random_bool(0.5)),
            _ if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
            _ if schema["format"] == "int-or-string" && rng.random_bool(0.5) => {
                json!([0, 1, -1, 80, 70_000].choose(rng))
            }
            Some("string") => match rng.random_range(0..40) {
                0 => json!("x".repeat(rng.random_range(60..400))),
                _ => json!(STRINGS.choose(rng)),
            },
            // Anything.
            _ => json!(["a", "1Gi", ""].choose(rng)),
        }
    }

    fn object(&self, rng: &mut StdRng, schema: &Value, depth: usize) -> Value {
        let mut object = Map::new();
        if let Some(properties) = schema["properties"].as_object() {
            let required = schema["required"].as_array();
            // Deep down fewer fields, or there would be no end of them.
            let chance = 0.6 / (1.0 + depth as f64 * 0.5);
            for (name, property) in properties {
                let must = required.is_some_and(|names| names.iter().any(|n| n == name.as_str()));
                let may = rng.random_bool(chance);
                if (must && rng.random_bool(0.95)) || may {
                    object.insert(name.clone(), self.draw(rng, property, depth + 1));
                }
            }
        }
        let more = &schema["additionalProperties"];
        if more.is_object() {
            for _ in 0..rng.random_range(0..3) {
                let name = STRINGS.choose(rng).copied().unwrap_or_default();
                object.insert(name.to_owned(), self.draw(rng, more, depth + 1));
            }
        }
        Value::Object(object)
    }
}

/// A kind that can be created, and how.
struct Target {
    path: String,
    schema: Value,
    type_meta: (String, String),
}

/// Everything that discovery offers to create, with the published schema.
async fn targets(api: &Api) -> (Vec<Target>, Schemas) {
    let mut schemas = Map::new();
    let mut targets = Vec::new();
    let index = api.get("/openapi/v3").await.ok(200);
    let paths = index["paths"].as_object().cloned().unwrap_or_default();
    for group_version in paths.keys().filter(|path| path.matches('/').count() > 0) {
        let document = api
            .get(&format!("/openapi/v3/{group_version}"))
            .await
            .ok(200);
        if let Some(found) = document["components"]["schemas"].as_object() {
            schemas.extend(found.clone());
        }
        let listed = api.get(&format!("/{group_version}")).await;
        if listed.code != 200 {
            continue;
        }
        let listed = listed.json();
        let version = listed["groupVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        for resource in listed["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().unwrap_or_default();
            let creates = resource["verbs"]
                .as_array()
                .is_some_and(|verbs| verbs.iter().any(|verb| verb == "create"));
            if !creates || name.contains('/') {
                continue;
            }
            let kind = resource["kind"].as_str().unwrap_or_default().to_owned();
            let within = match resource["namespaced"] == true {
                true => "namespaces/default/",
                false => "",
            };
            let (group, plain_version) = version.split_once('/').unwrap_or(("", &version));
            let schema = schemas.values().find(|schema| {
                let kinds = schema["x-kubernetes-group-version-kind"].as_array();
                kinds.into_iter().flatten().any(|gvk| {
                    gvk["group"] == group
                        && gvk["version"] == plain_version
                        && gvk["kind"] == kind.as_str()
                })
            });
            targets.push(Target {
                path: format!("/{group_version}/{within}{name}"),
                schema: schema
                    .unwrap_or_else(|| panic!("no schema of {kind}"))
                    .clone(),
                type_meta: (version.clone(), kind),
            });
        }
    }
    (targets, Schemas(schemas))
}

#[track_caller]
fn below_500(code: u16, text: &str, what: &str) {
    assert!(code < 500, "{code}: {text}\nfor {what}");
}

#[test]
fn no_object_gets_more_than_a_refusal() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let api = runtime.block_on(Api::new());
    let (targets, schemas) = runtime.block_on(targets(&api));
    assert!(targets.len() >= 16, "{}", targets.len());
    let accepted = Mutex::new(BTreeSet::new());
    let config = ProptestConfig::with_cases(DRAWN);
    proptest!(config, |(seed in any::<u64>())| {
        runtime.block_on(async {
            for target in &targets {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut object = schemas.draw(&mut rng, &target.schema, 0);
                object["apiVersion"] = json!(target.type_meta.0);
                object["kind"] = json!(target.type_meta.1);
                let whole = api.post(&target.path, &object).await;
                below_500(whole.code, &whole.text, &object.to_string());
                // Once more without what only a server may say, and then without what is refused.
                object["metadata"] = json!({"name": format!("garbage-{seed}")});
                let mut answer = api.post(&target.path, &object).await;
                for _ in 0..60 {
                    below_500(answer.code, &answer.text, &object.to_string());
                    if answer.code == 201 {
                        break;
                    }
                    if !forgive(&mut object, &answer.text) && !complete(&mut object) {
                        break;
                    }
                    answer = api.post(&target.path, &object).await;
                }
                if answer.code == 201 {
                    accepted.lock().unwrap().insert(target.type_meta.1.clone());
                    let stored = answer.json();
                    let name = stored["metadata"]["name"].as_str().unwrap_or_default();
                    if stored["metadata"].get("uid").is_none() {
                        // An answer, of which nothing is stored.
                        continue;
                    }
                    every_form(&api, &target.path, name, &object).await;
                }
            }
        });
    });
    // Else nothing behind the checks was reached.
    let accepted = accepted.into_inner().unwrap();
    assert!(
        accepted.len() * 2 >= targets.len(),
        "only {accepted:?} were ever accepted"
    );
}

/// Takes out of an object what a refusal names, so that the next try comes further. Whether
/// there was anything.
fn forgive(object: &mut Value, refusal: &str) -> bool {
    let Ok(status) = serde_json::from_str::<Value>(refusal) else {
        return false;
    };
    let mut any = false;
    for cause in status["details"]["causes"].as_array().into_iter().flatten() {
        let field = cause["field"].as_str().unwrap_or_default();
        any |= match cause["reason"].as_str() {
            // What lacks a part goes as a whole.
            Some("FieldValueRequired") => field
                .rsplit_once('.')
                .is_some_and(|(whole, _)| whole != "spec" && remove(object, whole)),
            _ => remove(object, field),
        };
    }
    // What admission did not find.
    for field in [
        "serviceAccountName",
        "priorityClassName",
        "priority",
        "runtimeClassName",
    ] {
        any |= status["reason"] == "Forbidden" && remove(object, &format!("spec.{field}"));
    }
    any
}

/// What an object of a kind cannot be without, where chance will not find it.
fn least(kind: &str) -> Value {
    let labels = json!({"app": "a"});
    let container = json!({"name": "c", "image": "app:v1"});
    match kind {
        "Pod" => json!({"spec": {"containers": [container]}}),
        "Deployment" | "ReplicaSet" => json!({"spec": {
            "selector": {"matchLabels": labels, "matchExpressions": null},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }}),
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "EndpointSlice" => json!({"addressType": "IPv4"}),
        "RuntimeClass" => json!({"handler": "wasm"}),
        _ => Value::Null,
    }
}

/// Puts into an object what it cannot be without. Whether that changed it.
fn complete(object: &mut Value) -> bool {
    let before = object.clone();
    let least = least(object["kind"].as_str().unwrap_or_default());
    merge(object, &least);
    *object != before
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert_with(|| json!({})), value);
                }
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}

/// Removes a field by its path in an error (`spec.ports[0].name`), or as much as is there.
fn remove(object: &mut Value, path: &str) -> bool {
    let pointer = path.replace('[', ".").replace(']', "");
    let mut parts: Vec<&str> = pointer.split('.').filter(|part| !part.is_empty()).collect();
    while let Some(last) = parts.pop() {
        let parent = format!("/{}", parts.join("/"));
        let parent = match parts.is_empty() {
            true => Some(&mut *object),
            false => object.pointer_mut(&parent),
        };
        let removed = match (parent, last.parse::<usize>()) {
            (Some(Value::Object(map)), _) => map.remove(last).is_some(),
            (Some(Value::Array(items)), Ok(index)) if index < items.len() => {
                items.remove(index);
                true
            }
            _ => false,
        };
        if removed {
            return true;
        }
    }
    false
}

/// What was accepted can be read, printed, changed and deleted.
async fn every_form(api: &Api, collection: &str, name: &str, drawn: &Value) {
    let what = drawn.to_string();
    let path = format!("{collection}/{name}");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (path, accept) in [
        (path.as_str(), "application/json"),
        (path.as_str(), table),
        (collection, table),
    ] {
        let answer = api.get_as(path, accept).await;
        below_500(answer.code, &answer.text, &what);
        if path != collection {
            assert_eq!(answer.code, 200, "{what}");
        }
    }
    let stored = api.get(&path).await.json();
    let unchanged = api.put(&path, &stored).await;
    below_500(unchanged.code, &unchanged.text, &what);
    for kind in ["merge", "strategic-merge"] {
        let answer = api.patch(&path, kind, drawn).await;
        below_500(answer.code, &answer.text, &what);
        // Every field becomes nothing.
        let nothing: Map<String, Value> = stored
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| (key.clone(), Value::Null))
            .collect();
        let answer = api.patch(&path, kind, &Value::Object(nothing)).await;
        below_500(answer.code, &answer.text, &what);
    }
    let deleted = api
        .raw(Method::DELETE, &path, "", axum::body::Body::empty())
        .await;
    below_500(deleted.code, &deleted.text, &what);
}
