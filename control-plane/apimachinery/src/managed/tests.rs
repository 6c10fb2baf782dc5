#![allow(clippy::unwrap_used)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::{Map, json};

use super::*;
use crate::gvk::GroupVersionKind;
use crate::schema::Schema;

#[path = "scenario_tests.rs"]
mod scenarios;

/// Only one version is served.
struct One;

impl Versions for One {
    fn structure(&self, _: &str) -> Option<Node<'_>> {
        None
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }
}

fn nothing() -> Value {
    Value::Object(Map::new())
}

/// Without what is empty: encodings differ in whether they name it.
fn bare(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    };
    match value {
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(name, value)| (name.clone(), bare(value)));
            Value::Object(members.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(bare).collect()),
        scalar => scalar.clone(),
    }
}

fn write<'a>(manager: &'a str, reset: &'a Set, now: i64) -> Write<'a> {
    Write {
        api_version: "v1",
        structure: Schema::built_in()
            .kind(&GroupVersionKind::new("", "v1", "ConfigMap"))
            .unwrap(),
        versions: &One,
        reset,
        only: None,
        manager,
        subresource: "",
        now: jiff::Timestamp::from_second(now).unwrap(),
    }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "data": data})
}

fn times(managers: &Managers) -> Vec<(String, Option<i64>)> {
    let times = managers.iter();
    times
        .map(|(manager, entry)| {
            (
                manager.name.clone(),
                entry.time.map(|time| time.as_second()),
            )
        })
        .collect()
}

#[test]
fn times_are_those_of_changes() {
    let reset = Set::default();
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}});
    let first = super::apply(
        nothing(),
        &config,
        Managers::default(),
        &write("x", &reset, 1),
        false,
    )
    .unwrap();
    let again = super::apply(
        first.object.clone(),
        &config,
        first.managers.clone(),
        &write("x", &reset, 2),
        false,
    )
    .unwrap();
    assert_eq!(again, first);
    // Who comes to share a field has a time of its own.
    let shared = super::apply(
        first.object.clone(),
        &config,
        first.managers.clone(),
        &write("y", &reset, 3),
        false,
    )
    .unwrap();
    assert_eq!(
        times(&shared.managers),
        [("x".into(), Some(1)), ("y".into(), Some(3))]
    );
    let changed = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2"}});
    let error = super::apply(
        first.object.clone(),
        &changed,
        shared.managers.clone(),
        &write("y", &reset, 4),
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"x\": .data.a"
    );
    let forced = super::apply(
        first.object.clone(),
        &changed,
        shared.managers.clone(),
        &write("y", &reset, 4),
        true,
    )
    .unwrap();
    assert_eq!(times(&forced.managers), [("y".into(), Some(4))]);
    assert_eq!(forced.object["data"], json!({"a": "2"}));
}

#[test]
fn what_an_applier_drops_goes_unless_another_has_it() {
    let reset = Set::default();
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data});
    let (both, one) = (
        config(json!({"a": "1", "b": "1"})),
        config(json!({"a": "1"})),
    );
    let x = super::apply(
        nothing(),
        &both,
        Managers::default(),
        &write("x", &reset, 1),
        false,
    )
    .unwrap();
    let shared = super::apply(
        x.object.clone(),
        &one,
        x.managers.clone(),
        &write("y", &reset, 1),
        false,
    )
    .unwrap();
    let none = super::apply(
        shared.object.clone(),
        &config(json!({})),
        shared.managers.clone(),
        &write("x", &reset, 2),
        false,
    )
    .unwrap();
    assert_eq!(none.object["data"], json!({"a": "1"}));
    let all = super::apply(
        x.object.clone(),
        &config(json!({})),
        x.managers.clone(),
        &write("x", &reset, 2),
        false,
    )
    .unwrap();
    assert!(bare(&all.object).get("data").is_none(), "{}", all.object);
}

#[test]
fn the_oldest_of_many_updaters_are_merged() {
    let reset = Set::default();
    let mut managers = Managers::default();
    let mut old = nothing();
    for number in 0..13 {
        let mut data = old["data"].as_object().cloned().unwrap_or_default();
        data.insert(format!("k{number}"), "1".into());
        let new = config_map(data.into());
        let name = format!("m{number:02}");
        update(&mut managers, &old, &new, &write(&name, &reset, number)).unwrap();
        old = new;
    }
    let mut wanted: Vec<(String, Option<i64>)> = vec![("ancient-changes".into(), Some(3))];
    wanted.extend((4..13).map(|number| (format!("m{number:02}"), Some(number))));
    assert_eq!(times(&managers), wanted);
    let (_, ancient) = managers.iter().next().unwrap();
    assert_eq!(
        ancient.fields.to_json(),
        r#"{"f:data":{".":{},"f:k0":{},"f:k1":{},"f:k2":{},"f:k3":{}}}"#
    );
}

#[test]
fn nobody_is_tracked_after_a_reset_until_an_apply() {
    let reset = Set::default();
    let (old, new) = (config_map(json!({"a": "1"})), config_map(json!({"a": "2"})));
    let mut managers = Managers::default();
    update(&mut managers, &old, &new, &write("x", &reset, 1)).unwrap();
    assert!(managers.is_empty());
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2", "b": "1"}});
    let applied = super::apply(
        new.clone(),
        &config,
        managers.clone(),
        &write("y", &reset, 2),
        false,
    )
    .unwrap();
    let names: Vec<_> = applied
        .managers
        .iter()
        .map(|(manager, _)| manager.name.as_str())
        .collect();
    assert_eq!(names, ["before-first-apply", "y"]);
    let error = super::apply(
        new.clone(),
        &json!({"data": {"a": "3"}}),
        managers.clone(),
        &write("y", &reset, 2),
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_on_its_own_side() {
    let reset = Set::default();
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1", "b": "1"}});
    let mut live = config_map(json!({"a": "1", "b": "2"}));
    live["metadata"]["annotations"] = json!({last_applied::ANNOTATION: applied.to_string()});
    let mut managers = Managers::default();
    update(
        &mut managers,
        &nothing(),
        &live,
        &write("kubectl-client-side-apply", &reset, 1),
    )
    .unwrap();
    let config = |a: &str, b: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": a, "b": b}});
    let done = super::apply(
        live.clone(),
        &config("3", "2"),
        managers.clone(),
        &write("kubectl", &reset, 2),
        false,
    )
    .unwrap();
    assert_eq!(done.object["data"]["a"], "3");
    let annotation = done.object["metadata"]["annotations"][last_applied::ANNOTATION]
        .as_str()
        .unwrap();
    assert_eq!(annotation, format!("{}\n", config("3", "2")));
    // What has changed since is not its own.
    let error = super::apply(
        live.clone(),
        &config("3", "3"),
        managers.clone(),
        &write("kubectl", &reset, 2),
        false,
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.b"
    );
    // Another manager has no claim.
    assert!(
        super::apply(
            live.clone(),
            &config("3", "2"),
            managers.clone(),
            &write("other", &reset, 2),
            false
        )
        .is_err()
    );
}

#[test]
fn fields_that_a_write_cannot_change_are_not_its_managers() {
    let reset = Set::of([&["data"][..]]);
    let mut managers = Managers::default();
    let mut new = config_map(json!({"a": "1"}));
    new["immutable"] = true.into();
    update(&mut managers, &nothing(), &new, &write("x", &reset, 1)).unwrap();
    let fields: Vec<String> = managers
        .iter()
        .map(|(_, entry)| entry.fields.to_json())
        .collect();
    assert_eq!(fields, [r#"{"f:immutable":{}}"#]);
}

#[test]
fn configurations_that_make_no_sense() {
    let reset = Set::default();
    let structure = Schema::built_in()
        .kind(&GroupVersionKind::new("", "v1", "Service"))
        .unwrap();
    let write = Write {
        structure,
        ..write("x", &reset, 1)
    };
    let table = [
        (
            json!({"spec": {"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}}),
            ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (
            json!({"spec": {"ports": {"port": 1}}}),
            ".spec.ports: expected list, got {\"port\":1}",
        ),
        (
            json!({"spec": {"ports": [null]}}),
            ".spec.ports: element 0: associative list with keys may not have a null element",
        ),
        (json!({"spec": "x"}), ".spec: expected map, got \"x\""),
        (
            json!({"metadata": {"finalizers": [{}]}}),
            ".metadata.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
    ];
    for (config, want) in table {
        let error =
            super::apply(nothing(), &config, Managers::default(), &write, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("failed to create typed patch object: {want}")
        );
    }
}

#[test]
fn entries_are_read_and_written() {
    let entry = ManagedFieldsEntry {
        api_version: Some("v1".into()),
        fields_type: Some("FieldsV1".into()),
        fields_v1: Some(FieldsV1(json!({"f:data": {"f:a": {}}}))),
        manager: Some("x".into()),
        operation: Some("Apply".into()),
        subresource: None,
        time: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
    };
    let managers = Managers::read(std::slice::from_ref(&entry)).unwrap();
    assert_eq!(managers.clone().write(), Some(vec![entry.clone()]));
    let text = ManagedFieldsEntry {
        fields_v1: Some(FieldsV1(r#"{"f:data":{"f:a":{}}}"#.into())),
        ..entry.clone()
    };
    assert_eq!(managers.clone().write_text(), Some(vec![text.clone()]));
    for entry in [&entry, &text] {
        let read = Managers::read_text(std::slice::from_ref(entry));
        assert_eq!(read, Ok(managers.clone()));
    }
    // A client's string is no set.
    assert!(Managers::read(&[text]).is_err());
    let broken: [fn(&mut ManagedFieldsEntry); 5] = [
        |entry| entry.operation = Some("Patch".into()),
        |entry| entry.api_version = None,
        |entry| entry.fields_type = None,
        |entry| entry.fields_type = Some("FieldsV2".into()),
        |entry| entry.fields_v1 = Some(FieldsV1(json!({"f:a": []}))),
    ];
    for damage in broken {
        let mut entry = entry.clone();
        damage(&mut entry);
        let entries = [entry];
        assert!(Managers::read(&entries).is_err(), "{entries:?}");
        assert!(Managers::read_text(&entries).is_err(), "{entries:?}");
    }
    assert!(entries::is_reset(Some(
        &vec![ManagedFieldsEntry::default()]
    )));
    assert!(entries::is_reset(Some(&Vec::new())));
    assert!(!entries::is_reset(None) && !entries::is_reset(Some(&vec![entry])));
}
