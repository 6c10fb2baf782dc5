//! Lists in a strategic merge patch. Items are found by their key in hash maps, so that a long
//! list costs what its length is, not the square of it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::Error;
use super::{Directive, PATCH, bare, merge_objects};
use crate::schema::Node;

/// What tells items apart: the JSON of a scalar, or of the value of the merge key.
type Key = String;

/// Merges the items of a patch into a list whose items are merged.
pub(super) fn merge(
    name: &str,
    old: Vec<Value>,
    new: Vec<Value>,
    merge_key: Option<&str>,
    schema: Node<'_>,
) -> Result<Vec<Value>, Error> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let (merged, new_keys, old) = if has_objects(name, old.iter().chain(&new))? {
        let merge_key = merge_key.ok_or_else(|| {
            Error::Unprocessable(format!("cannot merge lists without merge key for {name}"))
        })?;
        let (old, new) = special_items(name, old, new, merge_key)?;
        let new_keys = keys(name, &new, Some(merge_key))?;
        let server = old.clone();
        (
            merge_items(name, old, new, merge_key, schema)?,
            new_keys,
            server,
        )
    } else {
        let new_keys = keys(name, &new, None)?;
        let mut seen = HashSet::new();
        let merged = old
            .iter()
            .cloned()
            .chain(new)
            .filter(|item| seen.insert(item.to_string()))
            .collect();
        (merged, new_keys, old)
    };
    order_by_keys(name, merged, &new_keys, &old, merge_key)
}

/// Removes scalars.
pub(super) fn delete(items: &mut Vec<Value>, doomed: &[Value]) {
    let doomed: HashSet<Key> = doomed.iter().map(Value::to_string).collect();
    items.retain(|item| !doomed.contains(&item.to_string()));
}

/// The items of the patch must be named in the order, and stand in that order.
pub(super) fn check_order(
    name: &str,
    new: &[Value],
    order: &[Value],
    merge_key: Option<&str>,
) -> Result<(), Error> {
    if order.is_empty() {
        return Ok(());
    }
    let order_keys = keys(name, order, merge_key)?;
    let mut expected = order_keys.iter();
    for item in new {
        // What is to be deleted has no place in the order.
        if item
            .as_object()
            .is_some_and(|item| item.contains_key(PATCH))
        {
            continue;
        }
        let key = key_of(name, item, merge_key)?;
        if !expected.any(|expected| *expected == key) {
            return Err(Error::Malformed(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder/{name} list:\n{}\n",
                Value::from(new),
                Value::from(order)
            )));
        }
    }
    Ok(())
}

/// Puts a merged list in the order that the patch sets. Items that the order does not name keep
/// their place relative to those that the server had.
pub(super) fn ordered(
    name: &str,
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, Error> {
    let order = keys(name, order, merge_key)?;
    order_by_keys(name, merged, &order, server, merge_key)
}

/// Whether the items are objects; a list of lists, or of objects and scalars, is an error.
fn has_objects<'a>(name: &str, mut items: impl Iterator<Item = &'a Value>) -> Result<bool, Error> {
    let mut objects = None;
    items.try_for_each(|item| {
        let is_object = match item {
            Value::Array(_) => {
                return Err(Error::Unprocessable(format!(
                    "lists of lists are not supported: {name}"
                )));
            }
            item => item.is_object(),
        };
        if *objects.get_or_insert(is_object) == is_object {
            return Ok(());
        }
        Err(Error::Unprocessable(format!(
            "list {name} has elements of different types"
        )))
    })?;
    Ok(objects.unwrap_or(false))
}

/// Carries out the items that are directives. What remains are the items to merge into, and the
/// items to merge.
fn special_items(
    name: &str,
    old: Vec<Value>,
    new: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let (mut kept, mut doomed, mut replaces) =
        (Vec::with_capacity(new.len()), HashSet::new(), false);
    for item in new {
        let directive = item.as_object().map(Directive::of).transpose()?.flatten();
        match directive {
            None => kept.push(item),
            Some(Directive::Delete) => {
                doomed.insert(key_of(name, &item, Some(merge_key))?);
            }
            Some(Directive::Replace) => replaces = true,
        }
    }
    if replaces {
        return Ok((kept.into_iter().map(bare).collect(), Vec::new()));
    }
    let mut remaining = Vec::with_capacity(old.len());
    for item in old {
        if !doomed.contains(&key_of(name, &item, Some(merge_key))?) {
            remaining.push(item);
        }
    }
    Ok((remaining, kept))
}

fn merge_items(
    name: &str,
    old: Vec<Value>,
    new: Vec<Value>,
    merge_key: &str,
    schema: Node<'_>,
) -> Result<Vec<Value>, Error> {
    let mut merged: Vec<Value> = old;
    let mut places: HashMap<Key, usize> = HashMap::new();
    for (place, key) in keys(name, &merged, Some(merge_key))?
        .into_iter()
        .enumerate()
    {
        places.entry(key).or_insert(place);
    }
    for item in new {
        let key = key_of(name, &item, Some(merge_key))?;
        match places.get(&key) {
            Some(place) => {
                let old = std::mem::take(&mut merged[*place]);
                if let (Value::Object(old), Value::Object(new)) = (old, item) {
                    merged[*place] = Value::Object(merge_objects(old, new, schema)?);
                }
            }
            None => {
                places.insert(key, merged.len());
                merged.push(bare(item));
            }
        }
    }
    Ok(merged)
}

/// Splits items into those that `order` names and those that only the server knows, sorts each,
/// and interleaves them: one of the server's goes first where the server had it before the other.
fn order_by_keys(
    name: &str,
    merged: Vec<Value>,
    order: &[Key],
    server: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, Error> {
    let server = keys(name, server, merge_key)?;
    let (order, server) = (places(order), places(&server));
    let (mut named, mut unnamed) = (Vec::new(), Vec::new());
    for item in merged {
        let key = key_of(name, &item, merge_key)?;
        let place = server.get(&key).copied();
        match order.get(&key) {
            Some(rank) => named.push((*rank, place, item)),
            // An item of neither goes last; there is none unless the order is malformed.
            None => unnamed.push((place.unwrap_or(usize::MAX), place, item)),
        }
    }
    named.sort_by_key(|(rank, ..)| *rank);
    unnamed.sort_by_key(|(rank, ..)| *rank);
    let mut result = Vec::with_capacity(named.len() + unnamed.len());
    let mut unnamed = unnamed.into_iter().peekable();
    for (_, place, item) in named {
        while let Some((_, _, earlier)) = unnamed.next_if(|(_, unnamed, _)| matches!((unnamed, place), (Some(unnamed), Some(place)) if *unnamed < place)) {
            result.push(earlier);
        }
        result.push(item);
    }
    result.extend(unnamed.map(|(_, _, item)| item));
    Ok(result)
}

fn places(keys: &[Key]) -> HashMap<&Key, usize> {
    let mut places = HashMap::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        places.entry(key).or_insert(place);
    }
    places
}

fn keys(name: &str, items: &[Value], merge_key: Option<&str>) -> Result<Vec<Key>, Error> {
    items
        .iter()
        .map(|item| key_of(name, item, merge_key))
        .collect()
}

fn key_of(name: &str, item: &Value, merge_key: Option<&str>) -> Result<Key, Error> {
    match (item, merge_key) {
        (Value::Object(object), Some(merge_key)) => {
            let value = object.get(merge_key).ok_or_else(|| {
                Error::Malformed(format!(
                    "map: {item} does not contain declared merge key: {merge_key} (in {name})"
                ))
            })?;
            Ok(value.to_string())
        }
        (item, _) => Ok(item.to_string()),
    }
}
