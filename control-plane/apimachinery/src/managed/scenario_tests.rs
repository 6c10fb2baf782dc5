//! `scenarios.json` holds writes that were drawn at random, and what Kubernetes 1.37 makes of them.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{One, bare, nothing};
use crate::apply::Set;
use crate::gvk::GroupVersionKind;
use crate::managed::{Applied, Managers, Write, apply, update};
use crate::schema::Schema;

/// As the type has it, and as it is encoded.
fn through<T: Serialize + DeserializeOwned>(value: Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(without_nulls(value)).unwrap()).unwrap()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(name, value)| (name, without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}

fn normal(kind: &str, value: Value) -> Value {
    match kind {
        "Deployment" => through::<Deployment>(value),
        "Service" => through::<Service>(value),
        "ConfigMap" => through::<ConfigMap>(value),
        _ => through::<PersistentVolume>(value),
    }
}

/// A write as `scenarios.json` has it.
struct Step<'a> {
    kind: &'a GroupVersionKind,
    step: &'a Value,
    live: &'a Value,
    entries: &'a [ManagedFieldsEntry],
}

impl Step<'_> {
    fn text(&self, name: &str) -> &str {
        self.step[name].as_str().unwrap_or_default()
    }

    fn run(&self) -> Result<Applied, String> {
        let subresource = self.text("subresource");
        let reset = if subresource == "status" {
            "spec"
        } else {
            "status"
        };
        let write = Write {
            api_version: &self.kind.api_version(),
            structure: Schema::built_in().kind(self.kind).unwrap(),
            versions: &One,
            reset: &Set::of([&[reset][..]]),
            only: None,
            manager: self.text("manager"),
            subresource,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut managers = Managers::read(self.entries).unwrap();
        let object = self.step["object"].clone();
        if self.step["op"] == "apply" {
            let force = self.step["force"] == true;
            return apply(self.live.clone(), &object, managers, &write, force)
                .map_err(|error| error.to_string());
        }
        let object = normal(&self.kind.kind, object);
        update(&mut managers, self.live, &object, &write).map_err(|error| error.to_string())?;
        Ok(Applied { object, managers })
    }

    fn check(&self) {
        match (self.run(), self.step["error"].as_str()) {
            (Err(error), Some(want)) => assert_eq!(lines(&error), lines(want)),
            (Ok(_), Some(want)) => panic!("no error, where Kubernetes has {want}"),
            (Err(error), None) => panic!("{error}, where Kubernetes has none"),
            (Ok(applied), None) => {
                let managers: Vec<_> = applied.managers.write().unwrap_or_default();
                assert_eq!(untimed(&managers), untimed(&entries(self.step)));
                let object = bare(&normal(&self.kind.kind, applied.object));
                let wanted = bare(&normal(&self.kind.kind, self.step["live"].clone()));
                // What a strategy restores is not ours.
                let parts: &[&str] = match self.text("subresource") {
                    "status" => &["status"],
                    _ => &["spec", "data"],
                };
                for part in parts {
                    assert_eq!(object[part], wanted[part]);
                }
            }
        }
    }
}

/// Managers that conflict come in any order.
fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn entries(step: &Value) -> Vec<ManagedFieldsEntry> {
    serde_json::from_value(step["managed"].clone()).unwrap()
}

fn untimed(entries: &[ManagedFieldsEntry]) -> Vec<String> {
    let mut entries: Vec<String> = entries
        .iter()
        .map(|entry| {
            let entry = ManagedFieldsEntry {
                time: None,
                ..entry.clone()
            };
            serde_json::to_string(&entry).unwrap()
        })
        .collect();
    entries.sort();
    entries
}

#[test]
fn writes_do_what_kubernetes_makes_of_them() {
    let scenarios: Value = serde_json::from_str(include_str!("scenarios.json")).unwrap();
    for scenario in scenarios.as_array().unwrap() {
        let (group, kind) = (
            scenario["group"].as_str().unwrap(),
            scenario["kind"].as_str().unwrap(),
        );
        let kind = GroupVersionKind::new(group.to_owned(), "v1", kind.to_owned());
        let (mut live, mut managed) = (nothing(), Vec::new());
        for step in scenario["steps"].as_array().unwrap() {
            Step {
                kind: &kind,
                step,
                live: &live,
                entries: &managed,
            }
            .check();
            if step["error"].is_null() {
                live = normal(&kind.kind, step["live"].clone());
                managed = entries(step);
            }
        }
    }
}
