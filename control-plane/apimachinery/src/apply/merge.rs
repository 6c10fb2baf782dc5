//! Merging a configuration into an object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{PathElement, TypeError, elements};
use crate::schema::{ListType, Node as Type, Shape};

/// The live object with what the configuration says.
///
/// # Errors
/// Where the items of a list cannot be told apart.
pub fn merge(live: Value, config: &Value, of: Type<'_>) -> Result<Value, TypeError> {
    let shape = of.shape(Some(config));
    match (shape, live, config) {
        (Shape::List { items, list }, Value::Array(live), Value::Array(config))
            if *list != ListType::Atomic && !(live.is_empty() && config.is_empty()) =>
        {
            merge_lists(live, config, items, list).map(Value::Array)
        }
        (
            Shape::Map { atomic: false, .. } | Shape::Struct { atomic: false },
            Value::Object(mut live),
            Value::Object(config),
        ) if !(live.is_empty() && config.is_empty()) => {
            for (name, value) in config {
                let merged = match live.remove(name) {
                    Some(old) => merge(old, value, of.field(name).node)
                        .map_err(|error| error.below(PathElement::field(name)))?,
                    None => value.clone(),
                };
                live.insert(name.clone(), merged);
            }
            Ok(Value::Object(live))
        }
        // Null says nothing of the parts.
        (Shape::List { list, .. }, live @ Value::Array(_), Value::Null)
            if *list != ListType::Atomic && live.as_array().is_some_and(|l| !l.is_empty()) =>
        {
            Ok(live)
        }
        (
            Shape::Map { atomic: false, .. } | Shape::Struct { atomic: false },
            live @ Value::Object(_),
            Value::Null,
        ) if live.as_object().is_some_and(|map| !map.is_empty()) => Ok(live),
        (_, _, config) => Ok(config.clone()),
    }
}

/// What an object has of that of which a configuration says something: whatever merging the two can
/// change, or depends on. So a comparison of this part tells all that has changed by it.
#[must_use]
pub fn mentioned(object: &Value, config: &Value, of: Type<'_>) -> Value {
    match (of.shape(Some(config)), object, config) {
        (
            Shape::Map { atomic: false, .. } | Shape::Struct { atomic: false },
            Value::Object(object),
            Value::Object(config),
        ) => {
            let both = config.iter().filter_map(|(name, value)| {
                let part = mentioned(object.get(name)?, value, of.field(name).node);
                Some((name.clone(), part))
            });
            Value::Object(both.collect())
        }
        (_, object, _) => object.clone(),
    }
}

/// Merges items. Those of the configuration stand in its order; those that only the live list has
/// keep their place relative to those that both have, as far as that is possible.
fn merge_lists(
    live: Vec<Value>,
    config: &[Value],
    items: Type<'_>,
    list: &ListType,
) -> Result<Vec<Value>, TypeError> {
    let (left, right) = (elements(list, &live)?, elements(list, config)?);
    let mut applied: BTreeMap<&PathElement, &Value> = BTreeMap::new();
    for (element, value) in right.iter().zip(config) {
        if applied.insert(element, value).is_some() {
            return Err(TypeError::new(format!(
                "duplicate entries for key {element}"
            )));
        }
    }
    // An item that is there more than once is replaced, not merged.
    let mut present: BTreeMap<&PathElement, Value> = BTreeMap::new();
    for (element, value) in left.iter().zip(&live) {
        let is_known = present.contains_key(element);
        if applied.contains_key(element) {
            let value = if is_known { Value::Null } else { value.clone() };
            present.insert(element, value);
        }
    }
    let mut shared = right
        .iter()
        .filter(|element| present.contains_key(element))
        .collect::<Vec<_>>()
        .into_iter();
    let mut next_shared = shared.next();
    let mut merged_already = BTreeSet::new();
    let mut live: Vec<Option<Value>> = live.into_iter().map(Some).collect();
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if let Some(element) = left.get(l) {
            let is_applied = applied.contains_key(element);
            let is_next = right.get(r) == Some(element);
            if !is_applied {
                merged.extend(live[l].take());
                l += 1;
                continue;
            }
            // Both have it, but it is not its turn.
            if r < right.len() && !is_next && next_shared.is_some_and(|next| next != element) {
                l += 1;
                continue;
            }
            if is_next || merged_already.contains(element) {
                l += 1;
            }
        }
        if let (Some(element), Some(value)) = (right.get(r), config.get(r)) {
            merged_already.insert(element);
            merged.push(match present.get(element) {
                Some(old) => merge(old.clone(), value, items).map_err(|e| e.below(element))?,
                None => value.clone(),
            });
            r += 1;
            if next_shared == Some(element) {
                next_shared = shared.next();
            }
        }
    }
    Ok(merged)
}
