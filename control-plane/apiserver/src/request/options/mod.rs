//! The options of the verbs, from the query (and for delete from the body).

mod list;
mod write;

use std::time::Duration;

use coracle_apimachinery::gvk::GroupKind;
use coracle_apimachinery::status::Status;
use jiff::SignedDuration;
use url::form_urlencoded;

pub use list::{ListOptions, VersionMatch, resource_version};
pub use write::{DeleteRequest, FieldValidation, Propagation, WriteOptions};

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

fn group_kind(options: &str) -> GroupKind {
    GroupKind::new("meta.k8s.io".to_owned(), options.to_owned())
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
    fn every_fault_of_write_options_is_told() {
        let parse = |query| WriteOptions::parse(&Query::parse(Some(query)), "create");
        for query in ["", "dryRun=All&dryRun=All&fieldValidation="] {
            assert_eq!(parse(query).unwrap().dry_run, !query.is_empty(), "{query}");
        }
        for (query, shown) in [
            ("dryRun=&fieldValidation=x", r#"[""]"#),
            ("dryRun=All&dryRun=x&fieldValidation=x", r#"["All","x"]"#),
        ] {
            let status = parse(query).unwrap_err().into_api();
            let details = status.details.unwrap();
            assert_eq!(details.kind.as_deref(), Some("CreateOptions"));
            let causes = details.causes.unwrap();
            let fields: Vec<_> = causes.iter().map(|c| c.field.as_deref().unwrap()).collect();
            assert_eq!(fields, ["dryRun", "fieldValidation"], "{query}");
            let message = causes[0].message.as_deref().unwrap();
            let want = format!("Unsupported value: {shown}: supported values: \"All\"");
            assert!(message.ends_with(&want), "{query}: {message}");
        }
    }

    #[test]
    fn every_fault_of_list_options_is_told() {
        type Case = (&'static str, bool, &'static [&'static str]);
        let cases: [Case; 4] = [
            (
                "resourceVersionMatch=Newest",
                false,
                &[
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    "Unsupported value: \"Newest\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
                ],
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0&sendInitialEvents=true",
                false,
                &[
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    "sendInitialEvents is forbidden for list",
                ],
            ),
            (
                "resourceVersionMatch=Exact",
                true,
                &[
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
                ],
            ),
            (
                "sendInitialEvents=false",
                true,
                &["sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"],
            ),
        ];
        for (query, watch, want) in cases {
            let error = ListOptions::parse(&Query::parse(Some(query)), watch).unwrap_err();
            let causes = error.into_api().details.unwrap().causes.unwrap();
            assert_eq!(causes.len(), want.len(), "{query}: {causes:?}");
            for (cause, want) in causes.iter().zip(want) {
                let message = cause.message.as_deref().unwrap();
                assert!(message.ends_with(want), "{query}: {message}");
            }
        }
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
        for (query, uid, version) in [
            ("uid=a&resourceVersion=7", Some("a"), Some("7")),
            ("uid=&resourceVersion=", None, None),
            ("", None, None),
        ] {
            let demanded = parse(query).unwrap();
            assert_eq!(demanded.uid.as_deref(), uid, "{query}");
            assert_eq!(demanded.resource_version.as_deref(), version, "{query}");
        }
        let body = DeleteRequest::parse(
            &Query::parse(Some("uid=a&resourceVersion=7")),
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions::default()),
        )
        .unwrap();
        assert_eq!((body.uid, body.resource_version), (None, None));
        for (refused, code) in [
            ("propagationPolicy=x", 422),
            ("propagationPolicy=Orphan&orphanDependents=true", 422),
            ("dryRun=x", 422),
            ("dryRun=", 422),
            ("gracePeriodSeconds=x", 400),
        ] {
            assert_eq!(parse(refused).unwrap_err().code(), code, "{refused}");
        }
        let refused = parse("propagationPolicy=x&orphanDependents=true&dryRun=x").unwrap_err();
        let causes = refused.into_api().details.unwrap().causes.unwrap();
        let fields: Vec<_> = causes.iter().map(|c| c.field.as_deref().unwrap()).collect();
        assert_eq!(fields, ["propagationPolicy", "propagationPolicy", "dryRun"]);
    }
}
