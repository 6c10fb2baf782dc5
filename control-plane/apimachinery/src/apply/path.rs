//! Paths to fields, as structured-merge-diff has them: the parts of a [`super::Set`].

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

/// One step from a value to a part of it.
#[derive(Clone, Debug)]
pub enum PathElement {
    /// The field of an object or the key of a map: `f:name`.
    Field(Box<str>),
    /// The item of a list whose members have these values, sorted by name: `k:{"name":"a"}`.
    Key(Vec<(Box<str>, Value)>),
    /// The item of a set: `v:"a"`.
    Value(Value),
    /// The item at a place: `i:0`.
    Index(i64),
}

/// A path from the root of an object.
pub type Path = Vec<PathElement>;

impl PathElement {
    /// A field.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Whether it is the field of this name; `*` stands for any step.
    pub(super) fn is(&self, step: &str) -> bool {
        match self {
            Self::Field(name) => step == "*" || **name == *step,
            _ => step == "*",
        }
    }

    /// Reads what [`PathElement::serialize`] writes. `Ok(None)` is a step of a sort that is not
    /// known, which is ignored: a later version may know it.
    ///
    /// # Errors
    /// What is malformed.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let malformed = |error: &dyn fmt::Display| format!("{text:?} is no path element: {error}");
        let Some((sort, rest)) = text.split_once(':').filter(|(sort, _)| sort.len() == 1) else {
            return Err(malformed(&"it begins with a letter and a colon"));
        };
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| malformed(&error));
        Ok(Some(match sort {
            "f" => Self::field(rest),
            "v" => Self::Value(json()?),
            "i" => Self::Index(rest.parse().map_err(|error| malformed(&error))?),
            "k" => match json()? {
                Value::Object(keys) => {
                    let keys = keys.into_iter().map(|(name, value)| (name.into(), value));
                    Self::Key(keys.collect())
                }
                _ => return Err(malformed(&"keys are an object")),
            },
            _ => return Ok(None),
        }))
    }

    /// As a key of FieldsV1.
    #[must_use]
    pub fn serialize(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
            Self::Key(keys) => {
                let mut text = "k:{".to_owned();
                for (index, (name, value)) in keys.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(&**name).to_string());
                    text.push(':');
                    text.push_str(&value.to_string());
                }
                text.push('}');
                text
            }
        }
    }
}

/// As people read it: `.spec`, `[name="a"]`, `[="a"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |element: &Self| match element {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        };
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let pairs = a.iter().zip(b);
                pairs
                    .map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare(&a.1, &b.1)))
                    .find(|ordering| ordering.is_ne())
                    .unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

/// A total order of values: numbers, strings, booleans, lists, objects, null. Numbers are
/// compared as such: 1 is 1.0.
#[must_use]
pub fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| compare(a, b))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| a.0.cmp(b.0).then_with(|| compare(a.1, b.1)))
            .find(|ordering| ordering.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let float = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
            float(a).total_cmp(&float(b))
        }
    }
}

/// Whether two values are the same.
#[must_use]
pub fn equal(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b).is_eq()
}
