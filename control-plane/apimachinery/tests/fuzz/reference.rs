//! JSON patch and merge patch once more, as the RFCs say them and no faster.

use serde_json::{Map, Value};

/// The parts of a JSON pointer (RFC 6901); `None` for what is none.
fn parts(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let rest = pointer.strip_prefix('/')?;
    let escapes = rest.split('~').skip(1);
    if !escapes
        .into_iter()
        .all(|after| after.starts_with(['0', '1']))
    {
        return None;
    }
    Some(
        rest.split('/')
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect(),
    )
}

/// Unlike in the RFC, `-1` is the last.
fn index(part: &str, length: usize) -> Option<usize> {
    if let Some(back) = part.strip_prefix('-') {
        let digits = !back.is_empty() && back.bytes().all(|b| b.is_ascii_digit());
        let back = back.parse().ok().filter(|back| digits && *back > 0)?;
        return length.checked_sub(back);
    }
    let leading = part.len() > 1 && part.starts_with('0');
    let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    part.parse()
        .ok()
        .filter(|index| digits && !leading && *index < length)
}

/// The path with all indices from the start; the last list is longer by so much than it is.
fn resolved(document: &Value, path: &[String], longer: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (at, part) in path.iter().enumerate() {
        let longer = if at + 1 == path.len() { longer } else { 0 };
        let index = match find(document, &found) {
            Some(Value::Array(items)) => index(part, items.len() + longer),
            _ => None,
        };
        found.push(index.map_or_else(|| part.clone(), |index| index.to_string()));
    }
    found
}

fn find<'v>(document: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(members) => members.get(part),
        Value::Array(items) => items.get(index(part, items.len())?),
        _ => None,
    })
}

fn find_mut<'v>(document: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
    path.iter().try_fold(document, |value, part| match value {
        Value::Object(members) => members.get_mut(part),
        Value::Array(items) => {
            let at = index(part, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

fn add(document: &mut Value, path: &[String], value: Value) -> Option<()> {
    let Some((last, parent)) = path.split_last() else {
        *document = value;
        return Some(());
    };
    match find_mut(document, parent)? {
        Value::Object(members) => {
            members.insert(last.clone(), value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(last, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &[String]) -> Option<Value> {
    let (last, parent) = path.split_last()?;
    match find_mut(document, parent)? {
        Value::Object(members) => members.remove(last),
        Value::Array(items) => {
            let at = index(last, items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

/// The document with a JSON patch applied (RFC 6902); `None` where an operation fails.
///
/// Unlike there, a member that an object lacks is null where it is replaced, copied or tested, as
/// in Kubernetes.
pub(crate) fn json_patch(mut document: Value, patch: &[Value]) -> Option<Value> {
    for operation in patch {
        let path = parts(operation["path"].as_str()?)?;
        let from = operation["from"].as_str().and_then(parts);
        let value = operation.get("value").cloned();
        match operation["op"].as_str()? {
            "add" => add(&mut document, &path, value?)?,
            "remove" => drop(remove(&mut document, &path)?),
            "replace" => *member_mut(&mut document, &path)? = value?,
            "copy" => {
                let copied = member(&document, &from?)?.clone();
                add(&mut document, &path, copied)?;
            }
            "move" => {
                // The whole document has no other place.
                let from = from.filter(|from| !from.is_empty())?;
                let from = resolved(&document, &from, 0);
                let mut rest = document.clone();
                let moved = remove(&mut rest, &from)?;
                let path = resolved(&rest, &path, 1);
                if from != path {
                    if path.starts_with(&from) {
                        return None;
                    }
                    add(&mut rest, &path, moved)?;
                    document = rest;
                }
            }
            "test" => {
                if *member(&document, &path)? != value? {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(document)
}

/// What is at a path, or null where an object could have it as a member.
fn member<'a>(document: &'a Value, path: &[String]) -> Option<&'a Value> {
    find(document, path).or_else(|| {
        let parent = find(document, path.split_last()?.1)?;
        parent.is_object().then_some(&Value::Null)
    })
}

/// The same to be changed: the member is then there.
fn member_mut<'a>(document: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    if find(document, path).is_none() {
        let (name, parent) = path.split_last()?;
        let parent = find_mut(document, parent)?.as_object_mut()?;
        return Some(parent.entry(name.clone()).or_insert(Value::Null));
    }
    find_mut(document, path)
}

/// RFC 7386, section 2.
pub(crate) fn merge_patch(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else {
        return patch.clone();
    };
    let mut target = match target {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let old = target.remove(name).unwrap_or_default();
            target.insert(name.clone(), merge_patch(old, value));
        }
    }
    target.into()
}

/// The merge patch that makes one document another, which has no nulls.
pub(crate) fn merge_diff(from: &Map<String, Value>, to: &Map<String, Value>) -> Value {
    let mut patch = Map::new();
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, new) in to {
        match (from.get(name), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(name.clone(), merge_diff(old, new));
            }
            _ => {
                patch.insert(name.clone(), new.clone());
            }
        }
    }
    patch.into()
}
