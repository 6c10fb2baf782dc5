//! pods/binding.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};

use super::encode::{accepted, value};
use super::{Call, decode};
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{meta, typed};
use crate::request::options::WriteOptions;

/// Binds a Pod to a node. Nothing else writes `spec.nodeName` of a Pod that exists.
pub(super) async fn bind(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let json = decode::json(call, body).await?;
    let binding: Binding = serde_json::from_slice(&json).map_err(|error| {
        Status::bad_request(format!(
            "Binding in version \"v1\" cannot be handled as a Binding: {error}"
        ))
    })?;
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    let node = binding.target.name.clone().unwrap_or_default();
    if !matches!(kind, "" | "Node") || node.is_empty() {
        return Err(Status::bad_request(
            "target: Invalid value: a Pod is bound to a Node, by its name",
        ));
    }
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut pod: Pod = typed(current.boxed())?;
        if let Some(uid) = binding.metadata.uid.clone().filter(|uid| !uid.is_empty()) {
            pod.metadata.uid = Some(uid);
        }
        assign(call, &mut pod, &node)?;
        for (key, value) in binding.metadata.annotations.clone().unwrap_or_default() {
            pod.metadata
                .annotations
                .get_or_insert_default()
                .insert(key, value);
        }
        Ok(Box::new(pod))
    };
    let caller = call.caller(options.dry_run);
    call.server
        .registry
        .update(call.target(), Part::Internal("binding"), &change, caller)
        .await?;
    done(call)
}

fn assign(call: &Call<'_>, pod: &mut Pod, node: &str) -> Result<(), Status> {
    let conflict = |cause: String| call.target().conflict(cause);
    let name = &call.info.name;
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        )));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(bound) = spec.node_name.as_deref().filter(|bound| !bound.is_empty()) {
        return Err(conflict(format!(
            "pod {name} is already assigned to node {bound:?}"
        )));
    }
    if spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty())
    {
        return Err(conflict(format!(
            "pod {name} has non-empty .spec.schedulingGates"
        )));
    }
    spec.node_name = Some(node.to_owned());
    let conditions = pod
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(meta::now()),
        ..PodCondition::default()
    };
    conditions.retain(|condition| condition.type_ != scheduled.type_);
    conditions.push(scheduled);
    Ok(())
}

/// That it is done.
pub(super) fn done(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let resource = call.kind.descriptor().group_resource();
    let mut status = Status::success(&resource, "", None).into_api();
    status.details = None;
    value(
        &call.parts.headers,
        StatusCode::CREATED,
        &Status::from(status),
    )
}
