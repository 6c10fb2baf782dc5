//! Merging, comparing and pruning objects by their [`crate::schema`], and sets of their fields:
//! what structured-merge-diff is to Kubernetes.
//!
//! | module | does |
//! |---|---|
//! | [`path`], [`set`], `fields_v1` | fields, sets of them, and their encoding |
//! | [`fields`] | the fields of an object, and what is wrong with its lists and maps |
//! | [`mod@compare`] | what one object has that another has not |
//! | [`mod@merge`] | an object with a configuration applied to it |
//! | [`mod@remove`] | an object without some fields |
//!
//! Nothing here knows who manages a field: that is [`crate::managed`].

pub mod compare;
pub mod fields;
mod fields_v1;
pub mod merge;
pub mod path;
pub mod remove;
pub mod set;

pub use compare::{Comparison, Whole, compare};
pub use fields::{field_set, validate};
pub use merge::{mentioned, merge};
pub use path::{Path, PathElement};
pub use remove::remove;
pub use set::Set;

use serde_json::{Map, Value};

use crate::schema::{ListType, Node};

/// What is wrong with a list or a map of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", self.path, if self.path.is_empty() { "" } else { ": " })]
pub struct TypeError {
    /// Where.
    pub path: String,
    /// What.
    pub message: String,
}

impl TypeError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            message: message.into(),
        }
    }

    /// The same, seen from the value that holds it.
    fn below(mut self, element: impl std::fmt::Display) -> Self {
        self.path.insert_str(0, &element.to_string());
        self
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value
        .and_then(Value::as_array)
        .map_or(&[], |items| items.as_slice())
}

fn map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
}

/// What tells an item of a list from the others.
fn element(list: &ListType, item: &Value) -> Result<PathElement, TypeError> {
    match list {
        ListType::Map(keys) => {
            let Value::Object(object) = item else {
                return Err(TypeError::new(if item.is_null() {
                    "associative list with keys may not have a null element"
                } else {
                    "associative list with keys may not have non-map elements"
                }));
            };
            let mut values: Vec<(Box<str>, Value)> = keys
                .iter()
                .filter_map(|key| {
                    let value = object.get(&*key.name).or(key.default.as_ref())?;
                    Some((key.name.clone(), value.clone()))
                })
                .collect();
            if values.is_empty() {
                let names: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
                return Err(TypeError::new(format!(
                    "associative list with keys has an element that omits all key fields {names:?} (and doesn't have default values for any key fields)"
                )));
            }
            values.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(PathElement::Key(values))
        }
        ListType::Set => match item {
            Value::Object(_) => Err(TypeError::new(
                "associative list without keys has an element that's a map type",
            )),
            Value::Array(_) => Err(TypeError::new(
                "not supported: associative list with lists as elements",
            )),
            Value::Null => Err(TypeError::new(
                "associative list without keys has an element that's an explicit null",
            )),
            scalar => Ok(PathElement::Value(scalar.clone())),
        },
        ListType::Atomic => Err(TypeError::new("invalid indexing of non-associative list")),
    }
}

/// What tells the items of a list apart, in their order.
fn elements(of: &ListType, items: &[Value]) -> Result<Vec<PathElement>, TypeError> {
    let items = items.iter().enumerate();
    items
        .map(|(index, item)| {
            element(of, item).map_err(|error| TypeError {
                message: format!("element {index}: {}", error.message),
                ..error
            })
        })
        .collect()
}

/// Whether a field that an object lacks is there all the same, and how.
fn implied(node: Node<'_>) -> &'static Value {
    static EMPTY: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| Value::Object(Map::new()));
    match node.shape(None) {
        crate::schema::Shape::Struct { .. } => &EMPTY,
        _ => &Value::Null,
    }
}

#[cfg(test)]
mod tests;
