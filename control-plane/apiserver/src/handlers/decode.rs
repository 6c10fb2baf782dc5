//! Bodies into objects.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde::{Deserialize, Deserializer};

use super::Call;
use crate::registry::erased::{Kind, Object};
use crate::request::body;
use crate::request::options::FieldValidation;

/// What every body says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default, deserialize_with = "text")]
    api_version: String,
    #[serde(default, deserialize_with = "text")]
    kind: String,
}

/// A string, or null for an empty one.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

/// An object from a body, with the warnings of field validation.
pub(super) struct Decoded {
    pub(super) object: Box<dyn Object>,
    pub(super) warnings: Vec<String>,
}

/// Reads and decodes the body as an object of the call's kind.
pub(super) async fn object(
    call: &Call<'_>,
    body: Body,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let json = json(call, body).await?;
    let kind = &**call.kind;
    check_type(kind, &json)?;
    let warnings = check_fields(call, &json, validation)?;
    let object = kind
        .decode(&json)
        .map_err(|error| cannot_handle(kind, &error))?;
    call.sent(object.meta(), &warnings);
    Ok(Decoded { object, warnings })
}

/// Reads the body as JSON.
pub(super) async fn json(call: &Call<'_>, body: Body) -> Result<Bytes, Status> {
    let headers = &call.parts.headers;
    body::to_json(headers, body::read(headers, body).await?)
}

/// Reads the body as options of a deletion; `None` where it is empty. Old clients send them as of
/// the group of what they delete.
pub(super) async fn delete_options(
    call: &Call<'_>,
    body: Body,
) -> Result<Option<DeleteOptions>, Status> {
    let bytes = body::read(&call.parts.headers, body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let json = body::to_json(&call.parts.headers, bytes)?;
    let undecodable = |error: serde_json::Error| {
        Status::bad_request(format!("the body cannot be decoded: {error}"))
    };
    let given: TypeMeta = serde_json::from_slice(&json).map_err(undecodable)?;
    if !matches!(given.kind.as_str(), "" | "DeleteOptions") {
        // Whoever sends an object here does not mean what this would do.
        return Err(Status::bad_request(
            "decoded object cannot be converted to DeleteOptions",
        ));
    }
    serde_json::from_slice(&json).map(Some).map_err(undecodable)
}

/// The faults of field validation: a refusal, warnings, or nothing.
fn check_fields(
    call: &Call<'_>,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Vec<String>, Status> {
    let kind = &**call.kind;
    let faults = faults(call, &kind.schema_name(), json, validation);
    match refusal(&faults, validation) {
        Some(error) => Err(cannot_handle(kind, &error)),
        None => Ok(faults),
    }
}

/// What field validation finds in JSON of a schema; where the schema has no name, only what comes
/// twice.
pub(super) fn faults(
    call: &Call<'_>,
    schema: &str,
    json: &[u8],
    validation: FieldValidation,
) -> Vec<String> {
    match validation {
        FieldValidation::Ignore => Vec::new(),
        _ => call.server.schemas().faults(schema, json),
    }
}

/// What is said of faults that are refused.
pub(super) fn refusal(faults: &[String], validation: FieldValidation) -> Option<String> {
    let refused = validation == FieldValidation::Strict && !faults.is_empty();
    refused.then(|| format!("strict decoding error: {}", faults.join(", ")))
}

/// 400: the body is no object of this kind.
pub(super) fn cannot_handle(kind: &dyn Kind, cause: &dyn std::fmt::Display) -> Status {
    let descriptor = kind.descriptor();
    let (name, version) = (&descriptor.kind, &descriptor.version);
    Status::bad_request(format!(
        "{name} in version {version:?} cannot be handled as a {name}: {cause}"
    ))
}

/// 400: what is applied must say of which kind and version it is.
pub(super) fn check_type_of(
    config: &serde_json::Value,
    api_version: &str,
    kind: &str,
) -> Result<(), Status> {
    if config["kind"] == kind && config["apiVersion"] == api_version {
        return Ok(());
    }
    let given = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    let version = given("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    Err(Status::bad_request(format!(
        "invalid object type: {slash}{version}, Kind={}; expected apiVersion {api_version:?} and kind {kind:?}",
        given("kind"),
    )))
}

fn check_type(kind: &dyn Kind, json: &[u8]) -> Result<(), Status> {
    let given: TypeMeta = serde_json::from_slice(json).map_err(|error| {
        Status::bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))
    })?;
    let descriptor = kind.descriptor();
    let wanted = descriptor.api_version();
    let fits = (given.kind.is_empty() || given.kind == descriptor.kind)
        && (given.api_version.is_empty() || given.api_version == wanted);
    if fits {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: the object provided is of another kind than the path, which is of apiVersion {wanted:?}",
        if given.kind.is_empty() {
            "the object"
        } else {
            &given.kind
        },
        given.api_version,
        descriptor.kind,
    )))
}
