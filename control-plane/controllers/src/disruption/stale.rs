//! Pods that were about to be disrupted and then were not: after two minutes their condition
//! `DisruptionTarget` says so.

use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::pods::{DISRUPTION_TARGET, get_condition, is_active};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, PACE};
use crate::error::{Error, ignore_not_found};
use crate::queue::WorkQueue;

/// Passes at once.
const WORKERS: usize = 2;
const STALE: SignedDuration = SignedDuration::from_mins(2);

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    context.route(&context.informers.pods, &queue, |pod| {
        let marked = left(pod, Timestamp::UNIX_EPOCH).is_some();
        marked
            .then(|| ObjectRef::from_obj(pod))
            .into_iter()
            .collect()
    });
    let (cancel, context) = (context.cancel.clone(), Arc::new(context));
    queue
        .drive("staledisruption", WORKERS, cancel, move |key| {
            let context = context.clone();
            async move { reconcile(&context, &key).await }
        })
        .await;
}

async fn reconcile(context: &Context, key: &ObjectRef<Pod>) -> Result<Option<Duration>, Error> {
    let now = Timestamp::now();
    let Some(pod) = context.informers.pods.store().get(key) else {
        return Ok(None);
    };
    let Some(left) = left(&pod, now) else {
        return Ok(None);
    };
    if left.is_positive() {
        return Ok(Some(left.unsigned_abs()));
    }
    let condition =
        json!({"type": DISRUPTION_TARGET, "status": "False", "lastTransitionTime": Time(now)});
    let patch = Patch::Strategic(json!({
        "metadata": {"uid": pod.uid(), "resourceVersion": pod.resource_version()},
        "status": {"conditions": [condition]},
    }));
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let patched = api
        .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
        .await;
    ignore_not_found(patched).map_err(Error::api("withdraw a Pod's DisruptionTarget"))?;
    Ok(None)
}

/// How long the Pod may still be about to be disrupted; `None` where that is not awaited. What a
/// node decided may take as long as the Pod needs to end.
fn left(pod: &Pod, now: Timestamp) -> Option<SignedDuration> {
    let condition = get_condition(pod, DISRUPTION_TARGET)?;
    let by_node = condition.reason.as_deref() == Some("TerminationByKubelet");
    if condition.status != "True" || by_node || !is_active(pod) {
        return None;
    }
    let since = condition.last_transition_time.as_ref();
    let since = since.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    Some(STALE - now.duration_since(since))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_what_was_not_deleted_is_stale() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let target = |status: &str, reason: &str, since: &str| json!({"type": "DisruptionTarget", "status": status, "reason": reason, "lastTransitionTime": since});
        let recent = target("True", "EvictionByEvictionAPI", "2026-01-01T00:09:00Z");
        let old = target("True", "EvictionByEvictionAPI", "2026-01-01T00:07:00Z");
        let deleted = json!("2026-01-01T00:09:00Z");
        let table = [
            (recent, "Running", Value::Null, Some(60)),
            (old.clone(), "Running", Value::Null, Some(-60)),
            (old.clone(), "Failed", Value::Null, None),
            (old, "Running", deleted, None),
            (
                target("False", "", "2026-01-01T00:00:00Z"),
                "Running",
                Value::Null,
                None,
            ),
            (
                target("True", "TerminationByKubelet", "2026-01-01T00:00:00Z"),
                "Running",
                Value::Null,
                None,
            ),
        ];
        for (n, (condition, phase, deletion, want)) in table.into_iter().enumerate() {
            let pod = json!({"metadata": {"deletionTimestamp": deletion},
                "status": {"phase": phase, "conditions": [condition]}});
            let left = left(&serde_json::from_value(pod).unwrap(), now);
            assert_eq!(left, want.map(SignedDuration::from_secs), "row {n}");
        }
    }
}
