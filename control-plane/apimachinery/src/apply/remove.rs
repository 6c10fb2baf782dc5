//! Taking fields out of an object.

use serde_json::Value;

use super::{PathElement, Set, element};
use crate::schema::{ListType, Node as Type, Shape};

/// The object without these fields and what is below them. What is left without any part becomes
/// null, which says that it was there.
#[must_use]
pub fn remove(object: Value, fields: &Set, of: Type<'_>) -> Value {
    match (of.shape(Some(&object)), object) {
        (Shape::Scalar, object) => object,
        (Shape::List { items, list }, Value::Array(values)) if *list != ListType::Atomic => {
            let kept: Vec<Value> = values
                .into_iter()
                .filter_map(|value| match element(list, &value) {
                    Ok(element) => keep(value, &element, fields, items),
                    Err(_) => Some(value),
                })
                .collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        (
            Shape::Map { atomic: false, .. } | Shape::Struct { atomic: false },
            Value::Object(members),
        ) => {
            let kept: serde_json::Map<String, Value> = members
                .into_iter()
                .filter_map(|(name, value)| {
                    let element = PathElement::field(&name);
                    let value = keep(value, &element, fields, of.field(&name).node)?;
                    Some((name, value))
                })
                .collect();
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        _ => Value::Null,
    }
}

fn keep(value: Value, element: &PathElement, fields: &Set, of: Type<'_>) -> Option<Value> {
    if fields.contains(std::slice::from_ref(element)) {
        return None;
    }
    Some(match fields.below(element) {
        Some(below) => remove(value, below, of),
        None => value,
    })
}
