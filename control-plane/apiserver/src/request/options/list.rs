//! What is wanted of reads, and how fresh.

use coracle_apimachinery::field::{Error as FieldError, ErrorList, Path};
use coracle_apimachinery::status::Status;

use super::{Query, group_kind};

/// Options of get, list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Label selector, unparsed.
    pub label_selector: String,
    /// Field selector, unparsed.
    pub field_selector: String,
    /// Resource version; `None` where it is absent or empty.
    pub resource_version: Option<u64>,
    /// How the resource version is meant.
    pub version_match: Option<VersionMatch>,
    /// Page size; 0 is no limit.
    pub limit: usize,
    /// Continuation of an earlier list.
    pub continue_token: String,
    /// Whether a watch sends bookmarks.
    pub bookmarks: bool,
    /// Whether a watch begins with the current state.
    pub send_initial_events: Option<bool>,
    /// When a watch ends.
    pub timeout_seconds: Option<u64>,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The state at exactly that version.
    Exact,
    /// Any state that is at least as new.
    NotOlderThan,
}

impl ListOptions {
    /// Reads them.
    ///
    /// # Errors
    /// 400 for values that do not parse, 422 for what and for combinations that Kubernetes refuses.
    pub fn parse(query: &Query, watch: bool) -> Result<Self, Status> {
        let given_match = query.get("resourceVersionMatch").unwrap_or_default();
        let options = Self {
            label_selector: query.text("labelSelector"),
            field_selector: query.text("fieldSelector"),
            resource_version: resource_version(query)?,
            version_match: match given_match {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            limit: usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0),
            continue_token: query.text("continue"),
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: query.flag("sendInitialEvents"),
            timeout_seconds: query
                .number("timeoutSeconds")?
                .and_then(|n| u64::try_from(n).ok()),
        };
        let errors = if watch {
            options.check_watch(given_match)
        } else {
            options.check_list(given_match)
        };
        if !errors.is_empty() {
            return Err(Status::invalid(&group_kind("ListOptions"), "", errors));
        }
        if !options.continue_token.is_empty() && options.resource_version.is_some_and(|v| v != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        Ok(options)
    }

    fn check_watch(&self, given_match: &str) -> ErrorList {
        let at = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::default();
        let matches = !given_match.is_empty();
        if self.send_initial_events.is_some()
            && self.version_match != Some(VersionMatch::NotOlderThan)
        {
            errors.push(FieldError::forbidden(
                &at,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if matches && self.send_initial_events.is_none() {
            errors.push(FieldError::forbidden(
                &at,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if matches && self.version_match != Some(VersionMatch::NotOlderThan) {
            let supported = ["NotOlderThan"];
            errors.push(FieldError::not_supported(&at, given_match, &supported));
        }
        if matches && !self.continue_token.is_empty() {
            errors.push(FieldError::forbidden(&at, MATCH_AND_CONTINUE));
        }
        errors
    }

    fn check_list(&self, given_match: &str) -> ErrorList {
        let at = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::default();
        let matches = !given_match.is_empty();
        if matches && self.resource_version.is_none() {
            errors.push(FieldError::forbidden(
                &at,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if matches && !self.continue_token.is_empty() {
            errors.push(FieldError::forbidden(&at, MATCH_AND_CONTINUE));
        }
        if matches && self.version_match.is_none() {
            let supported = ["Exact", "NotOlderThan", ""];
            errors.push(FieldError::not_supported(&at, given_match, &supported));
        }
        if self.version_match == Some(VersionMatch::Exact) && self.resource_version == Some(0) {
            errors.push(FieldError::forbidden(
                &at,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        if self.send_initial_events.is_some() {
            errors.push(FieldError::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        errors
    }
}

const MATCH_AND_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

/// The resource version of a query; `None` where it is absent or empty. All that a get asks.
///
/// # Errors
/// 400 where it is no number.
pub fn resource_version(query: &Query) -> Result<Option<u64>, Status> {
    match query.get("resourceVersion").unwrap_or_default() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: must be a number"
            ))
        }),
    }
}
