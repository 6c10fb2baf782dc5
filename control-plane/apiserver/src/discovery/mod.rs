//! Discovery: what is served, in the legacy form (one document for each group-version) and in
//! the aggregated one (`apidiscovery.k8s.io/v2`, everything in two documents).

mod aggregated;
mod legacy;

use std::convert::Infallible;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::handlers::encode::{self, accepted};
use crate::registry::errors::internal;
use crate::registry::lookup::Kinds;
use crate::registry::strategy::{Descriptor, Subresource};
use crate::request::media::accept_clauses;

/// First segments of the paths that the API itself answers.
const OWN: &[&str] = &[
    "",
    ".well-known",
    "api",
    "apis",
    "openapi",
    "openid",
    "version",
    "healthz",
    "livez",
    "readyz",
    "metrics",
    "logs",
    "debug",
];

/// Media type of the aggregated form; clients compare it whole.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether the API itself answers a path.
pub(crate) fn owns(path: &str) -> bool {
    OWN.contains(
        &path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default(),
    )
}

/// Discovery documents. They are made when asked for: clients cache them.
pub(crate) struct Discovery {
    /// `host:port` of this server, as `/api` names it.
    pub(crate) server_address: String,
}

impl Discovery {
    /// Answers a path without a trailing slash.
    pub(crate) fn answer(
        &self,
        headers: &HeaderMap,
        kinds: &Kinds,
        path: &str,
    ) -> Result<Response<Body>, Status> {
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let aggregated = wants_aggregated(headers);
        match segments.as_slice() {
            [] => encode::value(headers, StatusCode::OK, &legacy::paths(kinds)),
            ["api"] if aggregated => respond_aggregated(headers, &aggregated::list(kinds, true)),
            ["apis"] if aggregated => respond_aggregated(headers, &aggregated::list(kinds, false)),
            ["api"] => respond(headers, &legacy::versions(&self.server_address)),
            ["apis"] => respond(headers, &legacy::groups(kinds)),
            ["api", version] => respond_some(headers, legacy::resources(kinds, "", version)),
            ["apis", group] => respond_some(headers, legacy::group(kinds, group)),
            ["apis", group, version] => {
                respond_some(headers, legacy::resources(kinds, group, version))
            }
            _ => Err(Status::unknown_path()),
        }
    }
}

/// Whether the client takes the aggregated form, however much it wants it: a clause without that
/// form is none of this negotiation in Kubernetes.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    accept_clauses(headers).iter().any(|clause| {
        matches!(clause.essence, "application/json" | "application/*" | "*/*")
            && clause.parameter("g") == "apidiscovery.k8s.io"
            && clause.parameter("v") == "v2"
            && clause.parameter("as") == "APIGroupDiscoveryList"
    })
}

fn respond<T: Serialize>(headers: &HeaderMap, document: &T) -> Result<Response<Body>, Status> {
    // Clients offer forms of discovery that are not served beside the plain one.
    let format = accepted(headers)?.format;
    let json =
        serde_json::to_vec(document).map_err(|error| internal("encode discovery", &error))?;
    let body = encode::transcode(format, json.into())?;
    Ok(with_etag(headers, format.media_type(), body))
}

fn respond_some<T: Serialize>(
    headers: &HeaderMap,
    document: Option<T>,
) -> Result<Response<Body>, Status> {
    respond(headers, &document.ok_or_else(Status::unknown_path)?)
}

fn respond_aggregated<T: Serialize>(
    headers: &HeaderMap,
    document: &T,
) -> Result<Response<Body>, Status> {
    let json =
        serde_json::to_vec(document).map_err(|error| internal("encode discovery", &error))?;
    Ok(with_etag(headers, AGGREGATED, json.into()))
}

/// A response that a client may hold on to: 304 if it has the same already.
pub(crate) fn with_etag(
    headers: &HeaderMap,
    media_type: &'static str,
    body: Bytes,
) -> Response<Body> {
    let etag = format!("\"{}\"", hex(&Sha256::digest(&body)));
    let Ok(response) = tagged(headers, media_type, &etag, || Ok::<_, Infallible>(body));
    response
}

/// The same, of something whose tag is known before it is made.
pub(crate) fn tagged<E>(
    headers: &HeaderMap,
    media_type: &'static str,
    etag: &str,
    make: impl FnOnce() -> Result<Bytes, E>,
) -> Result<Response<Body>, E> {
    let mut response = if has(headers, etag) {
        encode::response(StatusCode::NOT_MODIFIED, media_type, Body::empty())
    } else {
        encode::response(StatusCode::OK, media_type, Body::from(make()?))
    };
    let fields = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(etag) {
        fields.insert(ETAG, etag);
    }
    fields.insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Whether the client has what is known by the tag (RFC 9110, `If-None-Match`). Who stands between
/// may have made the tag a weak one, if it has packed what it is of.
fn has(headers: &HeaderMap, etag: &str) -> bool {
    let given = headers.get_all(IF_NONE_MATCH).iter();
    given
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A subresource as discovery and OpenAPI show it.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    /// Whether its kind is another than that of the resource.
    pub(crate) foreign: bool,
    pub(crate) verbs: &'static [&'static str],
}

impl Shown {
    /// Its group and version, where they are not those of the resource: discovery names no others.
    fn other_version(&self, descriptor: &Descriptor) -> Option<(&str, &str)> {
        let own = (&*descriptor.group, &*descriptor.version);
        Some((&*self.group, &*self.version)).filter(|given| *given != own)
    }
}

/// The subresources of a kind, by name.
fn subresources(descriptor: &Descriptor) -> Vec<Shown> {
    let all = descriptor.subresources.iter();
    let mut all: Vec<Shown> = all.map(|part| shown(descriptor, *part)).collect();
    all.sort_by_key(|shown| shown.name);
    all
}

pub(crate) fn shown(descriptor: &Descriptor, subresource: Subresource) -> Shown {
    const CORE: (&str, &str) = ("", "v1");
    let change: &[&str] = &["get", "patch", "update"];
    let connect: &[&str] = &["create", "get"];
    let (foreign, verbs) = match subresource {
        part if part.is_part() => (None, change),
        Subresource::Scale => (Some((("autoscaling", "v1"), "Scale")), change),
        Subresource::Binding => (Some((CORE, "Binding")), &["create"][..]),
        Subresource::Eviction => (Some((("policy", "v1"), "Eviction")), &["create"][..]),
        Subresource::Token => (
            Some((("authentication.k8s.io", "v1"), "TokenRequest")),
            &["create"][..],
        ),
        Subresource::Log => (None, &["get"][..]),
        Subresource::Exec => (Some((CORE, "PodExecOptions")), connect),
        Subresource::Attach => (Some((CORE, "PodAttachOptions")), connect),
        Subresource::PortForward => (Some((CORE, "PodPortForwardOptions")), connect),
        Subresource::Proxy => (
            // Of Pods, Services and Nodes each has a kind of its own.
            Some((CORE, "ProxyOptions")),
            &["create", "delete", "get", "patch", "update"][..],
        ),
        _ => (None, &["update"][..]),
    };
    let own = (&*descriptor.group, &*descriptor.version);
    let ((group, version), kind) = foreign.unwrap_or((own, &descriptor.kind));
    let of = match subresource {
        Subresource::Proxy => &*descriptor.kind,
        _ => "",
    };
    Shown {
        name: subresource.name(),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: format!("{of}{kind}"),
        foreign: foreign.is_some(),
        verbs,
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn the_aggregated_form_is_served_to_whoever_takes_it() {
        let beta = AGGREGATED.replace("v=v2", "v=v2beta1");
        for (accept, want) in [
            (AGGREGATED.to_owned(), true),
            (format!("{AGGREGATED},application/json"), true),
            // A form that is gone, and the plain one, are passed over.
            (format!("{beta},{AGGREGATED},application/json"), true),
            (format!("application/json,{AGGREGATED};q=0.1"), true),
            (AGGREGATED.replace("application/json", "*/*"), true),
            (format!("{AGGREGATED};q=0,application/json"), false),
            (format!("{beta},application/json"), false),
            (AGGREGATED.replace("apidiscovery", "meta"), false),
            ("application/json".to_owned(), false),
            ("*/*".to_owned(), false),
            (String::new(), false),
        ] {
            let value = HeaderValue::try_from(&accept).expect("a header");
            let headers = HeaderMap::from_iter([(ACCEPT, value)]);
            assert_eq!(wants_aggregated(&headers), want, "{accept}");
        }
    }
}
