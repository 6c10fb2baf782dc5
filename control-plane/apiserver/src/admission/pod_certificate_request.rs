//! Requests for certificates of Pods: a node asks for its own Pods alone, and what is issued begins
//! when it is issued.
//!
//! Deliberately absent: permission to ask for a signer that no volume of the Pod names, until there
//! are roles.

use async_trait::async_trait;
use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::status::Status;
use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::{
    PodCertificateRequest as Request, PodCertificateRequestSpec as Spec,
};
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::node_restriction::node_name;
use super::{Admission, Operation, Review};
use crate::registry::erased::Object;
use crate::registry::{Registry, meta};
use crate::validation::pod::resize::is_mirror;
use crate::validation::{items, text};

/// By how much the clocks of signers may differ from that of the server.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

pub(super) struct PodCertificateRequest;

#[async_trait]
impl Admission for PodCertificateRequest {
    async fn validate(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let (new, old) = (request(object), request(old));
        let Some(request) = new.or(old) else {
            return Ok(());
        };
        let name = text(&request.metadata.name);
        if let Some(node) = node_name(review.caller.user) {
            if review.operation != Operation::Create || !review.subresource.is_empty() {
                let cause = format!("node {node:?} can only create podcertificaterequests");
                return Err(review.forbidden(name, cause));
            }
            check_node(registry, review, node, request).await?;
        }
        match new {
            Some(new) if !begins_now(new, old, &meta::now()) => {
                let detail = "must be set to within 5 minutes of kube-apiserver's current time";
                let at = Path::new("status").child("notBefore");
                let begin = begin(new).map(|begin| begin.0.to_string());
                let errors = vec![Error::invalid(&at, begin.unwrap_or_default(), detail)];
                let kind = review.kind.descriptor().group_kind();
                Err(Status::invalid(&kind, name, errors))
            }
            _ => Ok(()),
        }
    }
}

fn request(object: Option<&dyn Object>) -> Option<&Request> {
    object?.as_any().downcast_ref()
}

fn begin(request: &Request) -> Option<&Time> {
    let status = request.status.as_ref();
    status.and_then(|status| status.not_before.as_ref())
}

/// Whether a certificate, if one is issued by this, is valid from now on.
fn begins_now(new: &Request, old: Option<&Request>, now: &Time) -> bool {
    match (begin(new), old.and_then(begin)) {
        (Some(begin), None) => begin.0.duration_since(now.0).abs() < LEEWAY,
        _ => true,
    }
}

/// Whether a node may ask for this: for a Pod that it runs, as it is.
async fn check_node(
    registry: &Registry,
    review: &Review<'_>,
    node: &str,
    request: &Request,
) -> Result<(), Status> {
    let (spec, namespace) = (&request.spec, review.namespace);
    let refuse = |cause: String| review.forbidden(text(&request.metadata.name), cause);
    if spec.node_name != node {
        let named = &spec.node_name;
        return Err(refuse(format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"
        )));
    }
    let found = registry.find::<Node>("", node).await?;
    let found = found.map(|node| node.metadata);
    same(found.as_ref(), "node", node, &spec.node_uid)?;

    let pod = registry.find::<Pod>(namespace, &spec.pod_name).await?;
    let found = pod.as_ref().map(|pod| &pod.metadata);
    same(found, "pod", &spec.pod_name, &spec.pod_uid)?;
    let cause = pod.and_then(|pod| refusal(spec, &pod));
    if let Some(cause) = cause {
        return Err(refuse(cause));
    }

    let name = &spec.service_account_name;
    let account = registry.find::<ServiceAccount>(namespace, name).await?;
    let found = account.map(|account| account.metadata);
    let uid = &spec.service_account_uid;
    same(found.as_ref(), "service account", name, uid)
}

/// Whether there is what the request names. A node that knows less, or more, than the server may
/// try again.
fn same(found: Option<&ObjectMeta>, what: &str, name: &str, uid: &str) -> Result<(), Status> {
    let Some(found) = found else {
        let message = format!("{what} {name:?} named in the PodCertificateRequest not found");
        return Err(Status::internal(message));
    };
    let running = text(&found.uid);
    if running == uid {
        return Ok(());
    }
    Err(Status::internal(format!(
        "PodCertificateRequest names {what} UID {uid:?}, inconsistent with the running {what} ({running:?})"
    )))
}

/// Why a Pod is given no such certificate.
fn refusal(spec: &Spec, pod: &Pod) -> Option<String> {
    let of_pod = pod.spec.as_ref();
    let node = of_pod.and_then(|spec| spec.node_name.as_deref());
    let account = of_pod.map_or("", |spec| text(&spec.service_account_name));
    let named = &spec.pod_name;
    if node != Some(spec.node_name.as_str()) {
        let node = &spec.node_name;
        Some(format!(
            "pod {named:?} is not running on node {node:?} named in the PodCertificateRequest"
        ))
    } else if is_mirror(pod) {
        Some(format!("pod {named:?} is a mirror pod"))
    } else if account != spec.service_account_name {
        let given = &spec.service_account_name;
        Some(format!(
            "PodCertificateRequest for pod {named:?} contains serviceAccountName ({given:?}) that differs from running pod ({account:?})"
        ))
    } else if !mounts(pod, &spec.signer_name) {
        let signer = &spec.signer_name;
        Some(format!(
            "pod {named:?} does not mount a podCertificate projected volume for signer {signer:?}"
        ))
    } else {
        None
    }
}

/// Whether a volume of the Pod holds a certificate of the signer.
fn mounts(pod: &Pod, signer: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| items(&spec.volumes));
    volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| items(&projected.sources))
        .filter_map(|source| source.pod_certificate.as_ref())
        .any(|certificate| certificate.signer_name == signer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(signer: &str, node: &str, account: &str) -> Spec {
        let spec = json!({"signerName": signer, "podName": "p", "podUID": "1", "nodeName": node, "nodeUID": "2", "serviceAccountName": account, "serviceAccountUID": "3", "stubPKCS10Request": ""});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn nodes_ask_for_their_pods_as_they_are() {
        let pod = |annotations: Value| -> Pod {
            let sources =
                json!([{"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519"}}]);
            let volumes = json!([{"name": "v", "projected": {"sources": sources}}]);
            let spec = json!({"nodeName": "a", "serviceAccountName": "default", "containers": [], "volumes": volumes});
            let metadata = json!({"name": "p", "annotations": annotations});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
        };
        let mirror = json!({"kubernetes.io/config.mirror": "h"});
        for (spec, annotations, want) in [
            (spec("example.com/s", "a", "default"), json!({}), ""),
            (
                spec("example.com/s", "b", "default"),
                json!({}),
                "not running on node",
            ),
            (
                spec("example.com/s", "a", "default"),
                mirror,
                "is a mirror pod",
            ),
            (
                spec("example.com/s", "a", "other"),
                json!({}),
                "contains serviceAccountName",
            ),
            (
                spec("example.com/t", "a", "default"),
                json!({}),
                "does not mount",
            ),
        ] {
            let got = refusal(&spec, &pod(annotations)).unwrap_or_default();
            assert!(
                got.contains(want) && got.is_empty() == want.is_empty(),
                "{got}"
            );
        }
    }

    #[test]
    fn nodes_name_what_is_there() {
        let uid = |uid: &str| ObjectMeta {
            uid: Some(uid.to_owned()),
            ..Default::default()
        };
        assert!(same(Some(&uid("1")), "pod", "p", "1").is_ok());
        for found in [None, Some(&uid("2"))] {
            assert_eq!(same(found, "pod", "p", "1").unwrap_err().code(), 500);
        }
    }

    #[test]
    fn certificates_begin_when_they_are_issued() {
        let at = |time: &str| -> Request {
            let status = json!({ "notBefore": time });
            let spec = serde_json::to_value(spec("example.com/s", "a", "default")).unwrap();
            serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap()
        };
        let now = Time("2026-01-01T00:05:00Z".parse().unwrap());
        let begins = |time: &str, old: Option<&Request>| begins_now(&at(time), old, &now);
        assert!(begins("2026-01-01T00:00:01Z", None));
        assert!(begins("2026-01-01T00:09:59Z", None));
        assert!(!begins("2026-01-01T00:00:00Z", None));
        assert!(!begins("2026-01-01T00:10:00Z", None));
        let old = at("2025-01-01T00:00:00Z");
        assert!(begins("2025-01-01T00:00:00Z", Some(&old)));
    }
}
