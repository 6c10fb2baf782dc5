#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::gvk::GroupVersionKind;
use crate::schema::Schema;

fn kind(group: &'static str, kind: &'static str) -> Node<'static> {
    let kind = GroupVersionKind::new(group, "v1", kind);
    Schema::built_in().kind(&kind).unwrap()
}

fn pod() -> Node<'static> {
    kind("", "Pod")
}

fn deployment() -> Node<'static> {
    kind("apps", "Deployment")
}

/// Patches the spec of a pod.
fn patched(spec: Value, patch: Value) -> Result<Value, Error> {
    apply(json!({ "spec": spec }), json!({ "spec": patch }), pod())
        .map(|mut pod| pod["spec"].take())
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name })).collect()
}

#[test]
fn an_object_is_replaced_where_its_type_says_so() {
    let budget = kind("policy", "PodDisruptionBudget");
    let spec = |selector: Value| json!({"spec": {"minAvailable": 1, "selector": selector}});
    let was = spec(json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k"}]}));
    let patch = json!({"spec": {"selector": {"matchLabels": {"c": "d", "e": null}}}});
    let is = spec(json!({"matchLabels": {"c": "d"}}));
    assert_eq!(apply(was, patch, budget), Ok(is));
}

#[test]
fn items_are_merged_by_their_key() {
    let table = [
        (
            "an image is set",
            json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "y"}]}),
            json!({"containers": [{"name": "a", "image": "y", "args": ["1"]}, {"name": "b"}]}),
        ),
        (
            "an item is new",
            json!({"containers": named(&["a"])}),
            json!({"containers": [{"name": "b", "image": null, "env": [{"name": "E", "value": null}]}]}),
            json!({"containers": [{"name": "b", "env": [{"name": "E"}]}, {"name": "a"}]}),
        ),
        (
            "lists in items are merged",
            json!({"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "F", "value": "3"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "3"}]}]}),
        ),
        (
            "an atomic list is replaced",
            json!({"containers": [{"name": "a", "args": ["1", "2"]}], "tolerations": [{"key": "k"}]}),
            json!({"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "l"}]}),
            json!({"containers": [{"name": "a", "args": ["3"]}], "tolerations": [{"key": "l"}]}),
        ),
        (
            "null removes",
            json!({"nodeName": "n", "containers": named(&["a"]), "nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeName": null, "nodeSelector": {"a": null}, "absent": null}),
            json!({"containers": named(&["a"]), "nodeSelector": {"b": "2"}}),
        ),
        (
            "another type replaces",
            json!({"hostname": "a"}),
            json!({"hostname": {"x": 1, "y": null}}),
            json!({"hostname": {"x": 1}}),
        ),
    ];
    for (what, spec, patch, want) in table {
        assert_eq!(patched(spec, patch), Ok(want), "{what}");
    }
}

#[test]
fn patch_directives() {
    let spec = || json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}], "nodeSelector": {"a": "1"}});
    let table = [
        (
            "an item is deleted",
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": named(&["b"]), "nodeSelector": {"a": "1"}}),
        ),
        (
            "a list is replaced",
            json!({"containers": [{"$patch": "replace"}, {"name": "c", "image": null}]}),
            json!({"containers": named(&["c"]), "nodeSelector": {"a": "1"}}),
        ),
        (
            "an object is replaced",
            json!({"nodeSelector": {"$patch": "replace", "b": "2"}}),
            json!({"containers": spec()["containers"], "nodeSelector": {"b": "2"}}),
        ),
        (
            "an object is emptied",
            json!({"nodeSelector": {"$patch": "delete"}}),
            json!({"containers": spec()["containers"], "nodeSelector": {}}),
        ),
        (
            "directives for what is not there",
            json!({"initContainers": [{"name": "i", "$patch": "delete"}, {"$patch": "replace"}, {"name": "j"}], "affinity": {"$patch": "delete"}, "dnsConfig": {"$patch": "replace", "options": []}}),
            json!({"containers": spec()["containers"], "nodeSelector": {"a": "1"}, "initContainers": named(&["j"])}),
        ),
    ];
    for (what, patch, want) in table {
        assert_eq!(patched(spec(), patch), Ok(want), "{what}");
    }
    for merging in [
        json!({"nodeSelector": {"$patch": "merge", "b": "2"}}),
        json!({"containers": [{"name": "b", "$patch": "merge", "image": "y"}]}),
    ] {
        assert!(patched(spec(), merging.clone()).is_err(), "{merging}");
    }
}

#[test]
fn scalars() {
    let patched = |finalizers: Value, patch: Value| {
        let document = json!({"metadata": {"finalizers": finalizers}});
        apply(document, json!({ "metadata": patch }), pod())
            .map(|mut pod| pod["metadata"]["finalizers"].take())
    };
    assert_eq!(
        patched(json!(["a", "b"]), json!({"finalizers": ["b", "c"]})),
        Ok(json!(["a", "b", "c"]))
    );
    assert_eq!(
        patched(
            json!(["a", "b"]),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]})
        ),
        Ok(json!(["b"]))
    );
    assert_eq!(
        patched(
            json!(["a", "b", "s"]),
            json!({
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["c", "b"],
                "finalizers": ["c"],
            })
        ),
        // What only the server has stays behind what was before it.
        Ok(json!(["c", "b", "s"]))
    );
    assert_eq!(
        patched(
            json!(null),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]})
        ),
        Ok(json!(null))
    );
}

#[test]
fn orders() {
    let table = [
        // What is there, the order, the items of the patch, and what comes out.
        (
            &["a", "b", "c"][..],
            &["c", "a", "b"][..],
            None,
            &["c", "a", "b"][..],
        ),
        (
            &["a", "b"],
            &["b", "n", "a"],
            Some(&["n"][..]),
            &["b", "n", "a"],
        ),
        (&["s", "a", "b"], &["b", "a"], None, &["s", "b", "a"]),
        (&["a", "s", "b"], &["b", "a"], None, &["s", "b", "a"]),
        (
            &["a", "b", "s"],
            &["n", "a", "b"],
            Some(&["n", "b"]),
            &["n", "a", "b", "s"],
        ),
        (&["a"], &["x", "a"], None, &["a"]),
    ];
    for (old, order, new, want) in table {
        let mut patch = json!({"$setElementOrder/containers": named(order)});
        if let Some(new) = new {
            patch["containers"] = named(new);
        }
        let got = patched(json!({"containers": named(old)}), patch.clone());
        assert_eq!(
            got,
            Ok(json!({"containers": named(want)})),
            "{old:?} {patch}"
        );
    }
    // Without an order, the items of the patch are the order, and what is new goes first.
    let got = patched(
        json!({"containers": named(&["a", "b"])}),
        json!({"containers": named(&["n", "a"])}),
    );
    assert_eq!(got, Ok(json!({"containers": named(&["n", "a", "b"])})));
    let got = patched(
        json!({}),
        json!({"$setElementOrder/containers": named(&["b", "a"]), "containers": named(&["b", "a"])}),
    );
    assert_eq!(got, Ok(json!({"containers": named(&["b", "a"])})));
}

#[test]
fn retained_keys() {
    let volumes =
        json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]});
    let patch = json!({"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]});
    let want = json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}, {"name": "w", "emptyDir": {}}]});
    assert_eq!(patched(volumes, patch), Ok(want));

    let document =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(
        apply(document, patch, deployment()),
        Ok(json!({"spec": {"strategy": {"type": "Recreate"}}}))
    );

    // As many as a body can have: what compares each with each is minutes about it.
    let names: Vec<String> = (0..100_000).map(|i| format!("n{i}")).collect();
    let mut annotations: Object = names.iter().map(|n| (n.clone(), json!("v"))).collect();
    let want = json!({"metadata": {"annotations": annotations}});
    annotations.insert(
        "$retainKeys".to_owned(),
        names.iter().rev().cloned().collect(),
    );
    let patch = json!({"metadata": {"annotations": annotations}});
    let document = json!({"metadata": {"annotations": {"a": "b"}}});
    assert!(apply(document, patch, pod()) == Ok(want));
}

#[test]
fn errors() {
    let spec = || json!({"containers": named(&["a"]), "volumes": [{"name": "v"}], "hostAliases": [{"ip": "1"}], "nodeSelector": {"a": "1"}});
    let table = [
        (
            json!({"containers": [{"image": "x"}]}),
            "does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"$patch": "delete"}]}),
            "does not contain declared merge key: name",
        ),
        (
            json!({"containers": [{"name": "a", "$patch": "burn"}]}),
            "unknown patch type \"burn\"",
        ),
        (
            json!({"nodeSelector": {"$patch": 1}}),
            "unknown patch type 1",
        ),
        (json!({"containers": ["a"]}), "elements of different types"),
        (json!({"containers": [[]]}), "lists of lists"),
        (
            json!({"$retainKeys": "a"}),
            "invalid patch format of retainKeys",
        ),
        (
            json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}),
            "\"emptyDir\" is in the patch",
        ),
        (
            json!({"$deleteFromPrimitiveList/x": "a"}),
            "invalid patch format of primitive list",
        ),
        (
            json!({"$setElementOrder/containers": "a"}),
            "invalid patch format of setElementOrder list",
        ),
        (
            json!({"$setElementOrder/containers": named(&["a", "b"]), "containers": named(&["b", "a"])}),
            "The order in patch list",
        ),
        (
            json!({"$setElementOrder/containers": named(&["a"]), "containers": named(&["b"])}),
            "The order in patch list",
        ),
    ];
    for (patch, want) in table {
        let error = patched(spec(), patch.clone()).unwrap_err().to_string();
        assert!(error.contains(want), "{patch}: {error}");
    }
    assert!(matches!(
        apply(json!({}), json!([]), pod()),
        Err(Error::Malformed(_))
    ));
}

/// Containers with distinct names, and fields of every sort.
fn any_containers() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-e]", (0..3, "[xy]", proptest::collection::vec("[12]", 0..3)), 0..5)
        .prop_map(|items| {
            items
                .into_iter()
                .map(|(name, (port, image, args))| {
                    json!({"name": name, "image": image, "args": args, "ports": [{"containerPort": port + 1, "hostPort": port}]})
                })
                .collect()
        })
        .prop_flat_map(|items: Vec<Value>| Just(items).prop_shuffle())
        .prop_map(Value::from)
}

fn names(list: &Value) -> Vec<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].to_string())
        .collect()
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(old in any_containers(), new in any_containers()) {
        let patch = json!({ "containers": new });
        let once = patched(json!({ "containers": old }), patch.clone()).unwrap();
        prop_assert_eq!(patched(once.clone(), patch).unwrap(), once);
    }

    #[test]
    fn no_item_is_lost_or_doubled(old in any_containers(), new in any_containers()) {
        let got = patched(json!({ "containers": old }), json!({ "containers": new })).unwrap();
        let mut got = names(&got["containers"]);
        let mut want = [names(&old), names(&new)].concat();
        got.sort();
        want.sort();
        want.dedup();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn the_order_that_is_set_is_kept(old in any_containers(), new in any_containers()) {
        let order: Value = new.as_array().unwrap().iter().map(|item| json!({"name": item["name"]})).collect();
        let patch = json!({"containers": new, "$setElementOrder/containers": order});
        let got = patched(json!({ "containers": old }), patch).unwrap();
        let wanted = names(&new);
        let got: Vec<String> = names(&got["containers"]).into_iter().filter(|name| wanted.contains(name)).collect();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn without_lists_it_is_a_merge_patch(old in any_flat(), new in any_flat()) {
        let (old, new) = (json!({"metadata": {"labels": old}}), json!({"metadata": {"labels": new}}));
        prop_assert_eq!(apply(old.clone(), new.clone(), pod()), crate::patch::merge::apply(old, &new));
    }

    #[test]
    fn nothing_panics(old in crate::patch::merge::tests::any_json(), new in any_directives()) {
        let _ = patched(json!({ "containers": old }), json!({ "containers": new }));
        let _ = patched(json!({"containers": [{"name": 1}]}), json!({ "containers": new, "$setElementOrder/containers": old }));
    }
}

fn any_flat() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", proptest::option::of("[xy]"), 0..4).prop_map(|map| {
        map.into_iter()
            .map(|(key, value)| (key, Value::from(value)))
            .collect()
    })
}

fn any_directives() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("delete")),
        Just(json!("replace")),
        Just(json!("name")),
        Just(json!(1)),
        Just(Value::Null)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = prop_oneof![
            Just("name"),
            Just("$patch"),
            Just("$retainKeys"),
            Just("env"),
            Just("$setElementOrder/env"),
            Just("$deleteFromPrimitiveList/args"),
            Just("args"),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
