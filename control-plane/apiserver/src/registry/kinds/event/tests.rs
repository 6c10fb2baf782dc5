//! Tables for Events of both versions.

#![allow(clippy::unwrap_used)]

use k8s_openapi::api::events::v1::Event as Modern;
use serde_json::{Value, json};

use super::events_v1::{from_core, to_core};
use super::*;
use crate::registry::kinds::versions::Viewed;
use crate::registry::strategy::{NameRule, Strategy};
use crate::validation::testing::assert_causes;

fn event() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": "web.1", "namespace": "a"},
        "involvedObject": {"kind": "Pod", "namespace": "a", "name": "web", "fieldPath": "spec.containers{c}"},
        "reason": "Pulled", "message": "Pulled image\n", "type": "Normal",
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:05:00Z", "count": 3,
    })
}

fn modern() -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "web.2", "namespace": "a"},
        "regarding": {"kind": "Pod", "namespace": "a", "name": "web"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "coracle.dev/scheduler", "reportingInstance": "s-1",
        "action": "Binding", "reason": "Scheduled", "note": "bound", "type": "Normal",
    })
}

#[test]
fn one_object_in_two_versions() {
    let view: Modern = serde_json::from_value(modern()).unwrap();
    let stored = Viewed(super::EventView).encode_stored(&view).unwrap();
    assert!(stored.starts_with(br#"{"apiVersion":"v1","kind":"Event""#));
    assert_eq!(
        Viewed(super::EventView).decode_stored(&stored).unwrap(),
        view
    );
    let old: Event = serde_json::from_value(event()).unwrap();
    assert_eq!(to_core(from_core(old.clone())), old);
}

#[test]
fn validation() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"involvedObject": {"kind": "Pod", "namespace": "b"}}),
            vec!["involvedObject.namespace FieldValueInvalid does not match event.namespace"],
        ),
        (
            json!({"involvedObject": {"kind": "Node", "name": "n"}}),
            vec!["involvedObject.namespace FieldValueInvalid"],
        ),
        (
            json!({"eventTime": "2026-01-01T00:00:00.000000Z"}),
            vec![
                "reportingComponent FieldValueRequired",
                "reportingComponent FieldValueInvalid name part must be non-empty",
                "reportingComponent FieldValueInvalid name part must consist of",
                "reportingInstance FieldValueRequired",
                "action FieldValueRequired",
            ],
        ),
    ];
    for (change, want) in table {
        let mut value = event();
        for (field, member) in change.as_object().unwrap() {
            value[field] = member.clone();
        }
        assert_causes(
            &EventStrategy.validate(&serde_json::from_value(value).unwrap()),
            &want,
        );
    }
    let elsewhere = json!({
        "involvedObject": {"kind": "Pod", "namespace": "b", "name": "web"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "c",
        "reportingInstance": "i", "action": "a",
    });
    let mut value = event();
    for (field, member) in elsewhere.as_object().unwrap() {
        value[field] = member.clone();
    }
    assert_causes(
        &EventStrategy.validate(&serde_json::from_value(value).unwrap()),
        &[],
    );
    let mut node = event();
    node["metadata"]["namespace"] = json!("default");
    node["involvedObject"] = json!({"kind": "Node", "name": "n"});
    assert!(
        EventStrategy
            .validate(&serde_json::from_value(node).unwrap())
            .is_empty()
    );
}

#[test]
fn validation_of_the_newer_version() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"type": "Odd"}),
            vec!["type FieldValueInvalid has invalid value: Odd"],
        ),
        (
            json!({"deprecatedCount": 1}),
            vec!["count FieldValueInvalid needs to be unset"],
        ),
        (
            json!({"eventTime": null}),
            vec!["eventTime FieldValueRequired"],
        ),
        (
            json!({"series": {"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}),
            vec!["series.count FieldValueInvalid should be at least 2"],
        ),
    ];
    for (change, want) in table {
        let mut value = modern();
        for (field, member) in change.as_object().unwrap() {
            value[field] = member.clone();
        }
        assert_causes(
            &Viewed(super::EventView).validate(&serde_json::from_value(value).unwrap()),
            &want,
        );
    }
    let old: Modern = serde_json::from_value(modern()).unwrap();
    let mut new = old.clone();
    let later = |event: &mut Modern, time: jiff::SignedDuration| {
        let when = event.event_time.as_mut().unwrap();
        when.0 += time;
    };
    later(&mut new, jiff::SignedDuration::from_nanos(1));
    assert_causes(&Viewed(super::EventView).validate_update(&new, &old), &[]);
    later(&mut new, jiff::SignedDuration::from_micros(1));
    assert_causes(
        &Viewed(super::EventView).validate_update(&new, &old),
        &["eventTime FieldValueInvalid field is immutable"],
    );
    let mut new = old.clone();
    new.note = Some("other".to_owned());
    assert_causes(
        &Viewed(super::EventView).validate_update(&new, &old),
        &["message FieldValueInvalid field is immutable"],
    );
}

#[test]
fn names() {
    assert_eq!(EventStrategy.descriptor().names, NameRule::PathSegment);
    assert_eq!(
        Viewed(super::EventView).descriptor().names,
        NameRule::DnsSubdomain
    );
}

#[test]
fn rows() {
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    let row = EventStrategy.row(&serde_json::from_value(event()).unwrap(), now);
    let mut want = [
        "55m",
        "Normal",
        "Pulled",
        "pod/web",
        "spec.containers{c}",
        "kubelet, n",
        "Pulled image",
        "60m",
        "",
        "web.1",
    ]
    .map(Cell::from);
    want[8] = Cell::from(3);
    assert_eq!(row, want);
    assert_eq!(row.len(), EventStrategy.columns().len());

    let row = Viewed(super::EventView).row(&serde_json::from_value(modern()).unwrap(), now);
    assert_eq!(
        (&row[0], &row[5], &row[8]),
        (
            &"60m".into(),
            &"coracle.dev/scheduler, s-1".into(),
            &1.into()
        )
    );
}

#[test]
fn an_event_of_one_version_is_selected_in_the_other() {
    let view: Modern = serde_json::from_value(modern()).unwrap();
    let fields = Viewed(super::EventView).selectable_fields(&view);
    let get = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| value.as_str())
    };
    for name in FIELDS.iter().chain(&VIEW_FIELDS) {
        assert!(get(name).is_some(), "{name}");
    }
    assert_eq!(get("involvedObject.name"), Some("web"));
    assert_eq!(get("regarding.name"), Some("web"));
    assert_eq!(get("source"), Some("coracle.dev/scheduler"));
}
