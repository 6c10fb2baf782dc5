//! Watches of ConfigMaps by label.

use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS, Watch};

const LABEL: &str = "watch-this";

fn config_map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {LABEL: label}}})
}

async fn create(api: &Api, name: &str, label: &str) -> Value {
    api.post(CONFIG_MAPS, &config_map(name, label))
        .await
        .ok(201)
}

/// Replaces the object's data by a number.
async fn mutate(api: &Api, name: &str, mutation: &str) -> Value {
    let path = format!("{CONFIG_MAPS}/{name}");
    let mut object = api.get(&path).await.ok(200);
    object["data"] = json!({ "mutation": mutation });
    api.put(&path, &object).await.ok(200)
}

async fn relabel(api: &Api, name: &str, label: &str) -> Value {
    let patch = json!({"metadata": {"labels": {LABEL: label}}});
    api.patch(&format!("{CONFIG_MAPS}/{name}"), "merge", &patch)
        .await
        .ok(200)
}

async fn delete(api: &Api, name: &str) {
    api.delete(&format!("{CONFIG_MAPS}/{name}")).await.ok(200);
}

/// Watches what has one of these labels, from a version (`""` for the present state).
async fn watch(api: &Api, version: &str, labels: &str) -> Watch {
    let selector = format!("{LABEL}%20in%20({labels})");
    api.watch(&format!(
        "{CONFIG_MAPS}?watch=true&labelSelector={selector}&resourceVersion={version}"
    ))
    .await
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

/// Must: a watcher of a label is told of the creation of an object that has it
/// Must: it is told of each change of the object
/// Must: it is told of the object's deletion
/// Must: it is not told of objects without the label
#[tokio::test]
async fn watchers_should_observe_add_update_and_delete_watch_notifications_on_configmaps() {
    let api = Api::new().await;
    let mut of_a = watch(&api, "", "a").await;
    let mut of_b = watch(&api, "", "b").await;
    let mut of_both = watch(&api, "", "a,b").await;

    let created = create(&api, "first", "a").await;
    let changed = mutate(&api, "first", "1").await;
    let again = mutate(&api, "first", "2").await;
    delete(&api, "first").await;
    for watch in [&mut of_a, &mut of_both] {
        watch.expect("ADDED", &created).await;
        watch.expect("MODIFIED", &changed).await;
        watch.expect("MODIFIED", &again).await;
        assert_eq!(watch.line().await, "DELETED first");
    }
    // The first that the watchers of the other label are told is of an object of theirs.
    let created = create(&api, "second", "b").await;
    delete(&api, "second").await;
    for watch in [&mut of_b, &mut of_both] {
        watch.expect("ADDED", &created).await;
        assert_eq!(watch.line().await, "DELETED second");
    }
    let created = create(&api, "third", "a").await;
    of_a.expect("ADDED", &created).await;
    create(&api, "fourth", "b").await;
    assert_eq!(of_b.line().await, "ADDED fourth");
}

/// Must: a watch can begin at a version of the past, and tells all that came after it
/// Must: it tells nothing of what was at that version or before it
#[tokio::test]
async fn watchers_should_be_able_to_start_watching_from_a_specific_resource_version() {
    let api = Api::new().await;
    create(&api, "a", "past").await;
    let first = mutate(&api, "a", "1").await;
    let second = mutate(&api, "a", "2").await;
    delete(&api, "a").await;
    let mut watch = watch(&api, version(&first), "past").await;
    watch.expect("MODIFIED", &second).await;
    assert_eq!(watch.line().await, "DELETED a");
}

/// Must: a watch can begin at the last version that an earlier one has told
/// Must: it tells each change since then, also those made while nobody watched
#[tokio::test]
async fn watchers_should_be_able_to_restart_watching_from_the_last_resource_version_observed_by_the_previous_watch()
 {
    let api = Api::new().await;
    let mut closed = watch(&api, "", "restarted").await;
    let created = create(&api, "a", "restarted").await;
    let first = mutate(&api, "a", "1").await;
    closed.expect("ADDED", &created).await;
    let last = closed.event().await.unwrap();
    assert_eq!(last["object"], first);
    drop(closed);
    let second = mutate(&api, "a", "2").await;
    let mut restarted = watch(&api, version(&last["object"]), "restarted").await;
    delete(&api, "a").await;
    restarted.expect("MODIFIED", &second).await;
    assert_eq!(restarted.line().await, "DELETED a");
}

/// Must: an object that no longer fits the selector is told as deleted
/// Must: nothing is told of it until it fits again
/// Must: once it fits again it is told as added, and its changes and its deletion after that
#[tokio::test]
async fn watchers_should_observe_an_object_deletion_if_it_stops_meeting_the_requirements_of_the_selector()
 {
    let api = Api::new().await;
    let mut watch = watch(&api, "", "wanted").await;
    let created = create(&api, "a", "wanted").await;
    let first = mutate(&api, "a", "1").await;
    relabel(&api, "a", "other").await;
    watch.expect("ADDED", &created).await;
    watch.expect("MODIFIED", &first).await;
    assert_eq!(watch.line().await, "DELETED a");
    mutate(&api, "a", "2").await;
    let restored = relabel(&api, "a", "wanted").await;
    let third = mutate(&api, "a", "3").await;
    delete(&api, "a").await;
    watch.expect("ADDED", &restored).await;
    watch.expect("MODIFIED", &third).await;
    assert_eq!(watch.line().await, "DELETED a");
}

/// Must: watches begun at each of the versions that another has told tell the same versions in the
/// same order, while writes go on
#[tokio::test]
async fn watchers_should_receive_events_on_concurrent_watches_in_same_order() {
    let api = Api::new().await;
    let list = api.get(CONFIG_MAPS).await.ok(200);
    let mut at = version(&list).to_owned();
    let writer = tokio::spawn({
        let api = api.clone();
        async move {
            // Creations, changes and deletions of a few objects in turn, until the test is over.
            for round in 0.. {
                let name = format!("m{}", round % 7);
                let path = format!("{CONFIG_MAPS}/{name}");
                if api.get(&path).await.code == 404 {
                    create(&api, &name, "any").await;
                } else if round % 3 == 0 {
                    delete(&api, &name).await;
                } else {
                    mutate(&api, &name, &round.to_string()).await;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let mut watches: Vec<Watch> = Vec::new();
    for _ in 0..100 {
        let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={at}");
        watches.push(api.watch(&path).await);
        let mut told = None;
        for watch in &mut watches {
            let event = watch.event().await.expect("the watch goes on");
            let version = version(&event["object"]).to_owned();
            assert_eq!(*told.get_or_insert_with(|| version.clone()), version);
        }
        at = told.unwrap();
    }
    writer.abort();
}
