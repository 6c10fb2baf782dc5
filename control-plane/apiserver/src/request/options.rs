//! The options of the verbs, from the query (and for delete from the body).

use std::time::Duration;

use coracle_apimachinery::field::{Error as FieldError, ErrorList, Path};
use coracle_apimachinery::gvk::GroupKind;
use coracle_apimachinery::status::Status;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use url::form_urlencoded;

/// A query, in the order in which it came.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string. Nothing is malformed: what is not known is ignored, as in
    /// Kubernetes.
    #[must_use]
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value, or the empty string.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// A flag. As in Kubernetes everything but `false` and `0` switches it on.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<bool> {
        let value = self.get(name)?;
        Some(!(value.eq_ignore_ascii_case("false") || value == "0"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 where it is none.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(value) = self.get(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "invalid value for {name}: {value:?} is not a number"
            ))
        })
    }
}

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
        let options = Self {
            label_selector: query.text("labelSelector"),
            field_selector: query.text("fieldSelector"),
            resource_version: resource_version(query)?,
            version_match: match query.get("resourceVersionMatch").unwrap_or_default() {
                "" => None,
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                other => {
                    let at = Path::new("resourceVersionMatch");
                    let supported = ["Exact", "NotOlderThan"];
                    let error = FieldError::not_supported(&at, other, &supported);
                    return Err(invalid("ListOptions", error));
                }
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
            options.check_watch()
        } else {
            options.check_list()
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

    fn check_watch(&self) -> ErrorList {
        let at = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::default();
        let matches = self.version_match.is_some();
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
        if matches && !self.continue_token.is_empty() {
            errors.push(FieldError::forbidden(&at, MATCH_AND_CONTINUE));
        }
        errors
    }

    fn check_list(&self) -> ErrorList {
        let at = Path::new("resourceVersionMatch");
        let mut errors = ErrorList::default();
        let matches = self.version_match.is_some();
        if matches && self.resource_version.is_none() {
            errors.push(FieldError::forbidden(
                &at,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if matches && !self.continue_token.is_empty() {
            errors.push(FieldError::forbidden(&at, MATCH_AND_CONTINUE));
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

fn group_kind(options: &str) -> GroupKind {
    GroupKind::new("meta.k8s.io".to_owned(), options.to_owned())
}

/// 422: options of this kind have a fault.
fn invalid(options: &str, error: FieldError) -> Status {
    Status::invalid(&group_kind(options), "", vec![error])
}

/// How long a request may take that does not last: what its `timeout` says (`1m30s`, as Go writes
/// it), but no longer than the server lets it. 0 leaves it to the server.
///
/// # Errors
/// 400 for a timeout that does not parse.
pub fn deadline(query: &Query, longest: Duration) -> Result<Duration, Status> {
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else {
        return Ok(longest);
    };
    // A number without a unit is none, but for 0.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let asked = match text {
        "0" => Some(SignedDuration::ZERO),
        _ if digits => None,
        _ => text.parse::<SignedDuration>().ok(),
    };
    let Some(asked) = asked else {
        return Err(Status::bad_request(format!(
            "invalid timeout specified in the request URL: {text:?}"
        )));
    };
    let asked = Duration::try_from(asked).unwrap_or(Duration::ZERO);
    Ok(if asked.is_zero() {
        longest
    } else {
        asked.min(longest)
    })
}

/// How unknown and duplicate fields of a body are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Silently dropped.
    Ignore,
    /// Dropped, and told of in a Warning header.
    #[default]
    Warn,
    /// Refused with 400.
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Everything is done but the writing.
    pub dry_run: bool,
    /// How unknown fields are met.
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// Reads those of a verb.
    ///
    /// # Errors
    /// 422 for values that are not known.
    pub fn parse(query: &Query, verb: &str) -> Result<Self, Status> {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            _ => "PatchOptions",
        };
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let at = Path::new("fieldValidation");
                let supported = ["Ignore", "Strict", "Warn"];
                let error = FieldError::not_supported(&at, other, &supported);
                return Err(invalid(kind, error));
            }
        };
        Ok(Self {
            dry_run: dry_run(kind, query.all("dryRun"))?,
            field_validation,
        })
    }
}

fn dry_run<'a>(kind: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values {
        match value {
            "" => {}
            "All" => dry = true,
            other => {
                let error = FieldError::not_supported(&Path::new("dryRun"), other, &["All"]);
                return Err(invalid(kind, error));
            }
        }
    }
    Ok(dry)
}

/// What becomes of the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without the owner.
    Orphan,
    /// They go afterwards.
    Background,
    /// They go first.
    Foreground,
}

const DELETE_OPTIONS: &str = "DeleteOptions";

/// Options of delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteRequest {
    /// Seconds until the object is gone; `None` leaves it to the kind.
    pub grace_period: Option<i64>,
    /// What becomes of dependents; `None` leaves it to the kind.
    pub propagation: Option<Propagation>,
    /// UID that the object must have.
    pub uid: Option<String>,
    /// Resource version that the object must have.
    pub resource_version: Option<String>,
    /// Everything is done but the writing.
    pub dry_run: bool,
}

impl DeleteRequest {
    /// Reads them from the query and the body; where there is a body it alone counts, as in
    /// Kubernetes.
    ///
    /// # Errors
    /// 400 for values that do not parse, 422 for those that are not known.
    pub fn parse(query: &Query, body: Option<DeleteOptions>) -> Result<Self, Status> {
        let options = match body {
            Some(body) => body,
            None => DeleteOptions {
                grace_period_seconds: query.number("gracePeriodSeconds")?,
                propagation_policy: query.get("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.flag("orphanDependents"),
                dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
                ..DeleteOptions::default()
            },
        };
        Self::from_options(options)
    }

    /// Checks the options of the API.
    ///
    /// # Errors
    /// 400 for values that do not parse, 422 for those that are not known.
    pub fn from_options(options: DeleteOptions) -> Result<Self, Status> {
        let policy = options.propagation_policy.as_deref();
        let propagation = match (policy, options.orphan_dependents) {
            (Some(_), Some(_)) => {
                let at = Path::new("propagationPolicy");
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                let error = FieldError::invalid(&at, policy.unwrap_or_default(), detail);
                return Err(invalid(DELETE_OPTIONS, error));
            }
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let at = Path::new("propagationPolicy");
                let supported = ["Background", "Foreground", "Orphan"];
                let error = FieldError::not_supported(&at, other, &supported);
                return Err(invalid(DELETE_OPTIONS, error));
            }
            (None, None) => None,
        };
        if options
            .grace_period_seconds
            .is_some_and(|seconds| seconds < 0)
        {
            // What the API once took for "now": one second.
            return Self::from_options(DeleteOptions {
                grace_period_seconds: Some(1),
                ..options
            });
        }
        let dry = options.dry_run.unwrap_or_default();
        let preconditions = options.preconditions.unwrap_or_default();
        Ok(Self {
            grace_period: options.grace_period_seconds,
            propagation,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run: dry_run(DELETE_OPTIONS, dry.iter().map(String::as_str))?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn list_options_that_are_refused() {
        let refused = [
            ("resourceVersion=x", 400),
            ("limit=x", 400),
            ("resourceVersion=3&continue=abc", 400),
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersionMatch=NotOlderThan", 422),
            ("resourceVersionMatch=Newest&resourceVersion=1", 422),
            ("resourceVersionMatch=Exact&resourceVersion=0", 422),
            (
                "resourceVersionMatch=NotOlderThan&resourceVersion=1&continue=abc",
                422,
            ),
            ("sendInitialEvents=true", 422),
        ];
        for (query, code) in refused {
            let error = ListOptions::parse(&Query::parse(Some(query)), false).unwrap_err();
            assert_eq!(error.code(), code, "{query}");
        }
        for query in [
            "sendInitialEvents=true",
            "sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1",
            "resourceVersionMatch=NotOlderThan",
        ] {
            let error = ListOptions::parse(&Query::parse(Some(query)), true).unwrap_err();
            assert_eq!(error.code(), 422, "{query}");
        }
        let query = Query::parse(Some(
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        ));
        assert!(ListOptions::parse(&query, true).is_ok());
    }

    #[test]
    fn a_request_may_ask_for_less_time_but_not_for_more() {
        let table = [
            ("", Some(60_000)),
            ("timeout=", Some(60_000)),
            ("timeout=0", Some(60_000)),
            ("timeout=0s", Some(60_000)),
            ("timeout=-3s", Some(60_000)),
            ("timeout=5s", Some(5000)),
            ("timeout=500ms", Some(500)),
            ("timeout=1.5s", Some(1500)),
            ("timeout=2m", Some(60_000)),
            ("timeout=5", None),
            ("timeout=soon", None),
        ];
        for (query, want) in table {
            let query = Query::parse(Some(query));
            let deadline = deadline(&query, Duration::from_secs(60));
            let got = deadline.as_ref().ok().map(Duration::as_millis);
            assert_eq!(got, want, "{query:?}");
            assert!(deadline.is_ok() || deadline.unwrap_err().code() == 400);
        }
    }

    #[test]
    fn flags() {
        let query = Query::parse(Some("a=true&b=0&c=False&d="));
        let flags: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|name| query.flag(name))
            .into();
        assert_eq!(
            flags,
            [Some(true), Some(false), Some(false), Some(true), None]
        );
    }

    #[test]
    fn delete_options() {
        let parse = |query| DeleteRequest::parse(&Query::parse(Some(query)), None);
        assert_eq!(
            parse("propagationPolicy=Foreground").unwrap().propagation,
            Some(Propagation::Foreground)
        );
        assert_eq!(
            parse("orphanDependents=true").unwrap().propagation,
            Some(Propagation::Orphan)
        );
        assert_eq!(
            parse("gracePeriodSeconds=-1").unwrap().grace_period,
            Some(1)
        );
        assert!(parse("dryRun=All").unwrap().dry_run);
        for (refused, code) in [
            ("propagationPolicy=x", 422),
            ("propagationPolicy=Orphan&orphanDependents=true", 422),
            ("dryRun=x", 422),
            ("gracePeriodSeconds=x", 400),
        ] {
            assert_eq!(parse(refused).unwrap_err().code(), code, "{refused}");
        }
    }
}
