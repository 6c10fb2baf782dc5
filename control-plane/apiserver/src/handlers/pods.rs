//! pods/binding.

use std::collections::BTreeMap;

use axum::body::Body;
use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::gvk::GroupKind;
use coracle_apimachinery::names;
use coracle_apimachinery::status::Status;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};

use super::encode::{accepted, value};
use super::{Call, decode};
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{meta, typed};
use crate::request::options::WriteOptions;
use crate::validation::{faults, text};

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
    let named = binding.metadata.name.as_deref().unwrap_or_default();
    if !named.is_empty() && named != call.info.name {
        return Err(Status::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let errors = validate_target(&binding.target);
    if !errors.is_empty() {
        let kind = GroupKind::new("", "Binding");
        return Err(Status::invalid(&kind, &call.info.name, errors));
    }
    let node = binding.target.name.clone().unwrap_or_default();
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut pod: Pod = typed(current.boxed())?;
        if let Some(uid) = binding.metadata.uid.clone().filter(|uid| !uid.is_empty()) {
            pod.metadata.uid = Some(uid);
        }
        let version = binding.metadata.resource_version.clone();
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            pod.metadata.resource_version = Some(version);
        }
        assign(call, &mut pod, &node)?;
        let given = &binding.metadata;
        merge(&mut pod.metadata.annotations, given.annotations.as_ref());
        merge(&mut pod.metadata.labels, given.labels.as_ref());
        Ok(Box::new(pod))
    };
    let caller = call.caller(options.dry_run);
    call.server
        .registry
        .update(call.target(), Part::Internal("binding"), &change, caller)
        .await?;
    done(call)
}

/// What a Pod is bound to: a node, by its name.
fn validate_target(target: &ObjectReference) -> ErrorList {
    let (mut errors, at) = (ErrorList::default(), Path::new("target"));
    let (kind, name) = (text(&target.kind), text(&target.name));
    let is_node = matches!(kind, "" | "Node");
    if !is_node {
        let supported = ["Node", "<empty>"];
        errors.push(Error::not_supported(&at.child("kind"), kind, &supported));
    }
    let at = at.child("name");
    if name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if is_node {
        faults(name, names::dns_subdomain(name), &at, &mut errors);
    }
    errors
}

/// Adds what a Binding says of its Pod, as the labels of its node.
fn merge(map: &mut Option<BTreeMap<String, String>>, given: Option<&BTreeMap<String, String>>) {
    for (key, value) in given.into_iter().flatten() {
        map.get_or_insert_default()
            .insert(key.clone(), value.clone());
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn targets() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"kind": "Node", "name": "n"}), vec![]),
            (json!({"name": "n"}), vec![]),
            (
                json!({"kind": "Pod"}),
                vec![
                    "target.kind FieldValueNotSupported supported values: \"Node\", \"<empty>\"",
                    "target.name FieldValueRequired",
                ],
            ),
            (json!({"name": "N!"}), vec!["target.name FieldValueInvalid"]),
        ];
        for (target, want) in table {
            let target = serde_json::from_value(target).unwrap();
            assert_causes(&validate_target(&target), &want);
        }
    }
}
