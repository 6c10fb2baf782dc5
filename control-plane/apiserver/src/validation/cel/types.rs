//! Types of expressions, and what one may stand for another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What is known of a value before there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Anything; only the value will tell.
    Dyn,
    /// Anything, of which the environment says so: may be the result where another type is wanted.
    Any,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    /// The type of types.
    Meta,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    /// A type that has a name and perhaps members.
    Named(Arc<str>),
    /// A type that a function's signature leaves open.
    Open(char),
    /// What an empty list has in it, or an absent value would be: it may still become anything.
    Unset,
}

/// What the open types of a signature have become.
pub(super) type Bindings = BTreeMap<char, Type>;

impl Type {
    pub(super) fn named(name: &str) -> Self {
        Self::Named(name.into())
    }

    pub(super) fn list(items: Self) -> Self {
        Self::List(Box::new(items))
    }

    /// Whether only the value will tell.
    pub(super) fn is_dynamic(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Unset)
    }

    /// Reads a type as the table of the environment writes it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some((outer, inner)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
            let inner: Option<Vec<Self>> = split(inner).into_iter().map(Self::parse).collect();
            let mut inner = inner?.into_iter().map(Box::new);
            let (first, second) = (inner.next()?, inner.next());
            return match (outer, second) {
                ("list", None) => Some(Self::List(first)),
                ("optional", None) => Some(Self::Optional(first)),
                ("map", Some(values)) => Some(Self::Map(first, values)),
                _ => None,
            };
        }
        Some(match text {
            "dyn" => Self::Dyn,
            "any" => Self::Any,
            "null_type" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "timestamp" => Self::Timestamp,
            "duration" => Self::Duration,
            "type" => Self::Meta,
            "A" => Self::Open('A'),
            "B" => Self::Open('B'),
            "" => return None,
            name => Self::named(name),
        })
    }

    /// Whether a value of the type `given` can stand where this one is wanted. Open types become
    /// what all that is given for them is.
    pub(super) fn accepts(&self, given: &Self, bindings: &mut Bindings) -> bool {
        match (self, given) {
            (Self::Open(name), _) => match bindings.get(name).cloned() {
                None => {
                    bindings.insert(*name, given.clone());
                    true
                }
                Some(bound) => match bound.join(given) {
                    Some(both) => {
                        bindings.insert(*name, both);
                        true
                    }
                    None => false,
                },
            },
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => {
                a.accepts(b, bindings)
            }
            (Self::Map(a, b), Self::Map(c, d)) => a.accepts(c, bindings) && b.accepts(d, bindings),
            // Messages, times and optional values may be null.
            (Self::Named(_) | Self::Timestamp | Self::Duration, Self::Null) => true,
            _ => self == given || self.is_dynamic() || given.is_dynamic(),
        }
    }

    /// The type that values of both types are of, where they do not contradict.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Unset, known) | (known, Self::Unset) => Some(known.clone()),
            (Self::Any, Self::Any) => Some(Self::Any),
            (Self::Dyn | Self::Any, _) | (_, Self::Dyn | Self::Any) => Some(Self::Dyn),
            (Self::List(a), Self::List(b)) => Some(Self::List(Box::new(a.join(b)?))),
            (Self::Optional(a), Self::Optional(b)) => Some(Self::Optional(Box::new(a.join(b)?))),
            (Self::Map(a, b), Self::Map(c, d)) => {
                Some(Self::Map(Box::new(a.join(c)?), Box::new(b.join(d)?)))
            }
            (known @ (Self::Named(_) | Self::Timestamp | Self::Duration), Self::Null)
            | (Self::Null, known @ (Self::Named(_) | Self::Timestamp | Self::Duration)) => {
                Some(known.clone())
            }
            _ => (self == other).then(|| self.clone()),
        }
    }

    /// The type with what its open types have become.
    pub(super) fn bound(&self, bindings: &Bindings) -> Self {
        let inner = |of: &Self| Box::new(of.bound(bindings));
        match self {
            Self::Open(name) => bindings.get(name).cloned().unwrap_or(Self::Unset),
            Self::List(items) => Self::List(inner(items)),
            Self::Optional(value) => Self::Optional(inner(value)),
            Self::Map(keys, values) => Self::Map(inner(keys), inner(values)),
            other => other.clone(),
        }
    }
}

/// Parts between the commas that are in no parentheses.
pub(super) fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Unset => f.write_str("dyn"),
            Self::Any => f.write_str("any"),
            Self::Null => f.write_str("null_type"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Meta => f.write_str("type"),
            Self::List(items) => write!(f, "list({items})"),
            Self::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            Self::Named(name) => f.write_str(name),
            Self::Open(name) => write!(f, "{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_types_become_what_is_given() {
        let table = [
            ("list(A)", "list(int)", Some("list(int)")),
            (
                "map(A,B)",
                "map(string,list(dyn))",
                Some("map(string, list(dyn))"),
            ),
            ("list(int)", "list(string)", None),
            ("list(int)", "dyn", Some("list(int)")),
            ("kubernetes.URL", "null_type", Some("kubernetes.URL")),
            ("int", "null_type", None),
            ("optional(A)", "int", None),
        ];
        for (wanted, given, want) in table {
            let (wanted, given) = (Type::parse(wanted), Type::parse(given));
            let (Some(wanted), Some(given)) = (wanted, given) else {
                panic!("both are types");
            };
            let mut bindings = Bindings::new();
            let accepted = wanted.accepts(&given, &mut bindings);
            let got = accepted.then(|| wanted.bound(&bindings).to_string());
            assert_eq!(got.as_deref(), want, "{wanted} {given}");
        }
    }
}
