//! test/e2e/instrumentation/core_events.go: Event in the core group.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn event(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "message": "as it was made", "reason": "Test", "type": "Normal", "count": 1,
        "involvedObject": {"namespace": "default"},
        "source": {"component": "a-component"}, "reportingComponent": "a-component",
    })
}

/// Must: an event is created, and a list of all namespaces finds it.
/// Must: it is patched.
/// Must: its message is the new one; a watch sees the change.
/// Must: it is updated with a series of occurrences, and the change is read.
/// Must: it is deleted.
/// Must: lists of its namespace and of all no longer have it.
#[tokio::test]
async fn events_should_manage_the_lifecycle_of_an_event() {
    let api = Api::new().await;
    let events = Objects::namespaced(&api, "/api/v1", "events");
    let selector = "testevent-constant=true";
    let created = events
        .create(&event("event-test", "testevent-constant"))
        .await;
    assert_eq!(events.list_everywhere(selector).await, [created]);
    let mut watch = events.watch(selector).await;
    assert_eq!(watch.line().await, "ADDED event-test");
    let patch = json!({"message": "as it was patched"});
    let mut patched = events.patch("event-test", "strategic-merge", &patch).await;
    assert_eq!(patched["message"], "as it was patched");
    assert_eq!(watch.line().await, "MODIFIED event-test");
    let series = json!({"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    patched["series"] = series.clone();
    let updated = events.update(&patched).await;
    assert_eq!(updated["series"], series);
    assert_eq!(watch.line().await, "MODIFIED event-test");
    events.delete("event-test").await;
    assert_eq!(watch.line().await, "DELETED event-test");
    assert!(events.list(selector).await.is_empty());
    assert!(events.list_everywhere(selector).await.is_empty());
}

/// Must: a set of events is created with a label, and a list by the label finds it.
/// Must: the set is deleted, and the list no longer has it.
#[tokio::test]
async fn events_should_delete_a_collection_of_events() {
    let api = Api::new().await;
    let events = Objects::namespaced(&api, "/api/v1", "events");
    for name in ["test-event-1", "test-event-2", "test-event-3"] {
        events.create(&event(name, "testevent-set")).await;
    }
    events.create(&event("another", "alone")).await;
    assert_eq!(events.list("testevent-set=true").await.len(), 3);
    events.delete_all("testevent-set=true").await;
    assert!(events.list("testevent-set=true").await.is_empty());
    events.get("another").await;
}
