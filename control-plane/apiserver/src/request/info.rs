//! The path and method of a request, understood once: the verb, the resource and the name that
//! authorization, admission and the handlers all speak of.

use coracle_apimachinery::selector::{FieldSelector, Selector};
use http::Method;
use percent_encoding::percent_decode_str;

use crate::registry::strategy::{Descriptor, Subresource};
use crate::request::options::Query;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it names a resource of a group-version; otherwise only `path` and `verb` count.
    pub is_resource: bool,
    /// The path as it came.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for
    /// other paths the method in lower case.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Namespace in the path; for a Namespace itself its own name.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Name of the object, or empty: that of the path, or the one that a list or watch selects.
    pub name: String,
    /// Segments after the subresource.
    pub rest: String,
    /// Whether the path itself asks for a watch (`/api/v1/watch/pods`): nothing else is served there.
    pub watched: bool,
}

impl RequestInfo {
    /// `pods/log`, or `pods`: the resource as authorization names it.
    #[must_use]
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The same, with the name that a list or watch asks for by its field selector. Who may read but
    /// one object may list and watch that one, and it is what the request is about for whoever
    /// audits it. What does not parse is refused later, and names nothing.
    #[must_use]
    pub fn select(mut self, query: &Query) -> Self {
        if self.watched || !matches!(self.verb.as_str(), "list" | "watch") {
            return self;
        }
        let parses = Selector::parse(query.get("labelSelector").unwrap_or_default()).is_ok()
            && query.number("limit").is_ok()
            && query.number("timeoutSeconds").is_ok();
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
        if let Some(name) = fields.unwrap_or_default().exact("metadata.name")
            && parses
            && !matches!(name, "." | "..")
            && !name.contains(['/', '%'])
        {
            name.clone_into(&mut self.name);
        }
        self
    }

    /// Whether its path is that of a collection, of which it may select one object.
    #[must_use]
    pub fn is_of_collection(&self) -> bool {
        let reads = matches!(self.verb.as_str(), "list" | "watch");
        self.name.is_empty() || (reads && !self.watched)
    }

    /// Whether the request may stay open for long: it is not counted against the requests in
    /// flight, nor cut off by a timeout. What its kind does not serve is refused at once.
    #[must_use]
    pub fn is_long_running(&self, kind: Option<&Descriptor>, follow: bool) -> bool {
        let subresource = kind.and_then(|kind| kind.subresource(&self.subresource));
        let lasts = |one: Subresource| one.is_connection() || (one == Subresource::Log && follow);
        self.verb == "watch" || subresource.is_some_and(lasts)
    }

    /// Whether the request changes nothing.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "get" | "list" | "watch" | "head" | "options"
        )
    }
}

/// Understands a request. `watch` says that the query asks for a watch.
#[must_use]
pub fn request_info(method: &Method, path: &str, watch: bool) -> RequestInfo {
    let mut info = RequestInfo {
        path: path.to_owned(),
        verb: method.as_str().to_lowercase(),
        ..RequestInfo::default()
    };
    let segments: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let mut rest: &[String] = match segments.first().map(String::as_str) {
        Some("api") if segments.len() >= 3 => {
            info.version.clone_from(&segments[1]);
            &segments[2..]
        }
        // The core group has no name and another root.
        Some("apis") if segments.len() >= 4 && !segments[1].is_empty() => {
            info.group.clone_from(&segments[1]);
            info.version.clone_from(&segments[2]);
            &segments[3..]
        }
        _ => return info,
    };
    info.is_resource = true;
    // The older way to watch, of one object too: the verb in the path.
    info.watched = rest[0] == "watch" && rest.len() >= 2;
    if info.watched {
        rest = &rest[1..];
    }
    if rest[0] == "namespaces" && rest.len() >= 2 {
        info.namespace.clone_from(&rest[1]);
        // The subresources of a Namespace look like resources in it.
        let of_namespace = rest.len() == 2
            || (info.group.is_empty() && matches!(rest[2].as_str(), "status" | "finalize"));
        if !of_namespace {
            rest = &rest[2..];
        }
    }
    info.resource.clone_from(&rest[0]);
    info.name = rest.get(1).cloned().unwrap_or_default();
    info.subresource = rest.get(2).cloned().unwrap_or_default();
    info.rest = rest.get(3..).unwrap_or_default().join("/");
    info.verb = match *method {
        Method::GET | Method::HEAD if info.watched => "watch",
        _ if info.watched => return info,
        Method::GET | Method::HEAD if !info.name.is_empty() => "get",
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if info.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        _ => return info,
    }
    .to_owned();
    info
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};

    use super::*;

    #[test]
    fn paths_are_understood() {
        let table = [
            ("GET", "/api/v1/pods", false, "list v1 pods - -"),
            ("GET", "/api/v1/pods", true, "watch v1 pods - -"),
            ("GET", "/api/v1/namespaces", false, "list v1 namespaces - -"),
            (
                "GET",
                "/api/v1/namespaces/a",
                false,
                "get v1 namespaces a a",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/status",
                false,
                "update v1 namespaces/status a a",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                false,
                "update v1 namespaces/finalize a a",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods",
                false,
                "create v1 pods a -",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                false,
                "get v1 pods/log a p",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                false,
                "deletecollection v1 pods a -",
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods/p",
                false,
                "delete v1 pods a p",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                false,
                "patch apps/v1 deployments/scale a d",
            ),
            ("GET", "/api/v1/nodes/n%2F1", false, "get v1 nodes - n/1"),
            (
                "GET",
                "/api/v1/namespaces/a/services/https:s:443/proxy/x/status",
                true,
                "get v1 services/proxy a https:s:443",
            ),
            (
                "HEAD",
                "/api/v1/nodes/n/proxy/",
                false,
                "get v1 nodes/proxy - n",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/p/proxy",
                false,
                "create v1 pods/proxy a p",
            ),
            (
                "OPTIONS",
                "/api/v1/namespaces/a/pods/p/proxy",
                false,
                "options v1 pods/proxy a p",
            ),
            ("GET", "/api/v1/watch/pods", false, "watch v1 pods - -"),
            (
                "GET",
                "/apis/apps/v1/watch/namespaces/a/deployments/d",
                false,
                "watch apps/v1 deployments a d",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a",
                false,
                "watch v1 namespaces a a",
            ),
            ("POST", "/api/v1/watch/nodes", false, "post v1 nodes - -"),
        ];
        for (method, path, watch, want) in table {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let info = request_info(&method, path, watch);
            let dash = |s: &str| {
                if s.is_empty() {
                    "-".to_owned()
                } else {
                    s.to_owned()
                }
            };
            let gv = if info.group.is_empty() {
                info.version.clone()
            } else {
                format!("{}/{}", info.group, info.version)
            };
            let got = format!(
                "{} {gv} {} {} {}",
                info.verb,
                info.full_resource(),
                dash(&info.namespace),
                dash(&info.name)
            );
            assert_eq!(got, want, "{path}");
        }
    }

    #[test]
    fn lists_and_watches_are_about_the_object_that_they_select() {
        let one = "fieldSelector=metadata.name%3Da";
        for (method, path, query, want) in [
            ("GET", "/api/v1/pods", one, "a"),
            ("HEAD", "/api/v1/pods", one, "a"),
            (
                "GET",
                "/api/v1/nodes",
                "watch=1&fieldSelector=metadata.name%3D%3Da",
                "a",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=spec.nodeName%3Dn,metadata.name%3Da",
                "a",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3Da&fieldSelector=metadata.name%3Db",
                "a",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name!%3Da",
                "",
            ),
            ("GET", "/api/v1/pods", "fieldSelector=metadata.name%3D", ""),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3Da/b",
                "",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3Da%2525",
                "",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3D..",
                "",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3Da,b",
                "",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3Da&labelSelector=a+b",
                "",
            ),
            (
                "GET",
                "/api/v1/pods",
                "fieldSelector=metadata.name%3Da&limit=x",
                "",
            ),
            ("GET", "/api/v1/pods", "", ""),
            ("GET", "/api/v1/nodes/n", one, "n"),
            ("GET", "/api/v1/watch/nodes", one, ""),
            ("GET", "/api/v1/watch/nodes/n", one, "n"),
            ("DELETE", "/api/v1/namespaces/x/pods", one, ""),
            ("GET", "/version", one, ""),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let query = Query::parse(Some(query));
            let watch = query.flag("watch").unwrap_or(false);
            let info = request_info(&method, path, watch).select(&query);
            assert_eq!(info.name, want, "{method} {path} {query:?}");
            let of_object = path.ends_with("/n");
            assert_eq!(info.is_of_collection(), !of_object, "{path} {query:?}");
        }
    }

    #[test]
    fn what_its_kind_does_not_serve_takes_not_long() {
        let served = [Subresource::Exec, Subresource::Log, Subresource::Proxy];
        let pods = Descriptor::of::<Pod>().subresources(&served);
        let maps = Descriptor::of::<ConfigMap>();
        for (kind, subresource, follow, want) in [
            (Some(&pods), "exec", false, true),
            (Some(&pods), "proxy", false, true),
            (Some(&pods), "proxy/a/log", false, true),
            (Some(&pods), "log", true, true),
            (Some(&pods), "log", false, false),
            (Some(&pods), "attach", false, false),
            (Some(&maps), "exec", false, false),
            (Some(&maps), "proxy", false, false),
            (Some(&maps), "log", true, false),
            (None, "exec", false, false),
        ] {
            let path = format!("/api/v1/namespaces/a/pods/p/{subresource}");
            let info = request_info(&Method::GET, &path, false);
            let plural = kind.map(|kind| &kind.plural);
            let got = info.is_long_running(kind, follow);
            assert_eq!(got, want, "{plural:?} {subresource} {follow}");
        }
        let watch = request_info(&Method::GET, "/api/v1/pods", true);
        assert!(watch.is_long_running(Some(&pods), false));
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis/apps/v1",
            "/version",
            "/healthz",
            "/x/y/z/w",
        ] {
            let info = request_info(&Method::GET, path, false);
            assert!(!info.is_resource, "{path}");
            assert_eq!(info.verb, "get");
        }
    }
}
