//! patch: JSON patch, merge patch, strategic merge patch and apply, of an object or its status.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::gvk::GroupVersionKind;
use coracle_apimachinery::patch::{json, merge, strategic};
use coracle_apimachinery::schema::{Node, Schema};
use coracle_apimachinery::status::Status;
use http::Response;
use serde_json::Value;

use super::encode::{accepted, outcome};
use super::{Call, apply, decode};
use crate::registry::erased::Object;
use crate::registry::errors::internal;
use crate::registry::strategy::Subresource;
use crate::registry::update::Part;
use crate::request::options::WriteOptions;
use crate::request::{body, media};

const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::MEDIA_TYPE,
];
/// Those for kinds without a table.
const UNTYPED: &[&str] = &[ACCEPTED[0], ACCEPTED[1], ACCEPTED[3]];

/// A patch that has been read.
pub(super) enum Patch {
    Json(json::Patch),
    Merge(Value),
    Strategic(Value, Node<'static>),
}

impl Patch {
    /// Reads a patch by the media type of the request.
    pub(super) fn parse(
        call: &Call<'_>,
        kind: &GroupVersionKind,
        body: &Bytes,
    ) -> Result<Self, Status> {
        match media::content_type(&call.parts.headers) {
            "application/json-patch+json" => Ok(Self::Json(json::Patch::parse(body)?)),
            "application/merge-patch+json" => Ok(Self::Merge(parse(body)?)),
            "application/strategic-merge-patch+json" => match Schema::built_in().kind(kind) {
                Some(schema) => Ok(Self::Strategic(parse(body)?, schema)),
                None => Err(Status::unsupported_media_type(UNTYPED)),
            },
            _ => Err(Status::unsupported_media_type(ACCEPTED)),
        }
    }

    /// Applies it.
    pub(super) fn apply(&self, document: Value) -> Result<Value, Status> {
        Ok(match self {
            Self::Json(patch) => patch.apply(document)?,
            Self::Merge(patch) => merge::apply(document, patch)?,
            Self::Strategic(patch, schema) => strategic::apply(document, patch.clone(), *schema)?,
        })
    }
}

fn parse(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

pub(super) async fn patch(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let bytes = body::read(body).await?;
    if apply::is_apply(&call.parts.headers) {
        return apply::apply(call, bytes, options).await;
    }
    let d = call.kind.descriptor();
    let kind = GroupVersionKind::new(d.group.clone(), d.version.clone(), d.kind.clone());
    let patch = Patch::parse(call, &kind, &bytes)?;
    let part = part(call);
    let warnings = parking_lot::Mutex::new(Vec::new());
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let document = current
            .to_value()
            .map_err(|error| internal("encode an object", &error))?;
        let patched = patch.apply(document)?;
        check_type(call, &patched)?;
        let json = serde_json::to_vec(&patched)
            .map_err(|error| internal("encode a patched object", &error))?;
        *warnings.lock() = decode::check_fields(call, &json, options.field_validation)?;
        call.kind.decode_value(patched).map_err(|error| {
            Status::bad_request(format!("the patched object cannot be decoded: {error}"))
        })
    };
    let caller = call.caller(options.dry_run);
    let mut patched = call
        .server
        .registry
        .update(call.target(), part, &change, caller)
        .await?;
    patched.warnings.splice(0..0, warnings.into_inner());
    outcome(call, patched)
}

/// The part of the object that the call writes.
pub(super) fn part(call: &Call<'_>) -> Part {
    match super::known_subresource(&call.info.subresource) {
        Some(Subresource::Status) => Part::Status,
        Some(part) if part.is_part() => Part::Own(part),
        _ => Part::Main,
    }
}

fn check_type(call: &Call<'_>, patched: &Value) -> Result<(), Status> {
    let descriptor = call.kind.descriptor();
    let fits = patched["kind"] == descriptor.kind.as_str()
        && patched["apiVersion"] == descriptor.api_version().as_str();
    if fits {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "a patch may not change the kind or the apiVersion of an object, which are {:?} and {:?}",
        descriptor.kind,
        descriptor.api_version()
    )))
}
