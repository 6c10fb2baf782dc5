//! The fields of an object, and what is wrong with its lists and maps.

use std::collections::BTreeSet;

use serde_json::Value;

use super::set::{Node, Set};
use super::{PathElement, TypeError, element, elements};
use crate::schema::{ListType, Node as Type, Shape};

/// The fields that an object has.
///
/// # Errors
/// Where the items of a list cannot be told apart.
pub fn field_set(object: &Value, of: Type<'_>) -> Result<Set, TypeError> {
    Ok(walk(object, of)?.children)
}

fn walk(value: &Value, of: Type<'_>) -> Result<Node, TypeError> {
    let mut node = Node::default();
    match of.shape(Some(value)) {
        Shape::Scalar => node.member = true,
        Shape::List { items, list } => match value {
            _ if *list == ListType::Atomic => node.member = true,
            Value::Array(values) => node.children = items_of(values, items, list)?,
            _ => {}
        },
        shape @ (Shape::Map { atomic, .. } | Shape::Struct { atomic }) => match value {
            _ if atomic => node.member = true,
            Value::Object(fields) => {
                let is_map = matches!(shape, Shape::Map { .. });
                for (name, value) in fields {
                    let mut below = walk(value, of.field(name).node)
                        .map_err(|error| error.below(PathElement::field(name)))?;
                    let empty =
                        value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                    below.member |= empty || is_map;
                    node.children.push(|| PathElement::field(name), below);
                }
            }
            _ => {}
        },
    }
    Ok(node)
}

fn items_of(values: &[Value], items: Type<'_>, list: &ListType) -> Result<Set, TypeError> {
    let keys = elements(list, values)?;
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for key in &keys {
        if !seen.insert(key) {
            repeated.insert(key);
        }
    }
    let mut set = Set::default();
    for (key, value) in keys.iter().zip(values) {
        let mut below = if repeated.contains(key) {
            Node::default()
        } else {
            walk(value, items).map_err(|error| error.below(key))?
        };
        below.member = true;
        set.push(|| key.clone(), below);
    }
    Ok(set)
}

/// Everything that is wrong with the lists and maps of an object. Items that cannot be told from
/// each other are a fault unless `duplicates` are allowed, as they are in what is there already.
#[must_use]
pub fn validate(object: &Value, of: Type<'_>, duplicates: bool) -> Vec<TypeError> {
    match of.shape(Some(object)) {
        Shape::Scalar => Vec::new(),
        _ if object.is_null() => Vec::new(),
        Shape::List { items, list } => match object {
            Value::Array(values) => validate_items(values, items, list, duplicates),
            other => vec![TypeError::new(format!("expected list, got {other}"))],
        },
        Shape::Map { .. } | Shape::Struct { .. } => match object {
            Value::Object(fields) => fields
                .iter()
                .flat_map(|(name, value)| {
                    let errors = validate(value, of.field(name).node, duplicates).into_iter();
                    errors.map(move |error| error.below(PathElement::field(name)))
                })
                .collect(),
            other => vec![TypeError::new(format!("expected map, got {other}"))],
        },
    }
}

fn validate_items(
    values: &[Value],
    items: Type<'_>,
    list: &ListType,
    duplicates: bool,
) -> Vec<TypeError> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let key = if *list == ListType::Atomic {
            PathElement::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            match element(list, value) {
                Ok(key) => key,
                Err(error) => {
                    let message = format!("element {index}: {}", error.message);
                    errors.push(TypeError::new(message));
                    // Nothing can be said of what lies below.
                    break;
                }
            }
        };
        let below = validate(value, items, duplicates).into_iter();
        errors.extend(below.map(|error| error.below(&key)));
        let shown = key.to_string();
        if !seen.insert(key) && !duplicates {
            errors.push(TypeError::new(format!("duplicate entries for key {shown}")));
        }
    }
    errors
}
