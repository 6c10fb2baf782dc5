//! StatefulSet, DaemonSet, ControllerRevision.

use serde_json::{Value, json};

use super::{Subject, lifecycle, template};
use crate::harness::Api;

fn subject(plural: &'static str, body: Value, status: Option<Value>) -> Subject<'static> {
    Subject {
        group_version: "/apis/apps/v1",
        plural,
        namespaced: true,
        body,
        status,
    }
}

fn stateful_set() -> Subject<'static> {
    let spec = json!({"serviceName": "web", "selector": {"matchLabels": {"app": "web"}}, "template": template()});
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set by a test"});
    subject(
        "statefulsets",
        json!({"metadata": {"name": "web"}, "spec": spec}),
        Some(json!({"replicas": 1, "readyReplicas": 1, "conditions": [condition]})),
    )
}

#[tokio::test]
async fn a_stateful_set_has_every_verb() {
    let api = Api::new().await;
    lifecycle(&api, &stateful_set()).await;
}

#[tokio::test]
async fn a_stateful_set_keeps_what_its_pods_are_named_and_stored_by() {
    let api = Api::new().await;
    let subject = stateful_set();
    subject.create(&api, "web").await;
    let path = format!("{}/web", subject.collection());
    let patch = json!({"spec": {"serviceName": "other"}});
    let message = api
        .patch(&path, "merge", &patch)
        .await
        .fails(422, "Invalid");
    assert!(
        message.contains("spec.serviceName: Invalid value: \"other\": field is immutable"),
        "{message}"
    );
    let patch =
        json!({"spec": {"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}}});
    let patched = api.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(patched["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_daemon_set_has_every_verb() {
    let api = Api::new().await;
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template()});
    let counts = json!({"currentNumberScheduled": 1, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 1});
    let subject = subject(
        "daemonsets",
        json!({"metadata": {"name": "log"}, "spec": spec}),
        Some(counts),
    );
    lifecycle(&api, &subject).await;
}

#[tokio::test]
async fn a_controller_revision_has_every_verb_and_keeps_its_data() {
    let api = Api::new().await;
    let subject = subject(
        "controllerrevisions",
        json!({"metadata": {"name": "web-1"}, "data": {"spec": {"template": template()}}, "revision": 1}),
        None,
    );
    lifecycle(&api, &subject).await;
    subject.create(&api, "web-2").await;
    let path = format!("{}/web-2", subject.collection());
    let patch = json!({"data": {"spec": null}});
    let message = api
        .patch(&path, "merge", &patch)
        .await
        .fails(422, "Invalid");
    assert!(message.contains("field is immutable"), "{message}");
    let patched = api
        .patch(&path, "merge", &json!({"revision": 3}))
        .await
        .ok(200);
    assert_eq!(patched["revision"], 3);
}
