//! The scale subresource: `autoscaling/v1 Scale` over any kind that has replicas.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::field::{Error as FieldError, Path};
use coracle_apimachinery::gvk::{GroupKind, GroupVersionKind};
use coracle_apimachinery::status::Status;
use coracle_apimachinery::table::{Cell, Column};
use coracle_store::{Read, Record};
use http::{Response, StatusCode};
use k8s_openapi::Resource;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::encode::{self, accepted, warn};
use super::patch::{Patching, undecodable};
use super::shapes::{self, Include};
use super::{Call, apply, decode};
use crate::registry::create::{check_name, match_namespace};
use crate::registry::erased::Object;
use crate::registry::errors::internal;
use crate::registry::update::Part;
use crate::registry::{Outcome, encoding, printing};
use crate::request::body;
use crate::request::options::WriteOptions;

/// The name of the type in the OpenAPI document.
const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let record = call
        .server
        .registry
        .get(call.target(), Read::Latest)
        .await?;
    respond(call, &record, &[])
}

pub(super) async fn update(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let json = decode::json(call, body).await?;
    let validation = options.field_validation;
    let faults = decode::faults(call, SCHEMA, &json, validation);
    if let Some(error) = decode::refusal(&faults, validation) {
        return Err(cannot_handle(&error));
    }
    let scale: Scale = serde_json::from_slice(&json).map_err(|error| cannot_handle(&error))?;
    call.sent(&scale.metadata, &faults);
    let mut outcome = change(call, options, &|_| Ok(scale.clone())).await?;
    outcome.warnings.splice(0..0, faults);
    respond(call, &outcome.record, &outcome.warnings)
}

fn cannot_handle(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!(
        "Scale in version \"v1\" cannot be handled as a Scale: {error}"
    ))
}

pub(super) async fn patch(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let bytes = body::read(&call.parts.headers, body).await?;
    if apply::is_apply(&call.parts.headers) {
        return apply_replicas(call, bytes, options).await;
    }
    let kind = GroupVersionKind::of::<Scale>();
    let patching = Patching::read(call, &kind, &bytes, options.field_validation).await?;
    let patched = |current: &Scale| -> Result<Scale, Status> {
        let document =
            serde_json::to_value(current).map_err(|error| internal("encode a scale", &error))?;
        let patched = patching.apply(document)?;
        let json = patched.to_string();
        let scale =
            serde_json::from_value(patched).map_err(|error| undecodable(json.as_str(), &error))?;
        patching.check(SCHEMA, &json)?;
        Ok(scale)
    };
    let mut outcome = change(call, options, &patched).await?;
    outcome.warnings.splice(0..0, patching.warnings());
    respond(call, &outcome.record, &outcome.warnings)
}

/// Applies a scale: its replicas, if it says how many, are those of the object.
async fn apply_replicas(
    call: &Call<'_>,
    bytes: Bytes,
    options: WriteOptions,
) -> Result<Response<Body>, Status> {
    let (json, scale) = apply::read(&call.parts.headers, bytes)?;
    decode::check_type_of(&scale, Scale::API_VERSION, Scale::KIND)?;
    let warnings = apply::check_fields(call, SCHEMA, &json, options.field_validation)?;
    call.note(&warnings);
    let descriptor = call.kind.descriptor();
    let mut config = json!({
        "apiVersion": descriptor.api_version(),
        "kind": descriptor.kind,
        "metadata": {"name": call.info.name},
    });
    for given in ["name", "namespace", "resourceVersion", "uid"] {
        if let Some(value) = scale["metadata"].get(given) {
            config["metadata"][given] = value.clone();
        }
    }
    let replicas = &scale["spec"]["replicas"];
    if !replicas.is_null() {
        check_replicas(call, replicas.as_i64().unwrap_or(0))?;
        config["spec"] = json!({ "replicas": replicas });
    }
    let mut outcome = apply::send(call, Part::Scale, &config, options).await?;
    outcome.warnings.splice(0..0, warnings);
    respond(call, &outcome.record, &outcome.warnings)
}

fn check_replicas(call: &Call<'_>, replicas: i64) -> Result<(), Status> {
    if replicas >= 0 {
        return Ok(());
    }
    let path = Path::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    let kind = GroupKind::new("autoscaling", "Scale");
    Err(Status::invalid(&kind, &call.info.name, vec![error]))
}

type ScaleChange<'a> = dyn Fn(&Scale) -> Result<Scale, Status> + Send + Sync + 'a;

async fn change(
    call: &Call<'_>,
    options: WriteOptions,
    change: &ScaleChange<'_>,
) -> Result<Outcome, Status> {
    let apply = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut wanted = change(&view(call, current)?)?;
        match_namespace(call.target(), &mut wanted)?;
        check_name(call.target(), &wanted.metadata)?;
        let replicas = wanted
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(0);
        check_replicas(call, replicas.into())?;
        let mut object = current.boxed();
        let meta = object.meta_mut();
        // The scale's own preconditions stand for the object's.
        meta.resource_version = wanted.metadata.resource_version;
        meta.uid = wanted.metadata.uid.or_else(|| meta.uid.take());
        call.kind.set_replicas(&mut *object, replicas);
        Ok(object)
    };
    let caller = call.caller(options.dry_run);
    let registry = &call.server.registry;
    registry
        .update(call.target(), Part::Scale, &apply, caller)
        .await
}

fn respond(
    call: &Call<'_>,
    record: &Record,
    warnings: &[String],
) -> Result<Response<Body>, Status> {
    let accepted = accepted(&call.parts.headers)?;
    let object = encoding::decode(&**call.kind, record)?;
    let scale = view(call, &*object)?;
    let whole = serde_json::to_vec(&scale).map_err(|error| internal("encode a scale", &error))?;
    let include = Include::parse(call.query, accepted.shape)?;
    let row = (columns(), cells(&scale));
    let json = shapes::computed(whole.into(), &scale.metadata, accepted.shape, include, row)?;
    let mut response = encode::respond(StatusCode::OK, accepted.format, json)?;
    warn(response.headers_mut(), warnings);
    Ok(response)
}

/// What `kubectl get --subresource=scale` shows.
fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::integer("Desired", "How many replicas there should be."),
        Column::integer("Available", "How many replicas there are."),
        Column::age(),
    ]
}

fn cells(scale: &Scale) -> Vec<Cell> {
    let desired = scale.spec.as_ref().and_then(|spec| spec.replicas);
    let available = scale.status.as_ref().map_or(0, |status| status.replicas);
    vec![
        printing::name(&scale.metadata),
        Cell::from(i64::from(desired.unwrap_or(0))),
        Cell::from(i64::from(available)),
        printing::age(&scale.metadata, jiff::Timestamp::now()),
    ]
}

fn view(call: &Call<'_>, object: &dyn Object) -> Result<Scale, Status> {
    let view = call
        .kind
        .scale(object)
        .ok_or_else(|| Status::internal("the kind shows no scale"))?;
    let meta = object.meta();
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec {
            replicas: Some(view.replicas),
        }),
        status: Some(ScaleStatus {
            replicas: view.current,
            selector: Some(view.selector).filter(|selector| !selector.is_empty()),
        }),
    })
}
