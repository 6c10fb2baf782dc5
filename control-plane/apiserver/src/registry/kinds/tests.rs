//! What holds for every kind, whatever it is.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::collections::BTreeSet;

use coracle_apimachinery::protobuf;
use serde_json::json;

use super::*;
use crate::registry::erased::Object;
use crate::registry::strategy::Column;

#[test]
fn rows_and_fields_are_those_that_are_declared() {
    for kind in all() {
        let descriptor = kind.descriptor();
        let mut object = kind.decode(b"{}").unwrap();
        kind.set_defaults(&mut *object);
        let row = kind.row(&*object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), kind.columns().len(), "{}", descriptor.kind);
        let fields: BTreeSet<String> = kind
            .selectable_fields(&*object)
            .into_iter()
            .map(|(field, _)| field.to_owned())
            .collect();
        let declared: BTreeSet<String> = descriptor.fields.iter().cloned().collect();
        assert!(fields.is_superset(&declared), "{}", descriptor.kind);
    }
}

#[test]
fn defaults_are_set_once() {
    for kind in all() {
        let mut object = kind
            .decode(&json!({"metadata": {"name": "a"}}).to_string().into_bytes())
            .unwrap();
        kind.set_defaults(&mut *object);
        let once = object.boxed();
        kind.set_defaults(&mut *object);
        assert!(object.same(&*once), "{}", kind.descriptor().kind);
    }
}

#[test]
fn empty_values_that_say_nothing_are_not_read() {
    let given = json!({"metadata": {
        "name": "a", "generateName": "", "labels": {}, "annotations": {}, "finalizers": [],
        "ownerReferences": [], "generation": 0, "deletionGracePeriodSeconds": 0,
    }});
    for kind in all() {
        let object = kind.decode(given.to_string().as_bytes()).unwrap();
        let read = object.to_value().unwrap();
        let want = json!({"name": "a", "deletionGracePeriodSeconds": 0});
        assert_eq!(read["metadata"], want, "{}", kind.descriptor().kind);
    }
}

#[test]
fn no_default_is_an_empty_value_that_says_nothing() {
    for kind in all() {
        let d = kind.descriptor();
        let fields = protobuf::Kind::find(&d.api_version(), &d.kind).unwrap();
        let empty = |object: &dyn Object| {
            let json = object.to_json().unwrap();
            matches!(fields.without_omitted(&json), Cow::Owned(_))
        };
        let mut object = kind.decode(br#"{"metadata":{"name":"a"}}"#).unwrap();
        // The types of some kinds demand fields that Go leaves out.
        if empty(&*object) {
            continue;
        }
        kind.set_defaults(&mut *object);
        assert!(!empty(&*object), "{}", d.kind);
        kind.prepare_for_create(&mut *object);
        assert!(!empty(&*object), "{}", d.kind);
    }
}

#[test]
fn what_is_stored_is_what_was_given() {
    for kind in all() {
        let mut object = kind
            .decode(&json!({"metadata": {"name": "a"}}).to_string().into_bytes())
            .unwrap();
        kind.set_defaults(&mut *object);
        kind.prepare_for_create(&mut *object);
        let stored = kind.encode_stored(&*object).unwrap();
        assert!(
            stored.starts_with(br#"{"apiVersion":"#),
            "{}",
            kind.descriptor().kind
        );
        let read = kind.decode_stored(&stored).unwrap();
        assert!(read.same(&*object), "{}", kind.descriptor().kind);
    }
}

#[test]
fn an_update_that_changes_nothing_is_valid_or_wrong_for_its_content_alone() {
    for kind in all() {
        let mut object = kind
            .decode(&json!({"metadata": {"name": "a"}}).to_string().into_bytes())
            .unwrap();
        kind.set_defaults(&mut *object);
        kind.prepare_for_create(&mut *object);
        let mut new = object.boxed();
        kind.prepare_for_update(&mut *new, &*object);
        assert!(
            !kind.spec_changed(&*new, &*object),
            "{}",
            kind.descriptor().kind
        );
        let create = kind.validate(&*object);
        for error in kind.validate_update(&*new, &*object) {
            assert!(
                create.contains(&error),
                "{}: {error}",
                kind.descriptor().kind
            );
        }
    }
}

#[test]
fn every_kind_takes_strategic_merge_patches_of_its_own() {
    for kind in all() {
        let d = kind.descriptor();
        assert!(!kind.structure().is_untyped(), "{}", d.kind);
    }
}

#[test]
fn one_version_of_each_kind_is_stored() {
    let mut stored = BTreeSet::new();
    for kind in all() {
        let d = kind.descriptor();
        if !d.converted {
            assert!(
                stored.insert(d.storage.clone()),
                "{} is stored twice",
                d.storage
            );
        }
    }
    for kind in all() {
        let d = kind.descriptor();
        assert!(
            stored.contains(&d.storage),
            "{} is a view of nothing",
            d.kind
        );
    }
}

/// A column as the table of what is served writes it.
fn written(column: &Column) -> String {
    let mut written = column.name.to_string();
    if column.kind != "string" {
        written = format!("{written}:{}", column.kind);
    }
    if column.priority > 0 {
        written = format!("{written}/{}", column.priority);
    }
    written
}

#[test]
fn kubectl_knows_every_kind_as_kubernetes_has_it() {
    let listed = |items: &[String]| match items {
        [] => "-".to_owned(),
        items => {
            let sorted: BTreeSet<&str> = items.iter().map(String::as_str).collect();
            sorted.into_iter().collect::<Vec<_>>().join(",")
        }
    };
    let mut served = Vec::new();
    for kind in all() {
        let d = kind.descriptor();
        if d.computed && !d.verbs.contains(&"list".to_owned()) {
            continue;
        }
        let columns: Vec<String> = kind.columns().iter().map(written).collect();
        served.push(format!(
            "{}/{} {} {} {} | {}",
            d.api_version(),
            d.kind,
            listed(&d.short_names),
            listed(&d.categories),
            listed(&d.fields),
            columns.join(", ")
        ));
    }
    served.sort();
    let known = include_str!("served.txt").lines();
    let mut known: Vec<&str> = known.filter(|line| !line.starts_with('#')).collect();
    known.sort_unstable();
    let differs: Vec<(&str, &str)> = known
        .iter()
        .zip(&served)
        .map(|(known, served)| (*known, served.as_str()))
        .filter(|(known, served)| known != served)
        .collect();
    assert_eq!(known.len(), served.len());
    assert!(differs.is_empty(), "{differs:#?}");
}
