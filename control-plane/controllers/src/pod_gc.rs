//! Pods that nobody cleans up: ended ones beyond a threshold, those of nodes that are gone, and
//! those that were deleted before they got a node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::pods;

/// Between passes.
const PERIOD: Duration = Duration::from_secs(20);
/// A node must be gone for this long: it may just be registering anew.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);

pub(crate) async fn run(context: Context, ended_threshold: usize) {
    let mut missing: HashMap<String, Timestamp> = HashMap::new();
    loop {
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let pods = context.informers.pods.store().state();
        let nodes = context.informers.nodes.store().state();
        let nodes: HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
        let now = Timestamp::now();
        note_missing(&mut missing, &pods, &nodes, now);
        for action in plan(&pods, &missing, ended_threshold, now) {
            if let Err(error) = apply(&context, &action, now).await {
                tracing::warn!(pod = %action.pod.name_any(), %error, "a Pod could not be cleaned up");
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Action {
    pod: Arc<Pod>,
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Ended,
    NodeGone,
    NeverPlaced,
}

/// Keeps `missing` to the nodes that Pods name and that are not there.
fn note_missing(
    missing: &mut HashMap<String, Timestamp>,
    pods: &[Arc<Pod>],
    nodes: &HashSet<String>,
    now: Timestamp,
) {
    let named: HashSet<&str> = pods.iter().filter_map(|pod| pods::node(pod)).collect();
    missing.retain(|name, _| named.contains(name.as_str()) && !nodes.contains(name));
    for name in named.into_iter().filter(|name| !nodes.contains(*name)) {
        missing.entry(name.to_owned()).or_insert(now);
    }
}

fn plan(
    pods: &[Arc<Pod>],
    missing: &HashMap<String, Timestamp>,
    ended_threshold: usize,
    now: Timestamp,
) -> Vec<Action> {
    let long_gone = |pod: &Pod| {
        let since = pods::node(pod).and_then(|node| missing.get(node));
        since.is_some_and(|since| now.duration_since(*since) >= QUARANTINE)
    };
    let mut actions = Vec::new();
    let mut ended = Vec::new();
    for pod in pods {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let cause = if long_gone(pod) {
            Cause::NodeGone
        } else if deleted && pods::node(pod).is_none() {
            Cause::NeverPlaced
        } else {
            if pods::finished(pod) && !deleted {
                ended.push(pod);
            }
            continue;
        };
        actions.push(Action {
            pod: pod.clone(),
            cause,
        });
    }
    let surplus = ended.len().saturating_sub(ended_threshold);
    ended.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
    let ended = ended.into_iter().take(surplus);
    actions.extend(ended.map(|pod| Action {
        pod: pod.clone(),
        cause: Cause::Ended,
    }));
    actions
}

async fn apply(context: &Context, action: &Action, now: Timestamp) -> Result<(), Error> {
    let pod = &action.pod;
    if action.cause == Cause::NodeGone && is_there(context, pod).await? {
        return Ok(());
    }
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    if action.cause == Cause::NodeGone && !pods::finished(pod) {
        // Whoever manages it must learn that it failed, for nobody else will say.
        let condition = json!({"type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists",
            "lastTransitionTime": Time(now)});
        let patch = json!({"metadata": {"uid": pod.uid()},
            "status": {"phase": "Failed", "conditions": [condition]}});
        let patch = Patch::Strategic(patch);
        let failed = api
            .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await;
        ignore_not_found(failed).map_err(Error::api("mark a Pod of a gone node"))?;
    }
    let params = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        });
    let deleted = api.delete(&pod.name_any(), &params).await;
    ignore_not_found(deleted).map_err(Error::api("clean up a Pod"))?;
    Ok(())
}

/// Whether the Pod's node exists after all.
async fn is_there(context: &Context, pod: &Pod) -> Result<bool, Error> {
    let Some(name) = pods::node(pod) else {
        return Ok(false);
    };
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = nodes
        .get_metadata_opt(name)
        .await
        .map_err(Error::api("read a node"))?;
    Ok(node.is_some())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, deleted: bool) -> Arc<Pod> {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        let pod = json!({"metadata": {"name": name, "deletionTimestamp": deleted,
            "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
            "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn who_is_cleaned_up() {
        let pods = [
            pod("x", Some("here"), "Running", false),
            pod("gone", Some("gone"), "Running", false),
            pod("never", None, "Pending", true),
            pod("waiting", None, "Pending", false),
            pod("old", Some("here"), "Succeeded", false),
            pod("older", Some("here"), "Failed", false),
            pod("e", Some("here"), "Failed", false),
        ];
        let nodes = HashSet::from(["here".to_owned()]);
        let mut missing = HashMap::new();
        let start = Timestamp::UNIX_EPOCH;
        note_missing(&mut missing, &pods, &nodes, start);
        let planned = |now| {
            let actions = plan(&pods, &missing, 1, now).into_iter();
            actions
                .map(|a| (a.pod.name_any(), a.cause))
                .collect::<Vec<_>>()
        };
        let others = [
            ("e".to_owned(), Cause::Ended),
            ("old".to_owned(), Cause::Ended),
        ];
        let never = ("never".to_owned(), Cause::NeverPlaced);
        let soon = planned(start + SignedDuration::from_secs(39));
        assert_eq!(soon, [&[never.clone()][..], &others].concat());
        let late = planned(start + QUARANTINE);
        assert_eq!(
            late,
            [&[("gone".to_owned(), Cause::NodeGone), never][..], &others].concat()
        );
    }
}
