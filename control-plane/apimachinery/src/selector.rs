//! Label and field selectors: parsed from query parameters or from objects, and matched.

mod field;
mod label;
mod parse;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{Operator, Requirement, Selector, format_label_selector};

/// Why a selector is malformed; for a 400 or a field error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);
