//! Objects and Statuses into responses.

use std::collections::HashSet;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use coracle_apimachinery::{cbor, protobuf};
use coracle_store::Record;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Response, StatusCode};

use super::{Call, shapes};
use crate::registry::Outcome;
use crate::registry::errors::internal;
use crate::registry::strategy::Descriptor;
use crate::request::media::{Accepted, Format, Offer, negotiate};

/// Media types that are served.
pub(crate) const SERVED: &[&str] = &[
    "application/json",
    "application/yaml",
    protobuf::MEDIA_TYPE,
    cbor::MEDIA_TYPE,
];

/// The same where there is no protobuf form.
const WITHOUT_PROTOBUF: &[&str] = &["application/json", "application/yaml", cbor::MEDIA_TYPE];

/// Media types of watches.
const STREAMS: &[&str] = &[
    "application/json;stream=watch",
    protobuf::WATCH_MEDIA_TYPE,
    cbor::WATCH_MEDIA_TYPE,
];

fn choose(headers: &HeaderMap, offer: Offer) -> Result<Accepted, Status> {
    negotiate(headers, offer).ok_or_else(|| {
        Status::not_acceptable(match offer {
            Offer { watch: true, .. } => STREAMS,
            Offer { protobuf: true, .. } => SERVED,
            Offer { .. } => WITHOUT_PROTOBUF,
        })
    })
}

/// What the client wants of a kind that has all forms, or 406.
pub(crate) fn accepted(headers: &HeaderMap) -> Result<Accepted, Status> {
    let offer = Offer {
        protobuf: true,
        watch: false,
    };
    choose(headers, offer)
}

/// What the client wants of the call's kind, or 406.
pub(super) fn accepted_of(call: &Call<'_>, watch: bool) -> Result<Accepted, Status> {
    let offer = Offer {
        protobuf: protobuf_kind(call.kind.descriptor()).is_some(),
        watch,
    };
    choose(&call.parts.headers, offer)
}

/// The protobuf form of a kind.
pub(super) fn protobuf_kind(descriptor: &Descriptor) -> Option<protobuf::Kind> {
    protobuf::Kind::find(&descriptor.api_version(), &descriptor.kind)
}

/// A response of JSON, or of another format made from it.
pub(crate) fn respond(
    code: StatusCode,
    format: Format,
    json: Bytes,
) -> Result<Response<Body>, Status> {
    let body = transcode(format, json)?;
    Ok(response(code, format.media_type(), Body::from(body)))
}

/// JSON of an object in another format.
pub(crate) fn transcode(format: Format, json: Bytes) -> Result<Bytes, Status> {
    match format {
        Format::Json => Ok(json),
        Format::Yaml => to_yaml(&json),
        Format::Protobuf => protobuf::Kind::of(&json)
            .and_then(|kind| kind.encode(&json))
            .map(Bytes::from)
            .map_err(|error| internal("encode protobuf", &error)),
        Format::Cbor => cbor::from_json(&json)
            .map(Bytes::from)
            .map_err(|error| internal("encode CBOR", &error)),
    }
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
    let json = serde_json::to_vec(value).map_err(|error| internal("encode a response", &error))?;
    let offer = Offer {
        protobuf: protobuf::Kind::of(&json).is_ok(),
        watch: false,
    };
    let accepted = choose(headers, offer)?;
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
    let accepted = accepted_of(call, false)?;
    let include = shapes::Include::parse(call.query, accepted.shape)?;
    let json = shapes::single(&**call.kind, record.into(), accepted.shape, include)?;
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

/// Characters of all warnings together; clients bound the headers that they read.
const MAX_WARNINGS: usize = 4096;

/// Characters of one warning where all together are too many.
const MAX_WARNING: usize = 256;

/// Adds warnings, in the form of RFC 7234: each once, and as many of them as a client can be sent.
pub(crate) fn warn<S: AsRef<str>>(headers: &mut HeaderMap, warnings: &[S]) {
    let mut told = HashSet::new();
    let warnings: Vec<&str> = warnings
        .iter()
        .map(S::as_ref)
        .filter(|warning| !warning.is_empty() && told.insert(*warning))
        .collect();
    let length = |warning: &&str| warning.chars().count();
    let most = if warnings.iter().map(length).sum::<usize>() > MAX_WARNINGS {
        MAX_WARNING
    } else {
        MAX_WARNINGS
    };
    let mut left = MAX_WARNINGS;
    for warning in &warnings {
        let Some(rest) = left.checked_sub(length(warning).min(most)) else {
            return;
        };
        left = rest;
        let quoted: String = warning
            .chars()
            .take(most)
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

/// A Status as a response: in the format that the client accepts, or else in JSON.
pub(crate) fn status(headers: &HeaderMap, status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let format = accepted(headers).map_or(Format::Json, |accepted| accepted.format);
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
