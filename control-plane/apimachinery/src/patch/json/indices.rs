//! Indices from the end of a list: `/-1` is its last item. Kubernetes takes them beyond RFC 6902.

use json_patch::PatchOperation;
use json_patch::jsonptr::{Pointer, PointerBuf};
use serde_json::Value;

/// The operation with indices from the start; `None` where it has no others. The document is as it
/// was afterwards.
pub(super) fn from_start(
    document: &mut Value,
    operation: &PatchOperation,
) -> Option<PatchOperation> {
    let from = match operation {
        PatchOperation::Move(from) => Some(&*from.from),
        PatchOperation::Copy(copy) => Some(&*copy.from),
        _ => None,
    };
    if !has_any(operation.path()) && !from.is_some_and(has_any) {
        return None;
    }
    let mut changed = operation.clone();
    match &mut changed {
        // What is added makes the list longer by one.
        PatchOperation::Add(add) => add.path = absolute(document, &add.path, 1),
        PatchOperation::Remove(remove) => remove.path = absolute(document, &remove.path, 0),
        PatchOperation::Replace(replace) => replace.path = absolute(document, &replace.path, 0),
        PatchOperation::Test(test) => test.path = absolute(document, &test.path, 0),
        PatchOperation::Copy(copy) => {
            copy.from = absolute(document, &copy.from, 0);
            copy.path = absolute(document, &copy.path, 1);
        }
        PatchOperation::Move(moved) => {
            moved.from = absolute(document, &moved.from, 0);
            // It has been taken out before the place where it goes is looked for.
            moved.path = without(document, &moved.from, |rest| absolute(rest, &moved.path, 1));
        }
    }
    Some(changed)
}

fn has_any(path: &Pointer) -> bool {
    path.as_str().split('/').any(|step| back(step).is_some())
}

/// How far from the end a step is.
fn back(step: &str) -> Option<usize> {
    let digits = step.strip_prefix('-')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let back = digits.parse().ok().filter(|_| is_number)?;
    (back > 0).then_some(back)
}

/// What is found in the document while it lacks what is at a path. A copy of the whole for each of
/// thousands of operations would be too much.
fn without<T>(document: &mut Value, path: &Pointer, find: impl FnOnce(&Value) -> T) -> T {
    let Some((parent, step)) = path.split_back() else {
        return find(document);
    };
    let (name, index) = (step.decoded(), step.encoded().parse::<usize>());
    let index = index.unwrap_or(usize::MAX);
    let taken = match document.pointer_mut(parent.as_str()) {
        Some(Value::Object(members)) => members.remove(&*name),
        Some(Value::Array(items)) if index < items.len() => Some(items.remove(index)),
        _ => None,
    };
    let found = find(document);
    match (document.pointer_mut(parent.as_str()), taken) {
        (Some(Value::Object(members)), Some(taken)) => {
            members.insert(name.into_owned(), taken);
        }
        (Some(Value::Array(items)), Some(taken)) => items.insert(index, taken),
        _ => {}
    }
    found
}

/// The path with indices from the start, where those that it has are within their lists. The list
/// of the last step is longer by so much than it is in the document.
fn absolute(document: &Value, path: &Pointer, longer: usize) -> PointerBuf {
    let steps: Vec<&str> = path.as_str().split('/').skip(1).collect();
    let mut text = String::new();
    for (at, step) in steps.iter().enumerate() {
        let longer = if at + 1 == steps.len() { longer } else { 0 };
        let index = match (document.pointer(&text), back(step)) {
            (Some(Value::Array(items)), Some(back)) => (items.len() + longer).checked_sub(back),
            _ => None,
        };
        text.push('/');
        match index {
            Some(index) => text.push_str(&index.to_string()),
            None => text.push_str(step),
        }
    }
    PointerBuf::parse(text).unwrap_or_else(|_| path.to_owned())
}
