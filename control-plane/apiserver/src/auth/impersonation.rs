//! Impersonation: a request says in headers as whom it is to be treated, if its sender may have that.
//! From there on it is that one's, for flow control, authorization, admission and managed fields.
//!
//! Each thing that the headers say is authorized by itself, as the verb `impersonate` on users,
//! service accounts, groups, uids and whatever else is known of somebody.

use std::collections::BTreeMap;

use coracle_apimachinery::status::Status;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::authorization::{IMPERSONATE, authorize};
use super::tokens::SERVICE_ACCOUNTS;
use super::{AUTHENTICATED, UserInfo};
use crate::request::info::RequestInfo;

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
/// A key follows, in percent-encoding.
const EXTRA: &str = "impersonate-extra-";

const ACCOUNT: &str = "system:serviceaccount:";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// The group of what the server says of users.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Takes the headers of impersonation out of a request. Returns as whom it is to be treated, where
/// they say so.
///
/// # Errors
/// 400 where they name nobody, 403 where the user may not be what they say.
pub(crate) fn impersonate(
    user: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let names = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX));
    let names: Vec<HeaderName> = names.cloned().collect();
    if names.is_empty() {
        return Ok(None);
    }
    let mut wanted = wanted(headers, &names);
    for name in names {
        headers.remove(name);
    }
    if wanted.name.is_empty() {
        if wanted == UserInfo::default() {
            return Ok(None);
        }
        return Err(Status::bad_request(
            "groups, a uid or extra values were requested without impersonating a user",
        ));
    }
    for part in parts(&wanted) {
        authorize(user, &part)?;
    }
    complete(&mut wanted);
    Ok(Some(wanted))
}

/// Whom the headers describe.
fn wanted(headers: &HeaderMap, names: &[HeaderName]) -> UserInfo {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let all = |name: &str| headers.get_all(name).iter().map(text).collect::<Vec<_>>();
    let one = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for name in names.iter().map(HeaderName::as_str) {
        if let Some(key) = name.strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            // A key may be written in several ways.
            extra.entry(key).or_default().extend(all(name));
        }
    }
    UserInfo {
        name: one(USER),
        uid: one(UID),
        groups: all(GROUP),
        extra,
    }
}

/// The namespace and the name of a service account, by the name of its user.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    let whole = !namespace.is_empty() && !name.is_empty() && !name.contains(':');
    whole.then_some((namespace, name))
}

/// What must be allowed, each by itself.
fn parts(wanted: &UserInfo) -> Vec<RequestInfo> {
    let part = |group: &str, resource: &str, name: &str| RequestInfo {
        is_resource: true,
        verb: IMPERSONATE.to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    };
    let who = match account(&wanted.name) {
        Some((namespace, name)) => RequestInfo {
            namespace: namespace.to_owned(),
            ..part("", "serviceaccounts", name)
        },
        None => part("", "users", &wanted.name),
    };
    let mut parts = vec![who];
    parts.extend(wanted.groups.iter().map(|name| part("", "groups", name)));
    for (key, values) in &wanted.extra {
        parts.extend(values.iter().map(|value| RequestInfo {
            subresource: key.clone(),
            ..part(AUTHENTICATION, "userextras", value)
        }));
    }
    if !wanted.uid.is_empty() {
        parts.push(part(AUTHENTICATION, "uids", &wanted.uid));
    }
    parts
}

/// Adds the groups that somebody has without being told of.
fn complete(wanted: &mut UserInfo) {
    if let Some((namespace, _)) = account(&wanted.name)
        && wanted.groups.is_empty()
    {
        let of_namespace = format!("{SERVICE_ACCOUNTS}:{namespace}");
        wanted.groups = vec![SERVICE_ACCOUNTS.to_owned(), of_namespace];
    }
    let known = wanted.name != ANONYMOUS;
    let decided = wanted.in_group(UNAUTHENTICATED) || (known && wanted.in_group(AUTHENTICATED));
    if !decided {
        let group = if known {
            AUTHENTICATED
        } else {
            UNAUTHENTICATED
        };
        wanted.groups.push(group.to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::{MASTERS, NODES};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn headers_say_who_somebody_is() {
        let admin = UserInfo::new("admin", &[MASTERS]);
        let table: [(&[(&str, &str)], UserInfo); 5] = [
            (
                &[(USER, "jane")],
                UserInfo::new("jane", &["system:authenticated"]),
            ),
            (
                &[(USER, "jane"), (GROUP, "a"), (GROUP, "b")],
                UserInfo::new("jane", &["a", "b", "system:authenticated"]),
            ),
            (
                &[(USER, "system:serviceaccount:ns:sa")],
                UserInfo::new(
                    "system:serviceaccount:ns:sa",
                    &[
                        "system:serviceaccounts",
                        "system:serviceaccounts:ns",
                        "system:authenticated",
                    ],
                ),
            ),
            (
                &[(USER, "system:anonymous")],
                UserInfo::new("system:anonymous", &["system:unauthenticated"]),
            ),
            (
                &[(USER, "jane"), (GROUP, "system:unauthenticated")],
                UserInfo::new("jane", &["system:unauthenticated"]),
            ),
        ];
        for (lines, want) in table {
            let mut headers = headers(lines);
            headers.append("accept", HeaderValue::from_static("*/*"));
            let got = impersonate(&admin, &mut headers).unwrap();
            assert_eq!(got, Some(want), "{lines:?}");
            assert_eq!(headers.len(), 1, "{lines:?}");
        }
        let more = [
            (USER, "jane"),
            (UID, "7"),
            ("impersonate-extra-a%2fb", "x"),
            ("impersonate-extra-a%2fb", "y"),
            ("impersonate-extra-%61%2fb", "z"),
        ];
        let got = impersonate(&admin, &mut headers(&more)).unwrap().unwrap();
        assert_eq!(got.uid, "7");
        let mut values = got.extra["a/b"].clone();
        values.sort();
        assert_eq!(values, ["x", "y", "z"]);
        assert_eq!(impersonate(&admin, &mut HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn nobody_is_somebody_else_who_may_not() {
        let admin = UserInfo::new("admin", &[MASTERS]);
        for lines in [[(GROUP, "a")], [(UID, "7")], [("impersonate-extra-a", "b")]] {
            let refused = impersonate(&admin, &mut headers(&lines)).unwrap_err();
            assert_eq!(refused.code(), 400, "{lines:?}");
        }
        for user in [
            UserInfo::new("system:node:a", &[NODES]),
            UserInfo::new("system:kube-scheduler", &[]),
            UserInfo::new("jane", &[AUTHENTICATED]),
        ] {
            let refused = impersonate(&user, &mut headers(&[(USER, "admin")])).unwrap_err();
            assert_eq!(refused.code(), 403, "{}", user.name);
            assert!(
                refused
                    .message()
                    .contains("cannot impersonate resource \"users\""),
                "{}",
                refused.message()
            );
        }
    }
}
