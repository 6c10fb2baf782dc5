#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::gvk::GroupVersionKind;
use crate::schema::Schema;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        "[a-c\"<]{0,2}".prop_map(Value::from),
    ]
}

fn path_element() -> impl Strategy<Value = PathElement> {
    prop_oneof![
        4 => "[a-c.:]{0,2}".prop_map(|name| PathElement::field(&name)),
        1 => value().prop_map(PathElement::Value),
        1 => (0_i64..3).prop_map(PathElement::Index),
        1 => prop::collection::btree_map("[ab]", value(), 1..3).prop_map(|keys| {
            PathElement::Key(keys.into_iter().map(|(name, value)| (name.into(), value)).collect())
        }),
    ]
}

type Paths = BTreeSet<Path>;

fn paths() -> impl Strategy<Value = Paths> {
    prop::collection::btree_set(prop::collection::vec(path_element(), 1..4), 0..8)
}

fn set(paths: &Paths) -> Set {
    let mut set = Set::default();
    for path in paths {
        set.insert(path);
    }
    set
}

fn members(set: &Set) -> Paths {
    let mut members = Paths::new();
    set.each(&mut |path| {
        assert!(
            members.insert(path.to_vec()),
            "{path:?} is twice in the set"
        );
    });
    assert_eq!(members.len(), set.len());
    members
}

fn is_below(path: &Path, others: &Paths) -> bool {
    (1..=path.len()).any(|length| others.contains(&path[..length]))
}

proptest! {
    #[test]
    fn a_subset_has_nothing_that_the_other_lacks(a in paths(), b in paths()) {
        prop_assert_eq!(set(&a).is_subset(&set(&b)), a.is_subset(&b));
        let both: Paths = a.union(&b).cloned().collect();
        prop_assert!(set(&a).is_subset(&set(&both)));
    }

    #[test]
    fn sets_are_sets(a in paths(), b in paths()) {
        let (x, y) = (set(&a), set(&b));
        prop_assert_eq!(members(&x), a.clone());
        prop_assert!(a.iter().all(|path| x.contains(path)));
        prop_assert_eq!(members(&x.clone().union(y.clone())), &a | &b);
        prop_assert_eq!(members(&x.intersection(&y)), &a & &b);
        prop_assert_eq!(members(&x.clone().difference(&y)), &a - &b);
        let kept: Paths = a.iter().filter(|path| !is_below(path, &b)).cloned().collect();
        prop_assert_eq!(members(&x.clone().recursive_difference(&y)), kept);
        let leaf = |path: &&Path| !a.iter().any(|other| other.len() > path.len() && other.starts_with(path));
        let leaves: Paths = a.iter().filter(leaf).cloned().collect();
        prop_assert_eq!(members(&x.leaves()), leaves);
    }

    #[test]
    fn equal_sets_are_equal(a in paths(), b in paths()) {
        // However they were made: there is one canonical form.
        let made = set(&a).union(set(&b)).difference(&set(&b));
        prop_assert_eq!(made, set(&(&a - &b)));
    }

    #[test]
    fn fields_are_read_as_they_were_written(a in paths()) {
        let a = set(&a);
        prop_assert_eq!(Set::from_fields(&a.to_fields()), Ok(a.clone()));
        let json: Value = serde_json::from_str(&a.to_json()).unwrap();
        prop_assert_eq!(json, a.to_fields());
        prop_assert_eq!(a.to_text(), a.to_fields().to_string());
        prop_assert_eq!(Set::from_text(&a.to_text()), Ok(a.clone()));
        prop_assert_eq!(Set::from_text(&a.to_json()), Ok(a));
    }

    #[test]
    fn path_elements_are_read_as_they_were_written(element in path_element()) {
        prop_assert_eq!(PathElement::parse(&element.serialize()), Ok(Some(element)));
    }
}

#[test]
fn fields_v1() {
    let text = r#"{"f:a":{".":{},"f:b":{}},"f:c":{},"k:{\"n\":80}":{"f:n":{}},"k:{\"n\":443}":{},"v:\"x\"":{},"i:2":{}}"#;
    let set = Set::from_fields(&serde_json::from_str(text).unwrap()).unwrap();
    assert_eq!(set.to_json(), text);
    let mut shown = Vec::new();
    set.each(&mut |path| shown.push(path.iter().map(ToString::to_string).collect::<String>()));
    let wanted = [".a", ".c", "[n=443]", "[=\"x\"]", "[2]", ".a.b", "[n=80].n"];
    assert_eq!(shown, wanted);
    // Elements of later versions are left out, malformed ones are refused.
    let later = Set::from_fields(&json!({"z:1": {}, "f:a": {}})).unwrap();
    assert_eq!(later.to_json(), r#"{"f:a":{}}"#);
    let same = Set::from_text(r#" {"z:1": {"x": 1}, "f:a": {".": {}}} "#);
    assert_eq!(same, Ok(later));
    let quoted = Set::of([&["a\"b\\", "\n\u{e9}\u{7f}", "f:.:"][..]]);
    assert_eq!(quoted.to_text(), quoted.to_fields().to_string());
    assert_eq!(Set::from_text(&quoted.to_text()), Ok(quoted));
    for malformed in [
        json!({"fa": {}}),
        json!({"f": {}}),
        json!({"k:[]": {}}),
        json!({"v:{": {}}),
        json!({"i:x": {}}),
        json!([]),
    ] {
        assert!(Set::from_fields(&malformed).is_err(), "{malformed}");
        let text = malformed.to_string();
        assert!(Set::from_text(&text).is_err(), "{text}");
    }
    for malformed in ["", "{", "{} {}", "null", r#"{"f:a": null}"#] {
        assert!(Set::from_text(malformed).is_err(), "{malformed}");
    }
}

fn kind(group: &'static str, kind: &'static str) -> Node<'static> {
    let kind = GroupVersionKind::new(group, "v1", kind);
    Schema::built_in().kind(&kind).unwrap()
}

#[test]
fn sets_fit_types_that_became_atomic() {
    let selector = |fields: Value| json!({"f:spec": {"f:selector": fields, "f:template": {"f:metadata": {"f:labels": {"f:a": {}}}}}});
    let granular = Set::from_fields(&selector(json!({"f:matchLabels": {"f:a": {}}}))).unwrap();
    let atomic = Set::from_fields(&selector(json!({}))).unwrap();
    assert_eq!(granular.reconciled(kind("apps", "Deployment")), atomic);
    assert_eq!(
        atomic.clone().reconciled(kind("apps", "Deployment")),
        atomic
    );
}

fn spec(containers: Value) -> Value {
    json!({"spec": {"containers": containers}})
}

#[test]
fn items_keep_their_order() {
    let names = |names: &[&str]| -> Value {
        spec(names.iter().map(|name| json!({"name": name})).collect())
    };
    let table: [(&[&str], &[&str], &[&str]); 6] = [
        (&["a", "b"], &["c"], &["a", "b", "c"]),
        (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
        (&["a", "b", "c"], &["c"], &["a", "b", "c"]),
        (&["a", "b"], &["x", "b", "y"], &["a", "x", "b", "y"]),
        (&[], &["b", "a"], &["b", "a"]),
        (&["a", "b"], &[], &["a", "b"]),
    ];
    for (live, config, want) in table {
        let merged = merge(names(live), &names(config), kind("", "Pod")).unwrap();
        assert_eq!(merged, names(want), "{live:?} {config:?}");
    }
}

#[test]
fn merging_goes_by_type() {
    let pod = kind("", "Pod");
    let live = json!({"spec": {
        "containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 1, "protocol": "TCP", "name": "n"}]}],
        "tolerations": [{"key": "a"}], "nodeSelector": {"a": "1"}, "dnsPolicy": "Default",
    }, "metadata": {"labels": {"a": "1"}, "finalizers": ["a/b"]}});
    let config = json!({"spec": {
        // The protocol is a part of the key, and has a default.
        "containers": [{"name": "a", "args": ["1"], "ports": [{"containerPort": 1, "hostPort": 2}]}],
        "tolerations": [{"key": "b"}], "nodeSelector": {"b": "1"}, "dnsPolicy": null,
    }, "metadata": {"labels": {"b": "1"}, "finalizers": ["c/d"]}});
    let merged = merge(live, &config, pod).unwrap();
    assert_eq!(
        merged,
        json!({"spec": {
        "containers": [{"name": "a", "image": "x", "args": ["1"], "ports": [{"containerPort": 1, "protocol": "TCP", "name": "n", "hostPort": 2}]}],
        "tolerations": [{"key": "b"}], "nodeSelector": {"b": "1"}, "dnsPolicy": null,
    }, "metadata": {"labels": {"a": "1", "b": "1"}, "finalizers": ["a/b", "c/d"]}})
    );
}

#[test]
fn items_that_are_there_twice_are_one_value() {
    let pod = kind("", "Pod");
    let env = |values: &[&str]| -> Value {
        let env: Value = values
            .iter()
            .map(|value| json!({"name": "E", "value": value}))
            .collect();
        spec(json!([{"name": "a", "env": env}]))
    };
    let fields = |set: &Set| set.to_json();
    let diff = |old: &Value, new: &Value| compare(old, new, pod, Whole::OLD).unwrap();
    let same = diff(&env(&["1", "2"]), &env(&["1", "2"]));
    assert_eq!(same, Comparison::default());
    let path = |below: &str| {
        format!(
            r#"{{"f:spec":{{"f:containers":{{"k:{{\"name\":\"a\"}}":{{"f:env":{{"k:{{\"name\":\"E\"}}":{below}}}}}}}}}}}"#
        )
    };
    assert_eq!(
        fields(&diff(&env(&["1", "2"]), &env(&["1", "3"])).modified),
        path("{}")
    );
    let single = diff(&env(&["1", "2"]), &env(&["1"]));
    assert_eq!(fields(&single.removed), path("{}"));
    assert_eq!(
        fields(&single.added),
        path(r#"{".":{},"f:name":{},"f:value":{}}"#)
    );
    assert_eq!(
        fields(&field_set(&env(&["1", "2"]), pod).unwrap()),
        fields(&field_set(&env(&["1", "1"]), pod).unwrap())
    );
    // A configuration replaces them.
    let merged = merge(env(&["1", "2"]), &env(&["3"]), pod).unwrap();
    assert_eq!(merged, env(&["3"]));
    assert!(validate(&env(&["1", "2"]), pod, true).is_empty());
    assert_eq!(validate(&env(&["1", "2"]), pod, false).len(), 1);
}

#[test]
fn removal_leaves_null_where_all_is_gone() {
    let pod = kind("", "Pod");
    let object = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x", "y"]}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
    let doomed = json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x\"": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}, "k:{\"name\":\"b\"}": {}}}});
    let removed = remove(object, &Set::from_fields(&doomed).unwrap(), pod);
    assert_eq!(
        removed,
        json!({"metadata": {"labels": null, "finalizers": ["y"]}, "spec": {"containers": [{"name": "a"}]}})
    );
}

/// ConfigMaps and Services without depth, enough for every sort of list and map.
fn object() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[ab]", "[12]", 0..3);
    let finalizers = prop::collection::btree_set("[ab]/[ab]", 0..3);
    let ports = prop::collection::btree_map(
        (1_u8..4, prop::sample::select(vec!["TCP", "UDP"])),
        "[ab]",
        0..3,
    );
    (labels.clone(), finalizers, ports, labels).prop_map(|(labels, finalizers, ports, selector)| {
        let ports: Value = ports
            .into_iter()
            .map(|((port, protocol), name)| json!({"port": port, "protocol": protocol, "name": name}))
            .collect();
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"ports": ports, "selector": selector}})
    })
}

proptest! {
    #[test]
    fn a_comparison_names_what_merging_changes(live in object(), config in object()) {
        let service = kind("", "Service");
        let merged = merge(live.clone(), &config, service).unwrap();
        let again = merge(merged.clone(), &config, service).unwrap();
        prop_assert_eq!(&again, &merged);
        let diff = compare(&live, &merged, service, Whole::OLD).unwrap();
        prop_assert!(diff.removed.is_empty(), "{:?}", diff.removed);
        let said = field_set(&config, service).unwrap().with_named_fields(service);
        let changed = diff.modified.clone().union(diff.added.clone());
        prop_assert!(changed.difference(&said).is_empty());
        let unchanged = diff.modified.is_empty() && diff.added.is_empty();
        let part = |object: &Value| mentioned(object, &config, service);
        let (before, after) = (part(&live), part(&merged));
        prop_assert_eq!(compare(&before, &after, service, Whole::OLD).unwrap(), diff);
        prop_assert_eq!(path::equal(&before, &after), path::equal(&live, &merged));
        let back = compare(&merged, &live, service, Whole::BOTH).unwrap();
        prop_assert_eq!(unchanged, back == Comparison::default());
    }

    #[test]
    fn what_is_removed_is_gone(object in object(), other in object()) {
        let service = kind("", "Service");
        let doomed = field_set(&other, service).unwrap();
        let removed = remove(object.clone(), &doomed, service);
        let left = field_set(&removed, service).unwrap();
        let items = |set: &Set| members(set).into_iter().filter(|path| !matches!(path.last(), Some(PathElement::Field(_)))).collect::<Paths>();
        prop_assert!(items(&left).is_disjoint(&items(&doomed)));
    }

    #[test]
    fn nothing_panics(text in "[fkvi.]?:?[\\PC]{0,6}") {
        let _ = PathElement::parse(&text);
    }
}

#[test]
fn fields_at_paths_and_below_them() {
    let fields = json!({"f:spec": {
        "f:containers": {
            ".": {},
            "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {"f:limits": {"f:cpu": {}}}},
        },
        "f:resources": {},
    }});
    let set = Set::from_fields(&fields).unwrap();
    let left = |paths: &[&[&str]]| set.clone().at_or_below(paths).to_fields();
    let item = json!({"f:resources": {"f:limits": {"f:cpu": {}}}});
    let resources = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": item}}});
    assert_eq!(
        left(&[&["spec", "containers", "*", "resources"]]),
        resources
    );
    let spec = json!({"f:spec": {"f:resources": {}}});
    assert_eq!(left(&[&["status"], &["spec", "resources"]]), spec);
    assert_eq!(left(&[&["spec"]]), fields);
    assert_eq!(left(&[&["resources"], &["status"]]), json!({}));
}
