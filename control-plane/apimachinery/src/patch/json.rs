//! JSON patch, RFC 6902 (`application/json-patch+json`).

use json_patch::jsonptr::Pointer;
use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use super::Error;

mod indices;

/// Operations in one patch, as in Kubernetes.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that one patch may copy and move in all: as much as a request body may have, so that
/// a short patch does not make a large object.
const MAX_COPIED: usize = 3 << 20;
/// Items of lists that one patch may move up or down in all: what is added at the beginning of a
/// list, or taken from there, moves all others, and a short patch could do so for minutes.
const MAX_SHIFTED: usize = 1 << 25;
/// Levels of an object: deeper JSON could not be read back.
const MAX_DEPTH: usize = 127;

/// A parsed patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch(Vec<PatchOperation>);

impl Patch {
    /// Reads a patch from a request body.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let operations: Vec<Value> = serde_json::from_slice(body)
            .map_err(|error| Error::Malformed(format!("error decoding patch: {error}")))?;
        if operations.len() > MAX_OPERATIONS {
            return Err(Error::TooManyOperations {
                actual: operations.len(),
                max: MAX_OPERATIONS,
            });
        }
        let operation = |(index, operation)| {
            serde_json::from_value(operation).map_err(|error| {
                Error::Malformed(format!("error decoding patch: operation {index}: {error}"))
            })
        };
        operations
            .into_iter()
            .enumerate()
            .map(operation)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Applies every operation, in order, or none.
    pub fn apply(&self, mut document: Value) -> Result<Value, Error> {
        let mut spent = Spent::default();
        for (index, operation) in self.0.iter().enumerate() {
            let from_start = indices::from_start(&mut document, operation);
            let meant = from_start.as_ref().unwrap_or(operation);
            check_cost(&document, meant, &mut spent)
                .and_then(|()| apply_one(&mut document, meant))
                .map_err(|fault| {
                    Error::Unprocessable(format!(
                        "{} (operation {index}): {fault}",
                        describe(operation)
                    ))
                })?;
        }
        Ok(document)
    }
}

fn apply_one(document: &mut Value, operation: &PatchOperation) -> Result<(), String> {
    // A member that is not there is null to Kubernetes: it is replaced, tested and copied.
    let lacks = |path: &Pointer| lacks_member(document, path.as_str());
    let add = |path: &Pointer, value: &Value| {
        Some(PatchOperation::Add(AddOperation {
            path: path.to_owned(),
            value: value.clone(),
        }))
    };
    let instead = match operation {
        PatchOperation::Replace(replace) if lacks(&replace.path) => {
            add(&replace.path, &replace.value)
        }
        PatchOperation::Copy(copy) if lacks(&copy.from) => add(&copy.path, &Value::Null),
        PatchOperation::Test(test) if test.value.is_null() && lacks(&test.path) => return Ok(()),
        _ => None,
    };
    carry_out(document, instead.as_ref().unwrap_or(operation))
}

/// Whether the last step of a path is a member that an object lacks.
fn lacks_member(document: &Value, path: &str) -> bool {
    let Some((parent, name)) = path.rsplit_once('/') else {
        return false;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    let parent = document.pointer(parent).and_then(Value::as_object);
    parent.is_some_and(|parent| !parent.contains_key(&name))
}

fn carry_out(document: &mut Value, operation: &PatchOperation) -> Result<(), String> {
    json_patch::patch_unsafe(document, std::slice::from_ref(operation)).map_err(|error| {
        match operation {
            PatchOperation::Test(test) => match document.pointer(test.path.as_str()) {
                Some(actual) => format!("the value is {}", shortened(actual)),
                None => "there is no such path".to_owned(),
            },
            PatchOperation::Remove(_) | PatchOperation::Replace(_) => {
                "there is no such path".to_owned()
            }
            _ => error.kind.to_string(),
        }
    })
}

/// What the operations of a patch have done so far.
#[derive(Default)]
struct Spent {
    copied: usize,
    shifted: usize,
}

fn check_cost(
    document: &Value,
    operation: &PatchOperation,
    spent: &mut Spent,
) -> Result<(), String> {
    spent.shifted += match operation {
        PatchOperation::Add(add) => shifted(document, &add.path),
        PatchOperation::Remove(remove) => shifted(document, &remove.path),
        PatchOperation::Copy(copy) => shifted(document, &copy.path),
        PatchOperation::Move(moved) => {
            shifted(document, &moved.from) + shifted(document, &moved.path)
        }
        PatchOperation::Replace(_) | PatchOperation::Test(_) => 0,
    };
    if spent.shifted > MAX_SHIFTED {
        return Err(format!(
            "the patch moves more than {MAX_SHIFTED} items of lists in all"
        ));
    }
    let (value, counted) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), false),
        PatchOperation::Replace(replace) => (Some(&replace.value), false),
        PatchOperation::Copy(copy) => (document.pointer(copy.from.as_str()), true),
        PatchOperation::Move(from) => (document.pointer(from.from.as_str()), true),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, false),
    };
    let Some(value) = value else { return Ok(()) };
    let (size, depth) = measure(value);
    if operation.path().count() + depth > MAX_DEPTH {
        return Err(format!(
            "the object would be nested more than {MAX_DEPTH} levels deep"
        ));
    }
    spent.copied += if counted { size } else { 0 };
    if spent.copied > MAX_COPIED {
        return Err(format!(
            "the patch copies or moves more than {MAX_COPIED} bytes in all"
        ));
    }
    Ok(())
}

/// How many items of a list make room for what comes to a path, or follow what goes from it.
fn shifted(document: &Value, path: &Pointer) -> usize {
    let Some((parent, step)) = path.split_back() else {
        return 0;
    };
    let list = document.pointer(parent.as_str()).and_then(Value::as_array);
    // Behind the last item, which is no number, there is none.
    let index = step.encoded().parse::<usize>().unwrap_or(usize::MAX);
    list.map_or(0, |list| list.len().saturating_sub(index))
}

/// About how many bytes a value has as JSON, and how many levels.
fn measure(value: &Value) -> (usize, usize) {
    let below = |children: &mut dyn Iterator<Item = (usize, &Value)>| {
        children.fold((2, 1), |(size, depth), (extra, child)| {
            let (child_size, child_depth) = measure(child);
            (size + extra + child_size, depth.max(child_depth + 1))
        })
    };
    match value {
        Value::Object(map) => below(&mut map.iter().map(|(key, child)| (key.len() + 4, child))),
        Value::Array(list) => below(&mut list.iter().map(|child| (1, child))),
        Value::String(text) => (text.len() + 2, 0),
        Value::Null | Value::Bool(_) | Value::Number(_) => (8, 0),
    }
}

fn describe(operation: &PatchOperation) -> String {
    match operation {
        PatchOperation::Add(add) => format!("add of {:?}", add.path.as_str()),
        PatchOperation::Remove(remove) => format!("remove of {:?}", remove.path.as_str()),
        PatchOperation::Replace(replace) => format!("replace of {:?}", replace.path.as_str()),
        PatchOperation::Move(from) => format!(
            "move of {:?} to {:?}",
            from.from.as_str(),
            from.path.as_str()
        ),
        PatchOperation::Copy(copy) => format!(
            "copy of {:?} to {:?}",
            copy.from.as_str(),
            copy.path.as_str()
        ),
        PatchOperation::Test(test) => format!(
            "test of {:?} for {}",
            test.path.as_str(),
            shortened(&test.value)
        ),
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::patch::merge::tests::any_json;

    fn apply(document: Value, patch: Value) -> Result<Value, Error> {
        Patch::parse(patch.to_string().as_bytes())?.apply(document)
    }

    #[test]
    fn operations() {
        let document = json!({"a": {"b": [1, 2]}, "x/y": 1, "m~n": 2});
        let table = [
            (json!([]), document.clone()),
            (
                json!([{"op": "add", "path": "/a/b/-", "value": 3}]),
                json!({"a": {"b": [1, 2, 3]}, "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/0", "value": 0}]),
                json!({"a": {"b": [0, 1, 2]}, "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "replace", "path": "/x~1y", "value": null}, {"op": "remove", "path": "/m~0n"}]),
                json!({"a": {"b": [1, 2]}, "x/y": null}),
            ),
            (
                json!([{"op": "test", "path": "/a/b", "value": [1, 2]}, {"op": "move", "from": "/a/b", "path": "/c"}]),
                json!({"a": {}, "c": [1, 2], "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "replace", "path": "/a/c", "value": 3}, {"op": "test", "path": "/~1", "value": null}]),
                json!({"a": {"b": [1, 2], "c": 3}, "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "copy", "from": "/x~1y", "path": "/a/b/1"}]),
                json!({"a": {"b": [1, 1, 2]}, "x/y": 1, "m~n": 2}),
            ),
        ];
        for (patch, want) in table {
            assert_eq!(apply(document.clone(), patch.clone()), Ok(want), "{patch}");
        }
    }

    #[test]
    fn indices_from_the_end() {
        let table = [
            (json!({"op": "remove", "path": "/a/-1"}), json!([1, 2])),
            (
                json!({"op": "replace", "path": "/a/-3", "value": 0}),
                json!([0, 2, 3]),
            ),
            (
                json!({"op": "add", "path": "/a/-1", "value": 4}),
                json!([1, 2, 3, 4]),
            ),
            (
                json!({"op": "add", "path": "/a/-4", "value": 0}),
                json!([0, 1, 2, 3]),
            ),
            (
                json!({"op": "move", "from": "/a/0", "path": "/a/-1"}),
                json!([2, 3, 1]),
            ),
            (
                json!({"op": "move", "from": "/a/-1", "path": "/a/-3"}),
                json!([3, 1, 2]),
            ),
            (
                json!({"op": "copy", "from": "/a/-2", "path": "/a/-"}),
                json!([1, 2, 3, 2]),
            ),
            (
                json!({"op": "test", "path": "/a/-1", "value": 3}),
                json!([1, 2, 3]),
            ),
        ];
        for (operation, want) in table {
            let patched = apply(json!({"a": [1, 2, 3]}), json!([operation]));
            assert_eq!(patched, Ok(json!({"a": want})), "{operation}");
        }
        let inner = json!([{"op": "add", "path": "/-1/-1/a", "value": 1}]);
        assert_eq!(apply(json!([[{}, {}]]), inner), Ok(json!([[{}, {"a": 1}]])));
        let out = json!([{"op": "move", "from": "/b", "path": "/a/-1"}]);
        assert_eq!(
            apply(json!({"a": [1], "b": 2}), out),
            Ok(json!({"a": [1, 2]}))
        );
        for path in ["/a/-4", "/a/-x", "/a/-+1"] {
            let beyond = json!([{"op": "remove", "path": path}]);
            let refused = apply(json!({"a": [1, 2, 3]}), beyond);
            assert!(matches!(refused, Err(Error::Unprocessable(_))), "{path}");
        }
        // The name of a member is none.
        let member = json!([{"op": "replace", "path": "/-1", "value": 1}]);
        assert_eq!(apply(json!({"-1": 0}), member), Ok(json!({"-1": 1})));
    }

    #[test]
    fn errors_say_what_and_where() {
        let table = [
            (
                json!([{"op": "remove", "path": "/b"}]),
                "remove of \"/b\" (operation 0): there is no such path",
            ),
            (
                json!([{"op": "replace", "path": "/b/c", "value": 1}]),
                "replace of \"/b/c\" (operation 0): there is no such path",
            ),
            (
                json!([{"op": "test", "path": "/a", "value": 2}]),
                "test of \"/a\" for 2 (operation 0): the value is 1",
            ),
            (
                json!([{"op": "add", "path": "/b/c", "value": 1}]),
                "add of \"/b/c\" (operation 0): path is invalid",
            ),
            (
                json!([{"op": "copy", "from": "/b/c", "path": "/c"}]),
                "copy of \"/b/c\" to \"/c\" (operation 0): \"from\" path is invalid",
            ),
            (
                json!([{"op": "copy", "from": "/b", "path": "/b/c"}]),
                "copy of \"/b\" to \"/b/c\" (operation 0): path is invalid",
            ),
        ];
        for (patch, want) in table {
            let error = apply(json!({"a": 1}), patch).unwrap_err();
            assert_eq!(error, Error::Unprocessable(want.to_owned()));
        }
        for patch in [
            json!({}),
            json!([{"op": "fly", "path": "/a"}]),
            json!([{"op": "add", "path": "/a"}]),
            json!([{"op": "remove", "path": "a"}]),
        ] {
            assert!(
                matches!(apply(json!({}), patch.clone()), Err(Error::Malformed(_))),
                "{patch}"
            );
        }
        let many = vec![json!({"op": "test", "path": "", "value": {}}); MAX_OPERATIONS + 1];
        assert_eq!(
            crate::status::Status::from(apply(json!({}), many.into()).unwrap_err()).code(),
            413
        );
    }

    #[test]
    fn short_patches_make_no_large_objects() {
        let double = json!({"op": "copy", "from": "", "path": "/a"});
        let error = apply(
            json!({"a": 1, "b": "x".repeat(100_000)}),
            vec![double.clone(); 40].into(),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("more than 3145728 bytes"),
            "{error}"
        );
        let error = apply(json!({"a": 1}), vec![double; 300].into()).unwrap_err();
        assert!(error.to_string().contains("127 levels"), "{error}");
    }

    #[test]
    fn short_patches_move_no_long_lists_for_ever() {
        let document = json!({"a": vec![0; 300_000]});
        for (operation, fits) in [
            (json!({"op": "add", "path": "/a/0", "value": 1}), false),
            (json!({"op": "remove", "path": "/a/0"}), false),
            (json!({"op": "copy", "from": "/a/1", "path": "/a/0"}), false),
            (json!({"op": "move", "from": "/a/0", "path": "/a/-"}), false),
            (
                json!({"op": "move", "from": "/a/-1", "path": "/a/0"}),
                false,
            ),
            (json!({"op": "add", "path": "/a/-", "value": 1}), true),
            (json!({"op": "remove", "path": "/a/-1"}), true),
            (json!({"op": "replace", "path": "/a/0", "value": 1}), true),
            (json!({"op": "test", "path": "/a/0", "value": 0}), true),
        ] {
            let patched = apply(document.clone(), vec![operation.clone(); 120].into());
            match patched {
                Ok(_) => assert!(fits, "{operation}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        !fits && error.contains("items of lists"),
                        "{operation}: {error}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn replacing_the_whole_gives_the_value(document in any_json(), value in any_json()) {
            let patch = json!([{"op": "replace", "path": "", "value": value}]);
            prop_assert_eq!(apply(document, patch), Ok(value));
        }

        #[test]
        fn what_is_added_can_be_tested_and_removed(key in "\\PC{1,6}", value in any_json()) {
            let path = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            let document = json!({"\u{0}other": 1});
            let patch = json!([
                {"op": "add", "path": path, "value": value},
                {"op": "test", "path": path, "value": value},
                {"op": "remove", "path": path},
            ]);
            prop_assert_eq!(apply(document.clone(), patch), Ok(document));
        }
    }
}
