//! Authorization. Until RBAC has its place here: the cluster's administrators, its nodes and its
//! own components may do everything; everybody who is known may read discovery, health and
//! version and ask about himself; service accounts may read about their issuer; and the rest is
//! refused.

use coracle_apimachinery::gvk::GroupResource;
use coracle_apimachinery::status::Status;

use super::tokens::{SERVICE_ACCOUNTS, discovery};
use super::{AUTHENTICATED, MASTERS, NODES, UserInfo};
use crate::request::info::RequestInfo;

/// Users of the control plane's own components.
const COMPONENTS: &[&str] = &[
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
];

/// The verb of who acts as somebody else. Only administrators may: a node would have rights by it
/// that admission keeps from nodes.
pub(super) const IMPERSONATE: &str = "impersonate";

/// Paths that everybody who is known may read.
pub(super) const OPEN: &[&str] = &[
    "/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz",
];

/// Paths that every service account may read.
pub(super) const OF_ISSUER: &[&str] = &[discovery::CONFIGURATION, discovery::KEYS];

/// Questions that everybody who is known may ask, by their groups: each is about who asks.
pub(super) const SELF_REVIEWS: &[(&str, &[&str])] = &[
    ("authentication.k8s.io", &["selfsubjectreviews"]),
    (
        "authorization.k8s.io",
        &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    ),
];

/// Decides.
///
/// # Errors
/// 403 with what was asked for.
pub fn authorize(user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
    let component = user.in_group(NODES) || COMPONENTS.contains(&user.name.as_str());
    let trusted = user.in_group(MASTERS)
        || (component && info.verb != IMPERSONATE)
        || (!info.is_resource && info.is_read_only() && is_open(user, &info.path))
        || (user.in_group(AUTHENTICATED) && asks_about_self(info));
    if trusted {
        Ok(())
    } else {
        Err(denied(user, info))
    }
}

fn is_open(user: &UserInfo, path: &str) -> bool {
    let open = OPEN.iter().any(|open| {
        path.strip_prefix(open)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    open || (user.in_group(SERVICE_ACCOUNTS) && OF_ISSUER.contains(&path))
}

fn asks_about_self(info: &RequestInfo) -> bool {
    info.is_resource
        && info.verb == "create"
        && info.subresource.is_empty()
        && SELF_REVIEWS.iter().any(|(group, resources)| {
            *group == info.group && resources.contains(&info.resource.as_str())
        })
}

fn denied(user: &UserInfo, info: &RequestInfo) -> Status {
    if !info.is_resource {
        let none = GroupResource::new("", "");
        let cause = format!(
            "User {:?} cannot {} path {:?}",
            user.name, info.verb, info.path
        );
        return Status::forbidden(&none, "", cause);
    }
    let resource = GroupResource::new(info.group.clone(), info.full_resource());
    let place = if info.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", info.namespace)
    };
    let cause = format!(
        "User {:?} cannot {} resource {:?} in API group {:?} {place}",
        user.name,
        info.verb,
        info.full_resource(),
        info.group,
    );
    Status::forbidden(&resource, &info.name, cause)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::info::request_info;
    use crate::request::options::Query;

    #[test]
    fn who_may_do_what() {
        let admin = UserInfo::new("admin", &[MASTERS]);
        let node = UserInfo::new("system:node:a", &[NODES]);
        let scheduler = UserInfo::new("system:kube-scheduler", &[]);
        let stranger = UserInfo::new("jane", &["system:authenticated"]);
        let account = UserInfo::new("system:serviceaccount:a:b", &[SERVICE_ACCOUNTS]);
        let cases = [
            (&account, "/openid/v1/jwks", true),
            (&account, "/openid/v1/jwks/x", false),
            (&account, "/.well-known/openid-configuration", true),
            (&account, "/api/v1/pods", false),
            (&stranger, "/openid/v1/jwks", false),
            (&admin, "/api/v1/secrets", true),
            (&node, "/api/v1/pods", true),
            (&scheduler, "/api/v1/pods", true),
            (&stranger, "/api/v1/pods", false),
            (&stranger, "/apis", true),
            (&stranger, "/version", true),
            (&stranger, "/versions", false),
            (&stranger, "/metrics", false),
        ];
        for (user, path, allowed) in cases {
            let info = request_info(&Method::GET, path, false);
            assert_eq!(
                authorize(user, &info).is_ok(),
                allowed,
                "{} {path}",
                user.name
            );
        }
        for (path, allowed) in [
            ("authentication.k8s.io/v1/selfsubjectreviews", true),
            ("authorization.k8s.io/v1/selfsubjectaccessreviews", true),
            ("authorization.k8s.io/v1/selfsubjectrulesreviews", true),
            ("authorization.k8s.io/v1/subjectaccessreviews", false),
            ("authentication.k8s.io/v1/tokenreviews", false),
            ("example.com/v1/selfsubjectreviews", false),
        ] {
            let info = request_info(&Method::POST, &format!("/apis/{path}"), false);
            assert_eq!(authorize(&stranger, &info).is_ok(), allowed, "{path}");
            assert!(authorize(&UserInfo::new("jane", &[]), &info).is_err());
        }
        for (query, what) in [
            ("", "pods"),
            ("fieldSelector=metadata.name%3Dp", "pods \"p\""),
        ] {
            let info = request_info(&Method::GET, "/api/v1/namespaces/a/pods", false);
            let info = info.select(&Query::parse(Some(query)));
            let denied = authorize(&stranger, &info).unwrap_err();
            assert_eq!(denied.code(), 403);
            let cause = "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\"";
            assert_eq!(denied.message(), format!("{what} is forbidden: {cause}"));
        }
    }
}
