//! NodeRestriction: what nodes may not do although they may do much.
//!
//! Here it holds nodes to tokens of Pods that are bound to them, for audiences that those Pods ask
//! for, and to their own Pods: a node makes mirrors of what it runs from files, which [`mirror`]
//! judges, and deletes what is bound to it. Deliberately absent: audiences that CSI drivers ask for,
//! whose volumes no node has yet; and, until there are roles, what nodes may do with Nodes, Leases,
//! statuses and their own labels.
//!
//! [`mirror`]: super::mirror_pod

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Admission, Operation, Review, mirror_pod, old_pod, pod};
use crate::auth::{NODES, UserInfo};
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::validation::{items, text};

/// What stands before the name of a node as a user.
const NODE_USER: &str = "system:node:";

pub(super) struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(node) = node_name(review.caller.user) else {
            return Ok(());
        };
        if review.creates_pod() {
            return match pod(object) {
                Some(pod) => admit_mirror(registry, review, node, pod).await,
                None => Ok(()),
            };
        }
        if let (Operation::Delete, Some(pod)) = (review.operation, old_pod(old)) {
            return own(node, pod).map_err(|cause| {
                let cause = format!("node {node:?} can only delete pods {cause}");
                review.forbidden(text(&pod.metadata.name), cause)
            });
        }
        if review.operation != Operation::Create || review.subresource != "token" {
            return Ok(());
        }
        let Some(request) =
            object.and_then(|object| object.as_any().downcast_ref::<TokenRequest>().cloned())
        else {
            return Ok(());
        };
        let account = text(&request.metadata.name).to_owned();
        let refuse = |cause: String| review.forbidden(&account, cause);
        let name = bound_pod(&request).map_err(|cause| refuse(cause.to_owned()))?;
        let Some(pod) = registry.find::<Pod>(review.namespace, name).await? else {
            let resource = registry.kind_of::<Pod>()?.descriptor().group_resource();
            return Err(Status::not_found(&resource, name));
        };
        check(node, &request, &pod).map_err(refuse)
    }
}

/// Whether a Pod is bound to the node.
fn own(node: &str, pod: &Pod) -> Result<(), &'static str> {
    let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    match bound == Some(node) {
        true => Ok(()),
        false => Err("with spec.nodeName set to itself"),
    }
}

/// A node makes no other Pods than mirrors of its own.
async fn admit_mirror(
    registry: &Registry,
    review: &Review<'_>,
    node: &str,
    pod: &Pod,
) -> Result<(), Status> {
    let refuse = |cause: String| review.forbidden(text(&pod.metadata.name), cause);
    own(node, pod)
        .map_err(|cause| refuse(format!("node {node:?} can only create pods {cause}")))?;
    let owner = mirror_pod::owner(node, pod).map_err(refuse)?;
    let Some(found) = registry.find::<Node>("", node).await? else {
        let resource = registry.kind_of::<Node>()?.descriptor().group_resource();
        return Err(Status::not_found(&resource, node));
    };
    let uid = text(&found.metadata.uid);
    match owner == uid {
        true => Ok(()),
        false => Err(refuse(format!(
            "node {node} UID mismatch: expected {uid} got {owner}"
        ))),
    }
}

/// The node that a user is, if it is one.
pub(super) fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER)?;
    (user.in_group(NODES) && !name.is_empty()).then_some(name)
}

/// The Pod that the request names.
fn bound_pod(request: &TokenRequest) -> Result<&str, &'static str> {
    let spec = request.spec.as_ref();
    let reference = spec.and_then(|spec| spec.bound_object_ref.as_ref());
    let pod = reference.filter(|reference| {
        text(&reference.api_version) == "v1"
            && text(&reference.kind) == "Pod"
            && !text(&reference.name).is_empty()
    });
    let Some(pod) = pod else {
        return Err("node requested token not bound to a pod");
    };
    if text(&pod.uid).is_empty() {
        return Err("node requested token with a pod binding without a uid");
    }
    Ok(text(&pod.name))
}

/// Whether a node may have a token for a Pod.
fn check(node: &str, request: &TokenRequest, pod: &Pod) -> Result<(), String> {
    let spec = request.spec.clone().unwrap_or_default();
    let reference = spec.bound_object_ref.unwrap_or_default();
    if reference.uid != pod.metadata.uid {
        let given = text(&reference.uid);
        return Err(format!(
            "the UID in the bound object reference ({given}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    let of_pod = pod.spec.as_ref();
    if of_pod.and_then(|spec| spec.node_name.as_deref()) != Some(node) {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    // None stands for the API server's own.
    let audience = match items(&spec.audiences) {
        [] => "",
        [audience] => audience,
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    if asks_for(pod, audience) {
        Ok(())
    } else {
        Err(format!(
            "audience {audience:?} not found in pod spec volume"
        ))
    }
}

/// Whether a volume of the Pod holds a token for an audience.
fn asks_for(pod: &Pod, audience: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| items(&spec.volumes));
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| items(&projected.sources))
        .filter_map(|source| source.service_account_token.as_ref())
        .any(|token| text(&token.audience) == audience)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(reference: Value, audiences: &[&str]) -> TokenRequest {
        let spec = json!({"audiences": audiences, "boundObjectRef": reference});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn nodes_get_tokens_of_their_pods_only() {
        let tokens = json!([
            {"serviceAccountToken": {"path": "t"}},
            {"serviceAccountToken": {"path": "v", "audience": "vault"}},
        ]);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "1"},
            "spec": {"nodeName": "a", "containers": [], "volumes": [
                {"name": "t", "projected": {"sources": tokens}},
            ]},
        }))
        .unwrap();
        let for_audiences = |kind: &str, uid: &str, audiences: &[&str]| {
            let reference = json!({"apiVersion": "v1", "kind": kind, "name": "p", "uid": uid});
            request(reference, audiences)
        };
        let of = |kind: &str, uid: &str| for_audiences(kind, uid, &[]);
        let verdict = |node: &str, request: &TokenRequest| {
            bound_pod(request)
                .map_err(str::to_owned)
                .and_then(|_| check(node, request, &pod))
                .err()
                .unwrap_or_default()
        };
        assert_eq!(verdict("a", &of("Pod", "1")), "");
        assert_eq!(verdict("a", &for_audiences("Pod", "1", &["vault"])), "");
        for (node, request, want) in [
            ("b", of("Pod", "1"), "different node"),
            ("a", of("Pod", "2"), "does not match the UID"),
            ("a", of("Pod", ""), "without a uid"),
            ("a", of("Secret", "1"), "not bound to a pod"),
            ("a", request(Value::Null, &[]), "not bound to a pod"),
            (
                "a",
                for_audiences("Pod", "1", &["other"]),
                "not found in pod spec",
            ),
            (
                "a",
                for_audiences("Pod", "1", &["", "vault"]),
                "0 or 1 audiences",
            ),
        ] {
            let got = verdict(node, &request);
            assert!(got.contains(want), "{got}");
        }
    }

    #[test]
    fn nodes_are_known_by_name_and_group() {
        let name = |user: &str, groups: &[&str]| {
            node_name(&UserInfo::new(user, groups)).map(str::to_owned)
        };
        assert_eq!(name("system:node:a", &[NODES]).as_deref(), Some("a"));
        assert_eq!(name("system:node:a", &[]), None);
        assert_eq!(name("system:node:", &[NODES]), None);
        assert_eq!(name("jane", &[NODES]), None);
    }
}
