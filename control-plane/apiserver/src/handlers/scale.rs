//! The scale subresource: `autoscaling/v1 Scale` over any kind that has replicas.

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::field::{Error as FieldError, Path};
use coracle_apimachinery::gvk::{GroupKind, GroupVersionKind};
use coracle_apimachinery::status::Status;
use coracle_store::{Read, Record};
use http::{Response, StatusCode};
use k8s_openapi::Resource;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::encode::{accepted, value};
use super::patch::{Patch, undecodable};
use super::{Call, apply, decode};
use crate::registry::encoding;
use crate::registry::erased::Object;
use crate::registry::errors::internal;
use crate::registry::update::Part;
use crate::request::body;
use crate::request::options::WriteOptions;

pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let record = call
        .server
        .registry
        .get(call.target(), Read::Latest)
        .await?;
    respond(call, &record)
}

pub(super) async fn update(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let json = decode::json(call, body).await?;
    let scale: Scale = serde_json::from_slice(&json).map_err(|error| {
        Status::bad_request(format!(
            "Scale in version \"v1\" cannot be handled as a Scale: {error}"
        ))
    })?;
    change(call, &|_| Ok(scale.clone())).await
}

pub(super) async fn patch(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let bytes = body::read(&call.parts.headers, body).await?;
    if apply::is_apply(&call.parts.headers) {
        return apply_replicas(call, bytes).await;
    }
    let patch = Patch::parse(call, &GroupVersionKind::of::<Scale>(), &bytes)?;
    change(call, &|current| {
        let document =
            serde_json::to_value(current).map_err(|error| internal("encode a scale", &error))?;
        let patched = patch.apply(document)?;
        let json = patched.to_string();
        serde_json::from_value(patched).map_err(|error| undecodable(json, &error))
    })
    .await
}

/// Applies a scale: its replicas are those of the object.
async fn apply_replicas(call: &Call<'_>, bytes: Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let scale = apply::config(&apply::read(&call.parts.headers, bytes)?)?;
    decode::check_type_of(&scale, Scale::API_VERSION, Scale::KIND)?;
    let replicas = &scale["spec"]["replicas"];
    check_replicas(call, replicas.as_i64().unwrap_or(0))?;
    let descriptor = call.kind.descriptor();
    let mut config = json!({
        "apiVersion": descriptor.api_version(),
        "kind": descriptor.kind,
        "metadata": {"name": call.info.name},
        "spec": {"replicas": replicas},
    });
    for precondition in ["resourceVersion", "uid"] {
        if let Some(value) = scale["metadata"].get(precondition) {
            config["metadata"][precondition] = value.clone();
        }
    }
    let outcome = apply::send(call, Part::Scale, &config, options).await?;
    respond(call, &outcome.record)
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

async fn change(call: &Call<'_>, change: &ScaleChange<'_>) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let apply = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let wanted = change(&view(call, current)?)?;
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
        // That they are those of the request is checked as for an object.
        meta.name = wanted.metadata.name.or_else(|| meta.name.take());
        meta.namespace = wanted.metadata.namespace.or_else(|| meta.namespace.take());
        call.kind.set_replicas(&mut *object, replicas);
        Ok(object)
    };
    let caller = call.caller(options.dry_run);
    let part = Part::Scale;
    let outcome = call
        .server
        .registry
        .update(call.target(), part, &apply, caller)
        .await?;
    respond(call, &outcome.record)
}

fn respond(call: &Call<'_>, record: &Record) -> Result<Response<Body>, Status> {
    let object = encoding::decode(&**call.kind, record)?;
    value(&call.parts.headers, StatusCode::OK, &view(call, &*object)?)
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
