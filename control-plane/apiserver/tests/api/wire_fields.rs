//! Nothing that is served is lost in protobuf: every field of every schema has its number.

use std::collections::BTreeSet;

use coracle_apimachinery::protobuf::Kind;
use serde_json::{Map, Value, json};

use crate::harness::Api;

/// Fields of the types that the table of messages lacks.
struct Walk<'a> {
    definitions: &'a Map<String, Value>,
    lost: BTreeSet<String>,
    /// The schemas that are being sampled: one that holds itself is left out within itself.
    open: Vec<String>,
}

impl Walk<'_> {
    /// A value with every field that it may have.
    fn sample(&mut self, schema: &Value) -> Option<Value> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.named(reference.rsplit('/').next().unwrap());
        }
        match schema["type"].as_str() {
            Some("string") => Some(match schema["format"].as_str() {
                Some("date-time") => json!("2026-01-01T00:00:00Z"),
                Some("byte") => json!("YQ=="),
                // A duration too, for which there is no format.
                _ => json!("1s"),
            }),
            Some("integer") => Some(json!(7)),
            Some("number") => Some(json!(1.5)),
            Some("boolean") => Some(json!(true)),
            Some("array") => Some(json!([self.sample(&schema["items"])?])),
            // No fields, or none that are known.
            Some("object") if schema["additionalProperties"].is_null() => Some(json!({})),
            Some("object") => {
                let values = &schema["additionalProperties"];
                Some(json!({"k": self.sample(values)?}))
            }
            _ => Some(json!({"any": 1})),
        }
    }

    fn named(&mut self, name: &str) -> Option<Value> {
        if self.open.iter().any(|open| open == name) {
            return None;
        }
        let schema = &self.definitions[name];
        let Some(properties) = schema["properties"].as_object() else {
            return self.sample(schema);
        };
        self.open.push(name.to_owned());
        let mut object = Map::new();
        for (field, schema) in properties {
            if let Some(value) = self.sample(schema) {
                object.insert(field.clone(), value);
            }
        }
        self.open.pop();
        Some(object.into())
    }

    /// What is in one value and not in the other.
    fn compare(&mut self, was: &Value, is: &Value, path: &str) {
        match (was, is) {
            (Value::Object(was), Value::Object(is)) => {
                for (name, value) in was {
                    let path = format!("{path}.{name}");
                    // Only the object itself says in protobuf what it is.
                    let of_type =
                        path.matches('.').count() > 1 && (name == "kind" || name == "apiVersion");
                    match is.get(name) {
                        Some(found) => self.compare(value, found, &path),
                        None if of_type => {}
                        None => {
                            self.lost.insert(path);
                        }
                    }
                }
            }
            (Value::Array(was), Value::Array(is)) => {
                for (was, is) in was.iter().zip(is) {
                    self.compare(was, is, &format!("{path}[]"));
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn every_field_that_is_served_has_a_number() {
    let api = Api::new().await;
    let document = api.get("/openapi/v2").await.ok(200);
    let mut walk = Walk {
        definitions: document["definitions"].as_object().unwrap(),
        lost: BTreeSet::new(),
        open: Vec::new(),
    };
    let mut kinds = 0;
    for (name, schema) in walk.definitions {
        let Some(gvk) = schema["x-kubernetes-group-version-kind"][0].as_object() else {
            continue;
        };
        let text = |field: &str| gvk[field].as_str().unwrap();
        let api_version = match text("group") {
            "" => text("version").to_owned(),
            group => format!("{group}/{}", text("version")),
        };
        let kind = Kind::find(&api_version, text("kind"))
            .unwrap_or_else(|| panic!("{name} has no message"));
        let mut object = walk.named(name).unwrap();
        object["kind"] = text("kind").into();
        object["apiVersion"] = api_version.into();
        let protobuf = kind.encode(object.to_string().as_bytes()).unwrap();
        let back = coracle_apimachinery::protobuf::to_json(&protobuf, 1 << 26).unwrap();
        let back: Value = serde_json::from_slice(&back).unwrap();
        walk.compare(&object, &back, text("kind"));
        kinds += 1;
    }
    assert!(kinds > 30, "{kinds} kinds");
    assert_eq!(walk.lost, BTreeSet::new());
}
