//! Why a pass of a controller ended early.

use thiserror::Error;

/// An error of one pass over one object; the work queue tries again with back-off.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("{doing}: {source}")]
    Api {
        /// What the controller was about to do.
        doing: &'static str,
        /// The API's answer.
        source: kube::Error,
    },
    /// The object cannot be worked on as it stands; a change of it starts a new pass.
    #[error("{0}")]
    Object(String),
}

impl Error {
    /// Names what failed; for use with `map_err`.
    pub(crate) fn api(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api { doing, source }
    }

    /// Whether the cache was merely behind what the API server knows: ordinary, and cured by
    /// trying again.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Api { source, .. } if conflict(source) || not_found(source))
    }
}

pub(crate) fn not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

pub(crate) fn conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

pub(crate) fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// Whether a create was refused because its namespace is being deleted: nothing to retry.
pub(crate) fn namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|d| &d.causes);
    causes
        .into_iter()
        .any(|c| c.reason == "NamespaceTerminating")
}

/// What a person should read of an API error: the server's own message.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Turns "it was gone already" into success.
pub(crate) fn ignore_not_found<T>(
    result: Result<T, kube::Error>,
) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
