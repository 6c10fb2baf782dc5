//! Patches: JSON patch, JSON merge patch and strategic merge patch, over untyped JSON.
//!
//! Each takes the object as it is and gives the object as it should be; what comes out is
//! decoded, defaulted and validated like any other input. Server-side apply, which also says who
//! manages what, is [`crate::managed`].

use crate::status::Status;

pub mod json;
pub mod merge;
pub mod strategic;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch itself makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// The patch has more operations than are allowed.
    #[error("The allowed maximum operations in a JSON patch is {max}, got {actual}")]
    TooManyOperations {
        /// Operations in the patch.
        actual: usize,
        /// Operations allowed.
        max: usize,
    },
    /// The patch makes sense, but not for this object.
    #[error("the server rejected our request due to an error in our request: {0}")]
    Unprocessable(String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Malformed(_) => Self::bad_request(error),
            Error::TooManyOperations { .. } => Self::request_entity_too_large(error),
            Error::Unprocessable(_) => Self::failure(422, "Invalid", error.to_string()),
        }
    }
}
