//! Taking fields out of an object.

use serde_json::Value;

use super::set::Node;
use super::{Set, element};
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
                    Ok(element) => keep(value, fields.node(&element), items),
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
                    let value = keep(value, fields.named(&name), of.field(&name).node)?;
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

/// The value without what is to go of it; `None` where all of it is.
fn keep(value: Value, doomed: Option<&Node>, of: Type<'_>) -> Option<Value> {
    match doomed {
        None => Some(value),
        Some(node) if node.member => None,
        Some(node) => Some(remove(value, &node.children, of)),
    }
}
