//! pods/proxy, services/proxy and nodes/proxy: HTTP of any method to a Pod, to one behind a Service,
//! or to the kubelet of a node, on behalf of whoever may do that.
//!
//! | module | decides |
//! |---|---|
//! | [`name`] | what `https:web:443` is |
//! | [`endpoints`] | which address and port may be meant |
//! | [`path`], [`links`], [`html`] | where paths lead, and links back |
//! | [`headers`] | who hears what |
//!
//! [`target`] looks it up and opens a stream there, [`page`] rewrites bodies on their way. Of
//! authorization it is `get`, `create`, `update`, `patch` or `delete` of the subresource, by the method.
//!
//! Bodies are carried as they come in both directions, and for as long as both sides want; a client
//! that goes takes the connection along. A connection is used for one request: whoever may use a proxy
//! gets no connection of somebody else's.
//!
//! Where Kubernetes is stricter or laxer: ports of Pods may be named; escapes in paths and the queries
//! of upgrades are passed on. Pages compressed by `deflate` are not rewritten.

mod endpoints;
mod headers;
mod html;
mod links;
mod name;
mod page;
mod path;
mod target;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, LOCATION, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Call, streaming, websocket};
use crate::exchange::exchange;
use links::Links;
use page::Coding;
use target::{Target, unreachable};

/// How long the way to the other side may take, until a request can be sent.
const OPEN: Duration = Duration::from_secs(30);

/// Answers by what the other side answers.
pub(super) async fn answer(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let parts = call.parts;
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let is_known = matches!(
        parts.method,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS
    );
    if !is_read && !is_known {
        return Err(call.refuse());
    }
    if call.query.get("dryRun").is_some() {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    let target = target::find(call).await?;
    let is_namespaced = call.kind.descriptor().is_namespaced();
    let (prefix, rest) = path::split(parts.uri.path(), if is_namespaced { 7 } else { 5 });
    let is_upgrade = headers::upgrade(&parts.headers).is_some();
    if rest.is_empty() && is_read && !is_upgrade {
        return Ok(moved_below(&prefix, parts.uri.query()));
    }
    // Nothing is begun for a client that could not be connected with it.
    let client = is_upgrade.then(|| websocket::upgrade(call)).transpose()?;
    let (request, links) = request(call, &target, prefix, &path::clean(rest), body)?;

    let answered = async {
        let opened = timeout(OPEN, target.open(call.server)).await;
        let stream = opened.map_err(|_| "i/o timeout".to_owned())??;
        exchange(stream, request)
            .await
            .map_err(|error| with_cause(&error))
    };
    let answered = call.server.stopping.run_until_cancelled(answered).await;
    let answered = answered.unwrap_or_else(|| Err("the server is shutting down".to_owned()));
    let answered = answered.map_err(|cause| {
        tracing::debug!(path = call.info.path, cause, "a proxy leads nowhere");
        unreachable(cause)
    })?;
    let status = answered.status();
    match client {
        Some(client) if status == StatusCode::SWITCHING_PROTOCOLS => {
            let response = upgraded(answered.headers());
            streaming::join(call.server, client, answered);
            Ok(response)
        }
        // What is wrong with the request is told as it is.
        Some(_) if status.as_u16() < 400 => Err(Status::internal(format!(
            "invalid upgrade response: status code {}",
            status.as_u16()
        ))),
        None if status == StatusCode::SWITCHING_PROTOCOLS => {
            Err(unreachable("the connection was upgraded unasked"))
        }
        _ => Ok(carried(answered, links, parts.method == Method::HEAD)),
    }
}

/// Without a path relative links would lead astray: it is the root that is meant.
fn moved_below(prefix: &str, query: Option<&str>) -> Response<Body> {
    let query = query.map(|query| format!("?{query}"));
    let location = format!("{prefix}/{}", query.unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_bytes(location.as_bytes()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// The request for the other side, and how links of its answer lead back.
fn request(
    call: &Call<'_>,
    target: &Target,
    prefix: String,
    path: &str,
    body: Body,
) -> Result<(Request<Body>, Links), Status> {
    let parts = call.parts;
    let asked = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = asked.or_else(|| parts.uri.authority().map(|host| host.as_str()));
    let asked = asked.unwrap_or(&target.authority).to_owned();
    let uri = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let client = parts.extensions.get::<SocketAddr>().map(SocketAddr::ip);
    let mut headers = headers::to_backend(&parts.headers, client, &format!("{prefix}{path}"));
    let malformed = |error: http::Error| Status::bad_request(error);
    let host = HeaderValue::from_str(&asked).map_err(|error| malformed(error.into()))?;
    headers.insert(HOST, host);
    let request = Request::builder().method(parts.method.clone()).uri(uri);
    let mut request = request.body(body).map_err(malformed)?;
    *request.headers_mut() = headers;
    let links = Links {
        prefix,
        origin: target.authority.clone(),
        asked,
    };
    Ok((request, links))
}

/// What a client is told whose connection becomes the other side's.
fn upgraded(headers: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers.clone();
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    response
}

/// The answer for the client, whose body comes as the other side sends it.
fn carried(answered: Response<Incoming>, links: Links, is_head: bool) -> Response<Body> {
    let (parts, body) = answered.into_parts();
    let mut headers = parts.headers;
    headers::to_client(&mut headers);
    let mut body = Body::new(body);
    let location = headers.get(LOCATION).map(|location| location.to_str());
    let is_part = parts.status == StatusCode::PARTIAL_CONTENT;
    match (location, Coding::of_page(&headers)) {
        (Some(location), _) => {
            let rewritten = location.ok().and_then(|location| links.rewrite(location));
            if let Some(Ok(location)) = rewritten.map(HeaderValue::try_from) {
                headers.insert(LOCATION, location);
            }
        }
        (None, Some(coding)) if !is_part => {
            headers.remove(CONTENT_LENGTH);
            if !is_head {
                body = page::rewritten(body, links, coding);
            }
        }
        _ => {}
    }
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    response
}

/// What went wrong with a connection, and why.
fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_path_moves_to_the_root() {
        for (query, want) in [
            (None, "/api/v1/nodes/n/proxy/"),
            (Some("a=b&c"), "/api/v1/nodes/n/proxy/?a=b&c"),
        ] {
            let moved = moved_below("/api/v1/nodes/n/proxy", query);
            assert_eq!(moved.status(), 301);
            assert_eq!(moved.headers()[LOCATION], want);
        }
    }
}
