//! Patches, held against what the RFCs say, and against the patches that kubectl makes.

use coracle_apimachinery::patch::{Error, json, merge, strategic};
use coracle_apimachinery::schema::Node;
use serde_json::{Value, json};

use crate::draw::Draw;
use crate::fuzz;
use crate::objects::{Kind, without_nulls};
use crate::reference;
use crate::two_way;

/// A pointer to something that is there, or nearly.
fn pointer(draw: &mut Draw<'_>, document: &Value) -> String {
    let mut path = String::new();
    let mut value = document;
    loop {
        if draw.once_in(8) {
            path.push_str(draw.pick::<&str>(&[
                "/-", "/0", "/9", "/01", "/-1", "/a", "/", "~", "/~2", "/~01", "a",
            ]));
        }
        let stop = draw.below(4) == 0;
        let (part, below) = match value {
            Value::Object(members) if !stop && !members.is_empty() => {
                let names: Vec<&String> = members.keys().collect();
                let name = *draw.pick(&names);
                (name.replace('~', "~0").replace('/', "~1"), &members[name])
            }
            Value::Array(items) if !stop && !items.is_empty() => {
                let at = draw.below(items.len());
                (at.to_string(), &items[at])
            }
            _ => return path,
        };
        path = format!("{path}/{part}");
        value = below;
    }
}

fn operation(draw: &mut Draw<'_>, document: &Value) -> Value {
    let name = *draw.pick(&["add", "remove", "replace", "move", "copy", "test"]);
    let path = pointer(draw, document);
    match name {
        "remove" => json!({"op": name, "path": path}),
        "move" | "copy" => json!({"op": name, "path": path, "from": pointer(draw, document)}),
        "test" if draw.below(4) > 0 => {
            let value = document.pointer(&path).cloned().unwrap_or_default();
            json!({"op": name, "path": path, "value": value})
        }
        _ => json!({"op": name, "path": path, "value": draw.json(2)}),
    }
}

fn json_patch(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let document = draw.members(4);
    let operations: Vec<Value> = (0..=draw.below(6))
        .map(|_| operation(&mut draw, &document))
        .collect();
    let body = json!(operations).to_string();
    let patched =
        json::Patch::parse(body.as_bytes()).and_then(|patch| patch.apply(document.clone()));
    let wanted = reference::json_patch(document.clone(), &operations);
    match (patched, wanted) {
        (Ok(patched), Some(wanted)) => assert_eq!(patched, wanted, "{body} of {document}"),
        (Err(error), Some(wanted)) => panic!("{body} of {document} gives {wanted}, not {error}"),
        (Ok(patched), None) => panic!("{body} of {document} gives {patched}"),
        (Err(_), None) => {}
    }
}

/// Bodies that are no patches, or hardly.
fn json_patch_body(bytes: &[u8]) {
    if let Ok(patch) = json::Patch::parse(bytes) {
        let _ = patch.apply(json!({"a": {"b": [1, {"c": null}]}, "": 1}));
    }
}

fn merge_patch(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let (document, patch) = (draw.members(4), draw.members(4));
    let once = merge::apply(document.clone(), &patch).unwrap();
    assert_eq!(
        once,
        reference::merge_patch(document.clone(), &patch),
        "{patch} of {document}"
    );
    assert_eq!(
        merge::apply(once.clone(), &patch).unwrap(),
        once,
        "{patch} of {document}"
    );
    assert_eq!(
        merge::apply(document.clone(), &json!({})).unwrap(),
        document
    );
    // From what there is to something else, and back to itself.
    let (from, to) = (without_nulls(document), without_nulls(draw.members(4)));
    let diff = reference::merge_diff(from.as_object().unwrap(), to.as_object().unwrap());
    assert_eq!(
        merge::apply(from.clone(), &diff).unwrap(),
        to,
        "{diff} of {from}"
    );
    assert_eq!(merge::apply(to.clone(), &to).unwrap(), to);
}

/// Objects of Kubernetes' types, and patches with directives where they may stand.
fn strategic_patch(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let kind = Kind::draw(&mut draw);
    let structure = kind.structure();
    let (old, mut patch) = (kind.object(&mut draw), kind.object(&mut draw));
    directives(&mut draw, &mut patch);
    match strategic::apply(old.clone(), patch.clone(), structure) {
        Ok(patched) => {
            let directive = |key: &str| {
                let sort = key.split('/').next().unwrap_or_default();
                [
                    "$patch",
                    "$retainKeys",
                    "$setElementOrder",
                    "$deleteFromPrimitiveList",
                ]
                .contains(&sort)
            };
            assert!(
                !any_key(&patched, &directive),
                "{patch} of {old} gives {patched}"
            );
        }
        Err(error) => assert!(matches!(
            error,
            Error::Malformed(_) | Error::Unprocessable(_)
        )),
    }
}

fn any_key(value: &Value, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| is(key) || any_key(value, is)),
        Value::Array(items) => items.iter().any(|item| any_key(item, is)),
        _ => false,
    }
}

/// Puts directives into a patch, right ones and wrong ones.
fn directives(draw: &mut Draw<'_>, patch: &mut Value) {
    match patch {
        Value::Object(members) => {
            members
                .values_mut()
                .for_each(|member| directives(draw, member));
            let names: Vec<String> = members.keys().cloned().collect();
            if draw.once_in(6) {
                let what = *draw.pick(&["delete", "replace", "merge", "none"]);
                members.insert("$patch".to_owned(), what.into());
            }
            if draw.once_in(12) {
                members.insert("$retainKeys".to_owned(), names.clone().into());
            }
            if draw.once_in(8) && !names.is_empty() {
                let name = draw.pick(&names).clone();
                let list = members[&name].clone();
                let sort = *draw.pick(&["$setElementOrder/", "$deleteFromPrimitiveList/"]);
                members.insert(format!("{sort}{name}"), list);
            }
            if draw.once_in(10) && !names.is_empty() {
                members.insert(draw.pick(&names).clone(), Value::Null);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| directives(draw, item)),
        _ => {}
    }
}

/// What kubectl computes from two objects makes one the other.
fn two_way_patch(bytes: &[u8]) {
    let mut draw = Draw::new(bytes);
    let kind = Kind::draw(&mut draw);
    let structure = kind.structure();
    let from = distinct(kind.object(&mut draw), structure);
    let to = distinct(kind.object(&mut draw), structure);
    let patch = two_way::diff(
        from.as_object().unwrap(),
        to.as_object().unwrap(),
        structure,
    );
    let patch = Value::Object(patch);
    let patched = strategic::apply(from.clone(), patch.clone(), structure)
        .unwrap_or_else(|error| panic!("{patch} of {from}: {error}"));
    assert_eq!(patched, to, "{patch} of {from}");
    let again = strategic::apply(patched.clone(), patch.clone(), structure).unwrap();
    assert_eq!(again, patched, "{patch} twice of {from}");
    let same = strategic::apply(to.clone(), to.clone(), structure).unwrap();
    assert_eq!(same, to, "an object as a patch of itself");
}

/// The object without items that a patch cannot tell apart, and without empty lists and objects,
/// of which a patch says nothing.
fn distinct(value: Value, of: Node<'_>) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, member)| {
                let field = of.field(&name);
                let mut member = distinct(member, field.node);
                if let (Value::Array(items), true) = (&mut member, field.patch.merge) {
                    let mut seen: Vec<Value> = Vec::new();
                    items.retain(|item| {
                        let identity = match field.patch.merge_key.as_deref() {
                            Some(key) => item.get(key).cloned().unwrap_or_default(),
                            None => item.clone(),
                        };
                        let new = !identity.is_null() && !seen.contains(&identity);
                        seen.push(identity);
                        new
                    });
                }
                (name, member)
            });
            Value::Object(
                members
                    .filter(|(_, member)| *member != json!([]) && *member != json!({}))
                    .collect(),
            )
        }
        Value::Array(items) => items
            .into_iter()
            .map(|item| distinct(item, of.inner()))
            .collect(),
        scalar => scalar,
    }
}

#[test]
fn json_patches() {
    fuzz!(json_patch);
}

#[test]
fn json_patch_bodies() {
    fuzz!(json_patch_body);
}

#[test]
fn merge_patches() {
    fuzz!(merge_patch);
}

#[test]
fn strategic_patches() {
    fuzz!(strategic_patch);
}

#[test]
fn two_way_patches() {
    fuzz!(two_way_patch);
}
