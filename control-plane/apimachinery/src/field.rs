//! What is wrong with a field of an object, and where it is: the causes of an `Invalid` Status.
//!
//! Wording and types are those of Kubernetes' `field` package, because people and tools read
//! them. Whether something is wrong is decided where the kind is known.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// Where a field stands, from the root of the object: `spec.containers[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// A field of the object itself, such as `spec`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The object itself; its children are as [`Path::new`] makes them.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field of what this path names.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self(name.to_owned());
        }
        Self(format!("{}.{name}", self.0))
    }

    /// An item of the list that this path names.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map that this path names.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as it is displayed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sort of fault, which becomes the reason of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorType {
    /// A thing that the value names does not exist.
    NotFound,
    /// A value that must be given is not.
    Required,
    /// A value that must be unique is given twice.
    Duplicate,
    /// The value is malformed or out of range.
    Invalid,
    /// The value is not one of a fixed set.
    NotSupported,
    /// A well-formed value that is not allowed here and now.
    Forbidden,
    /// The value is longer than is allowed.
    TooLong,
    /// The list has more items than are allowed.
    TooMany,
    /// The check itself failed.
    Internal,
    /// The value is of the wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// The reason in a Status' cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        })
    }
}

/// One fault of one field. Displayed as `spec.replicas: Invalid value: -1: must be …`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {}", self.body())]
pub struct Error {
    /// The sort of fault.
    pub kind: ErrorType,
    /// Where it is.
    pub field: Path,
    /// The value at fault, where the message should show it.
    pub value: Option<Value>,
    /// What is wrong with it, for people.
    pub detail: String,
}

/// All faults found in one object.
pub type ErrorList = Vec<Error>;

impl Error {
    /// The value names something that does not exist.
    pub fn not_found(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(
            ErrorType::NotFound,
            field,
            Some(value.into()),
            String::new(),
        )
    }

    /// A value must be given.
    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, field, None, detail.into())
    }

    /// The value is given twice.
    pub fn duplicate(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(
            ErrorType::Duplicate,
            field,
            Some(value.into()),
            String::new(),
        )
    }

    /// The value is malformed or out of range.
    pub fn invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, Some(value.into()), detail.into())
    }

    /// What is wrong is not in one value, and none is shown.
    pub fn invalid_without_value(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, None, detail.into())
    }

    /// The value is of the wrong type.
    pub fn type_invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(
            ErrorType::TypeInvalid,
            field,
            Some(value.into()),
            detail.into(),
        )
    }

    /// The value is not one of `supported`.
    pub fn not_supported<S: AsRef<str>>(
        field: &Path,
        value: impl Into<Value>,
        supported: &[S],
    ) -> Self {
        let quoted: Vec<String> = supported
            .iter()
            .map(|s| format!("{:?}", s.as_ref()))
            .collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(ErrorType::NotSupported, field, Some(value.into()), detail)
    }

    /// The field may not have this value, or any, here and now.
    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, field, None, detail.into())
    }

    /// The value is longer than `max` bytes. It is not repeated in the message.
    pub fn too_long(field: &Path, max: usize) -> Self {
        Self::new(
            ErrorType::TooLong,
            field,
            None,
            format!("may not be more than {max} bytes"),
        )
    }

    /// The list has `actual` items, more than `max`.
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        Self::new(
            ErrorType::TooMany,
            field,
            Some(actual.into()),
            format!("must have at most {max} items"),
        )
    }

    /// The check itself failed.
    pub fn internal(field: &Path, cause: &dyn std::error::Error) -> Self {
        Self::new(ErrorType::Internal, field, None, cause.to_string())
    }

    /// The message without the field: what a cause of a Status carries.
    pub fn body(&self) -> String {
        let mut body = self.kind.to_string();
        if let Some(value) = &self.value {
            // JSON is how Kubernetes shows values of every sort, quoted strings included.
            body.push_str(": ");
            body.push_str(&value.to_string());
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }

    fn new(kind: ErrorType, field: &Path, value: Option<Value>, detail: String) -> Self {
        Self {
            kind,
            field: field.clone(),
            value,
            detail,
        }
    }
}

/// Many faults as one message: the single one as it is, several in brackets without repeats.
pub fn aggregate(errors: &[Error]) -> String {
    let mut seen = BTreeSet::new();
    let mut messages: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let message = error.to_string();
        if seen.insert(message.clone()) {
            messages.push(message);
        }
    }
    match messages.len() {
        1 => messages.swap_remove(0),
        _ => format!("[{}]", messages.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let containers = Path::new("spec").child("containers");
        assert_eq!(
            containers.index(0).child("name").to_string(),
            "spec.containers[0].name"
        );
        let annotations = Path::root().child("metadata").child("annotations");
        assert_eq!(
            annotations.key("a.b/c").as_str(),
            "metadata.annotations[a.b/c]"
        );
    }

    #[test]
    fn messages() {
        let at = Path::new("spec").child("x");
        let table: &[(Error, &str)] = &[
            (Error::required(&at, ""), "spec.x: Required value"),
            (Error::required(&at, "why"), "spec.x: Required value: why"),
            (
                Error::invalid(&at, -1, "must be positive"),
                "spec.x: Invalid value: -1: must be positive",
            ),
            (
                Error::invalid(&at, "a\"b", ""),
                r#"spec.x: Invalid value: "a\"b""#,
            ),
            (
                Error::invalid(&at, Value::Null, ""),
                "spec.x: Invalid value: null",
            ),
            (Error::duplicate(&at, "a"), "spec.x: Duplicate value: \"a\""),
            (Error::not_found(&at, "a"), "spec.x: Not found: \"a\""),
            (Error::forbidden(&at, "no"), "spec.x: Forbidden: no"),
            (
                Error::too_long(&at, 3),
                "spec.x: Too long: may not be more than 3 bytes",
            ),
            (
                Error::too_many(&at, 4, 3),
                "spec.x: Too many: 4: must have at most 3 items",
            ),
            (
                Error::not_supported(&at, "c", &["a", "b"]),
                r#"spec.x: Unsupported value: "c": supported values: "a", "b""#,
            ),
        ];
        for (error, want) in table {
            assert_eq!(&error.to_string(), want);
        }
    }

    #[test]
    fn aggregates() {
        let at = Path::new("a");
        let (one, two) = (Error::required(&at, ""), Error::forbidden(&at, "b"));
        assert_eq!(aggregate(std::slice::from_ref(&one)), "a: Required value");
        assert_eq!(
            aggregate(&[one.clone(), two, one]),
            "[a: Required value, a: Forbidden: b]"
        );
    }
}
