//! What is wrong with a field of an object, and where it is: the causes of an `Invalid` Status.
//!
//! Wording and types are those of Kubernetes' `field` package, because people and tools read
//! them. Whether something is wrong is decided where the kind is known.
//!
//! Kubernetes repeats a value in each error about it, and an object may have as many errors as it
//! has bytes. So that the answer does not grow with their product, a path, a value and a detail are
//! cut where no key, field or message that makes sense is as long, and a list ends with how many
//! more there are (see [`ErrorList`]).

mod list;
mod shown;

use std::fmt::{self, Write};

pub use list::{ErrorList, aggregate};
pub use shown::Shown;
use shown::{Cut, cut};

/// Bytes of a path. The keys of labels and annotations are of 317 at most.
const LONGEST_PATH: usize = 2 * 1024;

/// Where a field stands, from the root of the object: `spec.containers[0].name`. One that is too
/// long to be read is cut, and is then the path of all that is below.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

impl Path {
    /// A field of the object itself, such as `spec`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(cut(name.into(), LONGEST_PATH))
    }

    /// The object itself; its children are as [`Path::new`] makes them.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field of what this path names.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let point = if self.0.is_empty() { "" } else { "." };
        self.with(&[point, name])
    }

    /// An item of the list that this path names.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(&["[", &index.to_string(), "]"])
    }

    /// An entry of the map that this path names.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(&["[", key, "]"])
    }

    /// The path as it is displayed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn with(&self, parts: &[&str]) -> Self {
        if self.0.len() >= LONGEST_PATH {
            return self.clone();
        }
        let mut path = Cut::new(LONGEST_PATH);
        let length: usize = parts.iter().map(|part| part.len()).sum();
        path.text
            .reserve((self.0.len() + length).min(LONGEST_PATH + 8));
        path.text.push_str(&self.0);
        // What fails is what comes after the cut.
        let _ = parts.iter().try_for_each(|part| path.write_str(part));
        Self(path.text)
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
#[error("{}", self.text())]
pub struct Error {
    /// The sort of fault.
    pub kind: ErrorType,
    /// Where it is.
    pub field: Path,
    /// The value at fault, where the message should show it.
    pub value: Option<Shown>,
    /// What is wrong with it, for people.
    pub detail: String,
    /// Where this stands for errors that a list had no room for: how many.
    omitted: usize,
}

impl Error {
    /// The value names something that does not exist.
    pub fn not_found(field: &Path, value: impl Into<Shown>) -> Self {
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
    pub fn duplicate(field: &Path, value: impl Into<Shown>) -> Self {
        Self::new(
            ErrorType::Duplicate,
            field,
            Some(value.into()),
            String::new(),
        )
    }

    /// The value is malformed or out of range.
    pub fn invalid(field: &Path, value: impl Into<Shown>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, Some(value.into()), detail.into())
    }

    /// What is wrong is not in one value, and none is shown.
    pub fn invalid_without_value(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, None, detail.into())
    }

    /// The value is of the wrong type.
    pub fn type_invalid(field: &Path, value: impl Into<Shown>, detail: impl Into<String>) -> Self {
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
        value: impl Into<Shown>,
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

    /// This error with another detail.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: cut(detail.into(), shown::LONGEST),
            ..self
        }
    }

    /// The message without the field: what a cause of a Status carries.
    pub fn body(&self) -> String {
        if self.omitted > 0 {
            return format!("Too many errors: {} more are not shown", self.omitted);
        }
        let mut body = self.kind.to_string();
        if let Some(Shown(value)) = &self.value {
            body.push_str(": ");
            body.push_str(value);
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }

    fn new(kind: ErrorType, field: &Path, value: Option<Shown>, detail: String) -> Self {
        Self {
            kind,
            field: field.clone(),
            value,
            detail: cut(detail, shown::LONGEST),
            omitted: 0,
        }
    }

    fn text(&self) -> String {
        if self.omitted > 0 {
            return self.body();
        }
        format!("{}: {}", self.field, self.body())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::shown::{CUT, LONGEST};
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
    fn long_texts_are_cut() {
        // Two bytes each, behind one of one byte: no cut is between two characters.
        let long = format!("a{}", "\u{e9}".repeat(LONGEST));
        let at = Path::new("metadata").child("labels").key(&long);
        assert_eq!(at.as_str().len(), LONGEST_PATH - 1 + CUT.len());
        assert!(at.as_str().starts_with("metadata.labels[a\u{e9}"));
        let below = at.child("a").index(1).key("b");
        assert_eq!(below, at);
        assert_eq!(Path::new(long.as_str()), Path::root().child(&long));
        let at = Path::new("spec");
        for error in [
            Error::invalid(&at, vec![long.as_str(); 9], ""),
            Error::required(&at, long.as_str()),
            Error::not_supported(&at, 1, &[&long]),
            Error::not_found(&at, 1).with_detail(long.as_str()),
        ] {
            let length = error.to_string().len();
            let bound = LONGEST..LONGEST + 64;
            assert!(bound.contains(&length), "{length}");
        }
        let whole = vec!["b".repeat(LONGEST / 4); 3];
        let error = Error::invalid(&at, whole.clone(), "");
        let whole = Value::from(whole);
        assert_eq!(error.to_string(), format!("spec: Invalid value: {whole}"));
    }
}
