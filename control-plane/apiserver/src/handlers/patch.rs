//! patch: JSON patch, merge patch, strategic merge patch and apply, of an object or its status.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::field::{Error as FieldError, Path};
use coracle_apimachinery::gvk::{GroupKind, GroupVersionKind};
use coracle_apimachinery::patch::{json, merge, strategic};
use coracle_apimachinery::schema::{Node, Schema};
use coracle_apimachinery::status::Status;
use coracle_store::Read;
use http::Response;
use parking_lot::Mutex;
use serde_json::Value;

use super::encode::{accepted, outcome};
use super::{Call, apply, decode};
use crate::registry::create::check_name;
use crate::registry::erased::Object;
use crate::registry::errors::internal;
use crate::registry::strategy::Subresource;
use crate::registry::update::{Part, refuse_other_uid};
use crate::request::options::{FieldValidation, WriteOptions};
use crate::request::strict::JSON_PATCH;
use crate::request::{body, media};

/// The media types of patches.
pub(crate) const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::YAML,
    apply::CBOR,
];
/// Those for kinds without a table.
const UNTYPED: &[&str] = &[ACCEPTED[0], ACCEPTED[1], apply::YAML, apply::CBOR];

/// A patch that has been read.
enum Patch {
    Json(json::Patch),
    Merge(Value),
    Strategic(Value, Node<'static>),
}

impl Patch {
    /// Reads a patch by the media type of the request.
    fn parse(call: &Call<'_>, kind: &GroupVersionKind, body: &Bytes) -> Result<Self, Status> {
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
    fn apply(&self, document: Value) -> Result<Value, Status> {
        Ok(match self {
            Self::Json(patch) => patch.apply(document)?,
            Self::Merge(patch) => merge::apply(document, patch)?,
            Self::Strategic(patch, schema) => strategic::apply(document, patch.clone(), *schema)?,
        })
    }
}

/// A patch under field validation.
pub(super) struct Patching<'c> {
    call: &'c Call<'c>,
    patch: Patch,
    validation: FieldValidation,
    /// What is wrong with the patch itself: a member that comes twice in it leaves no trace in
    /// what is made of it.
    own: Vec<String>,
    /// What is wrong with that and with the patched object.
    found: Mutex<Vec<String>>,
}

impl<'c> Patching<'c> {
    /// Reads a patch of the object that is called for. Of one that is missing nobody asks what the
    /// patch is like; but in which form it comes is asked first.
    pub(super) async fn read(
        call: &'c Call<'c>,
        kind: &GroupVersionKind,
        body: &Bytes,
        validation: FieldValidation,
    ) -> Result<Self, Status> {
        match Self::parse(call, kind, body, validation) {
            Err(refused) if refused.code() != 415 => {
                let registry = &call.server.registry;
                registry.get(call.target(), Read::Latest).await?;
                Err(refused)
            }
            parsed => parsed,
        }
    }

    fn parse(
        call: &'c Call<'c>,
        kind: &GroupVersionKind,
        body: &Bytes,
        validation: FieldValidation,
    ) -> Result<Self, Status> {
        let patch = Patch::parse(call, kind, body)?;
        let own = match patch {
            Patch::Json(_) => decode::faults(call, JSON_PATCH, body, validation)
                .into_iter()
                .map(|fault| format!("json patch {fault}"))
                .collect(),
            _ => decode::faults(call, "", body, validation),
        };
        Ok(Self {
            call,
            patch,
            validation,
            own,
            found: Mutex::default(),
        })
    }

    /// Applies it.
    pub(super) fn apply(&self, document: Value) -> Result<Value, Status> {
        self.patch.apply(document)
    }

    /// Validates the fields of what has been made, of which it is known that it decodes.
    pub(super) fn check(&self, schema: &str, json: &str) -> Result<(), Status> {
        let faults = decode::faults(self.call, schema, json.as_bytes(), self.validation);
        let faults = [self.own.clone(), faults].concat();
        if let Some(error) = decode::refusal(&faults, self.validation) {
            return Err(undecodable(json, &error));
        }
        self.call.note(&faults);
        *self.found.lock() = faults;
        Ok(())
    }

    /// What the client is to be told.
    pub(super) fn warnings(self) -> Vec<String> {
        self.found.into_inner()
    }
}

fn parse(body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

pub(super) async fn patch(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let bytes = body::read(&call.parts.headers, body).await?;
    if apply::is_apply(&call.parts.headers) {
        return apply::apply(call, bytes, options).await;
    }
    let d = call.kind.descriptor();
    let kind = GroupVersionKind::new(d.group.clone(), d.version.clone(), d.kind.clone());
    let patching = Patching::read(call, &kind, &bytes, options.field_validation).await?;
    let part = part(call);
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let document = current
            .to_value()
            .map_err(|error| internal("encode an object", &error))?;
        let patched = patching.apply(document)?;
        let json = patched.to_string();
        check_type(call, &patched, &json)?;
        let object = call
            .kind
            .decode(json.as_bytes())
            .map_err(|error| undecodable(json.as_str(), &error))?;
        patching.check(&call.kind.schema_name(), &json)?;
        check_name(call.target(), object.meta())?;
        refuse_other_uid(call.target(), &*object, current)?;
        Ok(object)
    };
    let caller = call.caller(options.dry_run);
    let mut patched = call
        .server
        .registry
        .update(call.target(), part, &change, caller)
        .await?;
    patched.warnings.splice(0..0, patching.warnings());
    outcome(call, patched)
}

/// The part of the object that the call writes.
pub(super) fn part(call: &Call<'_>) -> Part {
    match call.subresource() {
        Some(Subresource::Status) => Part::Status,
        Some(part) if part.is_part() => Part::Own(part),
        _ => Part::Main,
    }
}

fn check_type(call: &Call<'_>, patched: &Value, json: &str) -> Result<(), Status> {
    let descriptor = call.kind.descriptor();
    let fits = patched["kind"] == descriptor.kind.as_str()
        && patched["apiVersion"] == descriptor.api_version().as_str();
    if fits {
        return Ok(());
    }
    let error = format!(
        "a patch may not change the kind or the apiVersion of an object, which are {:?} and {:?}",
        descriptor.kind,
        descriptor.api_version()
    );
    Err(undecodable(json, &error))
}

/// 422: what a patch makes of an object is no object of its kind.
pub(super) fn undecodable(json: impl Into<String>, error: &dyn std::fmt::Display) -> Status {
    let error = FieldError::invalid(&Path::new("patch"), json.into(), error.to_string());
    Status::invalid(&GroupKind::new("", ""), "", vec![error])
}
