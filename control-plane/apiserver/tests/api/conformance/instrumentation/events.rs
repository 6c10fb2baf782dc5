//! test/e2e/instrumentation/events.go: Event in events.k8s.io.

use serde_json::{Value, json};

use crate::conformance::objects::{Objects, name, version};
use crate::harness::Api;

fn event(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "regarding": {"namespace": "default"}, "eventTime": "2017-09-19T13:49:16.000000Z",
        "note": "as it was made", "action": "Do", "reason": "Test", "type": "Normal",
        "reportingController": "test-controller", "reportingInstance": "test-node",
    })
}

/// The event, but for what the server counts and remembers of it.
fn but_version(mut event: Value) -> Value {
    let meta = event["metadata"].as_object_mut().unwrap();
    meta.remove("resourceVersion");
    meta.remove("managedFields");
    event
}

/// Must: an event is created, and lists of its namespace and of all have it; so have those of the
/// core group by its source, and of this one by its controller.
/// Must: a patch changes what it names and nothing else. (Of its series: the note that the
/// behaviour speaks of may not change in this group, and a patch of it is refused.)
/// Must: an update with a series changes the series and nothing else.
/// Must: it is deleted, and lists of its namespace and of all no longer have it.
#[tokio::test]
async fn events_api_should_ensure_that_an_event_can_be_fetched_patched_deleted_and_listed() {
    let api = Api::new().await;
    let events = Objects::namespaced(&api, "/apis/events.k8s.io/v1", "events");
    let selector = "testevent-constant=true";
    let created = events
        .create(&event("event-test", "testevent-constant"))
        .await;
    assert_eq!(
        events.list_everywhere(selector).await,
        std::slice::from_ref(&created)
    );
    assert_eq!(events.list(selector).await, std::slice::from_ref(&created));
    for path in [
        "/api/v1/namespaces/default/events?fieldSelector=source%3Dtest-controller",
        "/apis/events.k8s.io/v1/namespaces/default/events?fieldSelector=reportingController%3Dtest-controller",
    ] {
        let list = api.get(path).await.ok(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(name(&list["items"][0]), "event-test");
    }
    let mut expected = events.get("event-test").await;
    let note = json!({"note": "as it was patched"});
    let path = events.path("event-test");
    let message = api.patch(&path, "strategic-merge", &note).await;
    let message = message.fails(422, "Invalid");
    assert!(message.contains("field is immutable"), "{message}");
    let series =
        |count: u32| json!({"count": count, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    let patch = json!({"series": series(2)});
    let patched = events.patch("event-test", "strategic-merge", &patch).await;
    assert!(version(&patched) > version(&expected));
    expected["series"] = series(2);
    assert_eq!(but_version(patched.clone()), but_version(expected.clone()));

    expected["metadata"]["resourceVersion"] = patched["metadata"]["resourceVersion"].clone();
    expected["series"] = series(100);
    let updated = events.update(&expected).await;
    assert_eq!(but_version(updated), but_version(expected));

    events.delete("event-test").await;
    assert!(events.list_everywhere(selector).await.is_empty());
    assert!(events.list(selector).await.is_empty());
}

/// Must: a set of events is created, and a list by its label has it.
/// Must: the set is deleted, and the list no longer has it.
#[tokio::test]
async fn events_api_should_delete_a_collection_of_events() {
    let api = Api::new().await;
    let events = Objects::namespaced(&api, "/apis/events.k8s.io/v1", "events");
    for name in ["test-event-1", "test-event-2", "test-event-3"] {
        events.create(&event(name, "testevent-set")).await;
    }
    assert_eq!(events.list("testevent-set=true").await.len(), 3);
    events.delete_all("testevent-set=true").await;
    assert!(events.list("testevent-set=true").await.is_empty());
}
