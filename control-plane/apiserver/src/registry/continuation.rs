//! Continue tokens: where the next page of a list begins, and in which state of the objects.
//! Clients treat them as opaque, and send others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_apimachinery::status::Status;
use coracle_store::{Read, Revision};
use serde::{Deserialize, Serialize};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    /// Format of the token.
    v: String,
    /// Revision of the first page; -1 for "whatever is newest".
    rv: i64,
    /// The last key that was delivered, without the prefix of the list.
    start: String,
}

const FORMAT: &str = "coracle/v1";

impl Continuation {
    /// Behind this key of the state at a revision.
    #[must_use]
    pub fn at(revision: Revision, start: &str) -> Self {
        Self::new(i64::try_from(revision).unwrap_or(-1), start)
    }

    /// Behind this key, as the objects are then.
    #[must_use]
    pub fn inconsistent(start: &str) -> Self {
        Self::new(-1, start)
    }

    fn new(rv: i64, start: &str) -> Self {
        Self {
            v: FORMAT.to_owned(),
            rv,
            start: start.to_owned(),
        }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// 400 for what this server did not write.
    pub fn parse(token: &str) -> Result<Self, Status> {
        URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|json| serde_json::from_slice::<Self>(&json).ok())
            .filter(|continuation| continuation.v == FORMAT)
            .ok_or_else(|| Status::bad_request("continue key is not valid"))
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The state that is read.
    #[must_use]
    pub fn read(&self) -> Read {
        Revision::try_from(self.rv).map_or(Read::Latest, Read::Exact)
    }

    /// The last key that was delivered, without the prefix of the list.
    #[must_use]
    pub fn start(&self) -> &str {
        &self.start
    }
}
