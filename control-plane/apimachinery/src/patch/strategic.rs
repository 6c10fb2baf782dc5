//! Strategic merge patch (`application/strategic-merge-patch+json`): a merge patch that merges
//! lists item by item, as the object's [`crate::schema`] says, and knows directives:
//!
//! | directive | in | means |
//! |---|---|---|
//! | `$patch: replace` | an object | it is taken as it is, nothing is merged |
//! | `$patch: replace` | an item of a list | the other items replace the whole list |
//! | `$patch: delete` | an object | it becomes empty |
//! | `$patch: delete` | an item of a list | the item of that key is removed |
//! | `$deleteFromPrimitiveList/f` | an object | these scalars are removed from the list `f` |
//! | `$setElementOrder/f` | an object | the items of `f` stand in this order |
//! | `$retainKeys` | an object | members that are not named are removed |
//!
//! What the patch adds, with nothing there to merge it with, is added without the objects that have a
//! `$patch`. `$patch: merge` is known and refused, as in Kubernetes.
//!
//! Items that the patch does not mention keep their place relative to those it does; items that
//! are new stand before them, as Kubernetes has it.

mod lists;

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Error;
use crate::schema::{FieldNode, Node};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Merges the patch into an object of the type that `schema` describes.
pub fn apply(document: Value, patch: Value, schema: Node<'_>) -> Result<Value, Error> {
    match (document, patch) {
        (Value::Object(document), Value::Object(patch)) => {
            merge_objects(document, patch, schema).map(Value::Object)
        }
        (Value::Object(_), _) => Err(Error::Malformed(
            "error decoding patch: a strategic merge patch must be a JSON object".to_owned(),
        )),
        _ => Err(Error::Unprocessable(
            "only an object can be patched".to_owned(),
        )),
    }
}

/// What `$patch` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directive {
    Replace,
    Delete,
}

impl Directive {
    fn of(object: &Object) -> Result<Option<Self>, Error> {
        match object.get(PATCH) {
            None => Ok(None),
            Some(Value::String(directive)) if directive == "replace" => Ok(Some(Self::Replace)),
            Some(Value::String(directive)) if directive == "delete" => Ok(Some(Self::Delete)),
            Some(other) => Err(Error::Malformed(format!(
                "unknown patch type {other} in the patch: $patch is one of replace and delete"
            ))),
        }
    }
}

fn merge_objects(
    mut document: Object,
    mut patch: Object,
    schema: Node<'_>,
) -> Result<Object, Error> {
    let directive = Directive::of(&patch)?;
    patch.remove(PATCH);
    match directive {
        Some(Directive::Replace) => return Ok(bare_object(patch)),
        Some(Directive::Delete) => return Ok(Object::new()),
        None => {}
    }
    retain_keys(&mut document, &mut patch)?;
    set_element_orders(&mut document, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            delete_scalars(&mut document, list, value)?;
            continue;
        }
        let field = schema.field(&key);
        let merged = match (document.remove(&key), value) {
            (_, Value::Null) => None,
            (Some(Value::Object(_)), Value::Object(new)) if field.patch.replace => {
                Some(Value::Object(bare_object(new)))
            }
            (Some(Value::Object(old)), Value::Object(new)) => {
                Some(Value::Object(merge_objects(old, new, field.node)?))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Some(Value::Array(merge_lists(&key, old, new, field)?))
            }
            (_, new) => added(new),
        };
        if let Some(merged) = merged {
            document.insert(key, merged);
        }
    }
    Ok(document)
}

fn merge_lists(
    name: &str,
    old: Vec<Value>,
    new: Vec<Value>,
    field: FieldNode<'_>,
) -> Result<Vec<Value>, Error> {
    if field.patch.merge {
        let key = field.patch.merge_key.as_deref();
        lists::merge(name, old, new, key, field.node.inner())
    } else {
        Ok(new.into_iter().map(bare).collect())
    }
}

/// Drops the members that `$retainKeys` does not name. Those are the members that a patch from
/// kubectl knows of: switching a volume from one source to another must not keep both.
fn retain_keys(document: &mut Object, patch: &mut Object) -> Result<(), Error> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed =
        |why: &str| Error::Malformed(format!("invalid patch format of retainKeys: {why}"));
    let Value::Array(keys) = keys else {
        return Err(malformed("it must be a list"));
    };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let named = |key: &str| keys.contains(key);
    let foreign = patch
        .iter()
        .find(|(key, value)| !value.is_null() && !key.starts_with('$') && !named(key));
    if let Some((key, _)) = foreign {
        return Err(malformed(&format!(
            "{key:?} is in the patch but not in $retainKeys"
        )));
    }
    document.retain(|key, _| named(key));
    Ok(())
}

fn delete_scalars(document: &mut Object, list: &str, doomed: Value) -> Result<(), Error> {
    let Value::Array(doomed) = doomed else {
        let message = format!(
            "invalid patch format of primitive list: {DELETE_FROM_PRIMITIVE_LIST}{list} must be a list"
        );
        return Err(Error::Malformed(message));
    };
    if let Some(Value::Array(items)) = document.get_mut(list) {
        lists::delete(items, &doomed);
    }
    Ok(())
}

/// Handles each list for which the patch gives an order, together with its items: they are taken
/// out of the patch.
fn set_element_orders(
    document: &mut Object,
    patch: &mut Object,
    schema: Node<'_>,
) -> Result<(), Error> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let name = &directive[SET_ELEMENT_ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(Error::Malformed(format!(
                "invalid patch format of setElementOrder list: {directive} must be a list"
            )));
        };
        let field = schema.field(name);
        let key = field.patch.merge_key.as_deref();
        let new = match patch.get(name) {
            None => None,
            Some(Value::Array(_)) => patch.remove(name),
            // Null, or a value of another type: there is nothing to order.
            Some(_) => continue,
        };
        let old = match document.get(name) {
            Some(Value::Array(old)) => Some(old.clone()),
            _ => None,
        };
        if let Some(Value::Array(new)) = &new {
            lists::check_order(name, new, &order, key)?;
        }
        let merged = match (&old, new) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => match added(new) {
                Some(Value::Array(new)) => new,
                _ => continue,
            },
            (Some(old), Some(Value::Array(new))) => merge_lists(name, old.clone(), new, field)?,
            (Some(_), Some(_)) => continue,
        };
        let merged = lists::ordered(
            name,
            merged,
            &order,
            old.as_deref().unwrap_or_default(),
            key,
        )?;
        document.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

/// A value of the patch that there is nothing to merge with: without the objects that have a
/// directive of their own. `None` where it is such an object.
fn added(value: Value) -> Option<Value> {
    match value {
        Value::Object(object) if object.contains_key(PATCH) => None,
        Value::Object(object) => {
            let members = object.into_iter().filter(is_data);
            let members = members.filter_map(|(key, value)| Some((key, added(value)?)));
            Some(Value::Object(members.collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(added).collect())),
        scalar => Some(scalar),
    }
}

/// A value that is taken as it is: without directives, and without the members that are null.
fn bare(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(bare_object(object)),
        Value::Array(list) => Value::Array(list.into_iter().map(bare).collect()),
        scalar => scalar,
    }
}

fn bare_object(object: Object) -> Object {
    let members = object.into_iter().filter(is_data);
    members.map(|(key, value)| (key, bare(value))).collect()
}

/// Whether a member of the patch is no directive, and not null.
fn is_data((key, value): &(String, Value)) -> bool {
    let is_directive = key == PATCH
        || key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        || key.starts_with(SET_ELEMENT_ORDER);
    !value.is_null() && !is_directive
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
