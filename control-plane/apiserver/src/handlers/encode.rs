//! Objects and Statuses into responses.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use coracle_store::Record;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response, StatusCode};

use super::{Call, shapes};
use crate::registry::Outcome;
use crate::registry::errors::internal;
use crate::request::media::{Accepted, Format, negotiate};

/// Media types that are served.
pub(crate) const SERVED: &[&str] = &["application/json", "application/yaml"];

/// What the client wants, or 406.
pub(crate) fn accepted(headers: &HeaderMap) -> Result<Accepted, Status> {
    negotiate(headers).ok_or_else(|| Status::not_acceptable(SERVED))
}

/// A response of JSON, or of YAML made from it.
pub(crate) fn respond(
    code: StatusCode,
    format: Format,
    json: Bytes,
) -> Result<Response<Body>, Status> {
    let body = match format {
        Format::Json => json,
        Format::Yaml => to_yaml(&json)?,
    };
    Ok(response(code, format.media_type(), Body::from(body)))
}

/// A response with these media type and body.
pub(crate) fn response(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A value of ours as a response.
pub(crate) fn value<T: serde::Serialize>(
    headers: &HeaderMap,
    code: StatusCode,
    value: &T,
) -> Result<Response<Body>, Status> {
    let accepted = accepted(headers)?;
    let json = serde_json::to_vec(value).map_err(|error| internal("encode a response", &error))?;
    respond(code, accepted.format, json.into())
}

fn to_yaml(json: &[u8]) -> Result<Bytes, Status> {
    let failed = |error: &dyn std::error::Error| internal("encode YAML", error);
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|error| failed(&error))?;
    let yaml = serde_yaml::to_string(&value).map_err(|error| failed(&error))?;
    Ok(yaml.into())
}

/// One object, in the shape that the client wants.
pub(super) fn object(
    call: &Call<'_>,
    code: StatusCode,
    record: &Record,
) -> Result<Response<Body>, Status> {
    let accepted = accepted(&call.parts.headers)?;
    let include = shapes::Include::parse(call.query)?;
    let json = shapes::single(&**call.kind, record, accepted.shape, include)?;
    respond(code, accepted.format, json)
}

/// The result of a mutation.
pub(super) fn outcome(call: &Call<'_>, outcome: Outcome) -> Result<Response<Body>, Status> {
    let code = if outcome.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = object(call, code, &outcome.record)?;
    warn(response.headers_mut(), &outcome.warnings);
    Ok(response)
}

/// Adds warnings, in the form of RFC 7234.
pub(super) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| {
                let escape = matches!(c, '"' | '\\').then_some('\\');
                escape.into_iter().chain([c])
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(WARNING, value);
        }
    }
}

/// A Status as a response: in YAML if that is what the client accepts, else in JSON.
pub(crate) fn status(headers: &HeaderMap, status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let format = negotiate(headers).map_or(Format::Json, |accepted| accepted.format);
    let json = Bytes::from(status.to_json());
    let mut response = respond(code, format, json.clone())
        .unwrap_or_else(|_| response(code, Format::Json.media_type(), Body::from(json)));
    if let Some(seconds) = status.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
