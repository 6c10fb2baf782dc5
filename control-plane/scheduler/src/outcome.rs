//! Telling the world what became of a Pod: the binding, the condition `PodScheduled`, events.
//!
//! Events and conditions are written by one task from a bounded queue; when it is full they are
//! dropped, for they tell and decide nothing. The binding is written by the caller's task.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cache::PodInfo;
use crate::framework::Bind;

/// Tellings that may wait.
const QUEUE: usize = 2048;

/// Binds through the Pod's `binding` subresource.
pub(crate) struct DefaultBinder {
    pub(crate) client: Client,
}

impl Bind for DefaultBinder {
    fn bind(&self, pod: &PodInfo, node: &str) -> BoxFuture<'static, Result<(), kube::Error>> {
        let (name, namespace) = (pod.pod.name_any(), pod.pod.namespace().unwrap_or_default());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace),
                uid: pod.pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        async move {
            let params = PostParams::default();
            api.create_subresource::<_, Value>("binding", &name, &params, &binding)
                .await?;
            Ok(())
        }
        .boxed()
    }
}

/// What to tell of a Pod.
#[derive(Debug)]
pub(crate) enum Telling {
    /// It got a node.
    Scheduled { pod: Arc<Pod>, node: String },
    /// It got none: the reason of the condition, and the message.
    Failed {
        pod: Arc<Pod>,
        reason: &'static str,
        message: String,
    },
}

/// The task that writes tellings, and where to put them.
pub(crate) fn teller(
    client: Client,
    scheduler: &str,
    cancel: CancellationToken,
) -> (mpsc::Sender<Telling>, impl Future<Output = ()> + use<>) {
    let (sender, tellings) = mpsc::channel(QUEUE);
    let reporter = Reporter {
        controller: scheduler.to_owned(),
        instance: None,
    };
    let recorder = Recorder::new(client.clone(), reporter);
    (sender, write(client, recorder, tellings, cancel))
}

async fn write(
    client: Client,
    recorder: Recorder,
    mut tellings: mpsc::Receiver<Telling>,
    cancel: CancellationToken,
) {
    loop {
        let telling = tokio::select! {
            () = cancel.cancelled() => return,
            telling = tellings.recv() => telling,
        };
        let Some(telling) = telling else { return };
        if let Telling::Failed {
            pod,
            reason,
            message,
        } = &telling
        {
            show_condition(&client, pod, reason, message).await;
        }
        let (event, pod) = event(&telling);
        if let Err(error) = recorder.publish(&event, &pod.object_ref(&())).await {
            tracing::debug!(%error, pod = %pod.name_any(), "an event could not be written");
        }
    }
}

fn event(telling: &Telling) -> (Event, &Pod) {
    let (pod, type_, reason, action, note) = match telling {
        Telling::Scheduled { pod, node } => {
            let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
            let note = format!("Successfully assigned {name} to {node}");
            (pod, EventType::Normal, "Scheduled", "Binding", note)
        }
        Telling::Failed { pod, message, .. } => (
            pod,
            EventType::Warning,
            "FailedScheduling",
            "Scheduling",
            message.clone(),
        ),
    };
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    };
    (event, pod)
}

async fn show_condition(client: &Client, pod: &Pod, reason: &str, message: &str) {
    let Some(patch) = condition(pod, reason, message, Timestamp::now()) else {
        return;
    };
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let patched = api
        .patch_status(
            &pod.name_any(),
            &PatchParams::default(),
            &Patch::Strategic(patch),
        )
        .await;
    if let Err(error) = patched {
        tracing::debug!(%error, pod = %pod.name_any(), "the condition PodScheduled could not be written");
    }
}

/// The patch that makes the condition `PodScheduled` say so, unless it does.
fn condition(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Option<Value> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let old = conditions.into_iter().find(|c| c.type_ == "PodScheduled");
    let says = |text: Option<&str>, wanted: &str| text == Some(wanted);
    let failed = old.is_some_and(|c| c.status == "False");
    if failed
        && old.is_some_and(|c| says(c.reason.as_deref(), reason))
        && old.is_some_and(|c| says(c.message.as_deref(), message))
    {
        return None;
    }
    let since = old
        .filter(|_| failed)
        .and_then(|c| c.last_transition_time.clone());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason,
        "message": message, "lastTransitionTime": since.unwrap_or(Time(now))});
    Some(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::pod;

    #[test]
    fn a_condition_that_says_so_is_not_written_again() {
        let now = Timestamp::UNIX_EPOCH;
        let fresh = pod("p", json!({}));
        let patch = condition(&fresh, "Unschedulable", "no", now);
        let written = patch.map(|p| p["status"]["conditions"][0]["lastTransitionTime"].clone());
        assert_eq!(written, Some(json!("1970-01-01T00:00:00Z")));
        let shown = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "no", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let shown = pod("p", json!({"status": {"conditions": [shown]}}));
        assert_eq!(condition(&shown, "Unschedulable", "no", now), None);
        let patch = condition(&shown, "Unschedulable", "other", now);
        let kept = patch.map(|p| p["status"]["conditions"][0]["lastTransitionTime"].clone());
        assert_eq!(kept, Some(json!("2026-01-01T00:00:00Z")));
    }

    #[test]
    fn the_words_of_success() {
        let pod = Arc::new(pod("p", json!({})));
        let node = "n1".to_owned();
        let telling = Telling::Scheduled { pod, node };
        let (event, _) = event(&telling);
        assert_eq!(
            event.note.as_deref(),
            Some("Successfully assigned ns/p to n1")
        );
        assert_eq!(event.reason, "Scheduled");
    }
}
