//! Bindings, of Pods to nodes.

use axum::body::Body;
use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::gvk::{GroupKind, GroupResource};
use coracle_apimachinery::names;
use coracle_apimachinery::status::Status;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::encode::{accepted, value, warn};
use super::{Call, decode};
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{Target, meta, typed};
use crate::request::options::WriteOptions;
use crate::validation::{faults, text};

/// Binds a Pod to a node, below the Pod (`pods/NAME/binding`) or in the collection of bindings.
/// Nothing else writes `spec.nodeName` of a Pod that exists.
pub(super) async fn bind(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted(&call.parts.headers)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let registry = &call.server.registry;
    let sent = Call {
        kind: registry.kind_of::<Binding>()?,
        ..*call
    };
    let decoded = decode::object(&sent, body, options.field_validation).await?;
    let warnings = decoded.warnings;
    let binding: Binding = typed(decoded.object)?;
    let target = Target {
        kind: registry.kind_of::<Pod>()?,
        namespace: &call.info.namespace,
        name: named(call, &binding.metadata, "Binding")?,
    };
    let errors = validate_target(&binding.target);
    if !errors.is_empty() {
        let kind = GroupKind::new("", "Binding");
        return Err(Status::invalid(&kind, target.name, errors));
    }
    let node = text(&binding.target.name);
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let mut pod: Pod = typed(current.boxed())?;
        let demanded = |given: &Option<String>| given.clone().filter(|given| !given.is_empty());
        let (meta, sent) = (&mut pod.metadata, &binding.metadata);
        if let Some(uid) = demanded(&sent.uid) {
            meta.uid = Some(uid);
        }
        if let Some(version) = demanded(&sent.resource_version) {
            meta.resource_version = Some(version);
        }
        for (into, from) in [
            (&mut meta.annotations, &sent.annotations),
            (&mut meta.labels, &sent.labels),
        ] {
            if let Some(from) = from {
                into.get_or_insert_default().extend(from.clone());
            }
        }
        assign(target, &mut pod, node)?;
        Ok(Box::new(pod))
    };
    let caller = call.caller(options.dry_run);
    registry
        .update(target, Part::Internal("binding"), &change, caller)
        .await?;
    let mut response = done(call)?;
    warn(response.headers_mut(), &warnings);
    Ok(response)
}

/// The Pod for which an object of this kind is sent.
pub(super) fn named<'a>(
    call: &Call<'a>,
    meta: &'a ObjectMeta,
    kind: &str,
) -> Result<&'a str, Status> {
    let info = call.info;
    let namespace = text(&meta.namespace);
    if !namespace.is_empty() && namespace != info.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    match (info.name.as_str(), text(&meta.name)) {
        ("", "") => Err(Status::bad_request("name is required")),
        ("", name) | (name, "") => Ok(name),
        (in_path, name) if in_path == name => Ok(name),
        _ => Err(Status::bad_request(format!(
            "name in URL does not match name in {kind} object"
        ))),
    }
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

fn assign(target: Target<'_>, pod: &mut Pod, node: &str) -> Result<(), Status> {
    let name = target.name;
    let conflict = |cause: String| {
        let resource = GroupResource::new("", "pods/binding");
        Status::conflict(&resource, name, cause)
    };
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
    let status = pod.status.get_or_insert_default();
    // It was a hint for the time until now.
    status.nominated_node_name = None;
    let conditions = status.conditions.get_or_insert_default();
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
