//! kube's client over the server's own service, without a socket.

use coracle_apiserver::UserInfo;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::{Api as Resources, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use crate::harness::{Api, DEADLINE};

pub(crate) fn client(api: &Api) -> kube::Client {
    let service = api
        .server
        .service()
        .with_identity(UserInfo::new("admin", &["system:masters"]));
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn the_verbs() {
    let api = Api::new().await;
    let maps: Resources<ConfigMap> = Resources::default_namespaced(client(&api));
    let mut object = ConfigMap::default();
    object.metadata.name = Some("a".to_owned());
    let mut created = maps.create(&PostParams::default(), &object).await.unwrap();
    created.data = Some([("a".to_owned(), "b".to_owned())].into());
    let replaced = maps
        .replace("a", &PostParams::default(), &created)
        .await
        .unwrap();
    assert_eq!(replaced.data, created.data);
    let patch = Patch::Merge(json!({"data": {"c": "d"}}));
    maps.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let list = maps.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!(list.items[0].data.as_ref().unwrap().len(), 2);
    let metadata = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 1);
    assert!(maps.get_opt("none").await.unwrap().is_none());
    let conflict = maps
        .replace("a", &PostParams::default(), &created)
        .await
        .unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.code == 409));
    let deleted = maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(deleted.is_right());
}

async fn sees_changes(config: watcher::Config) {
    let api = Api::new().await;
    api.config_map("a").await;
    let maps: Resources<ConfigMap> = Resources::all(client(&api));
    let mut applied = Box::pin(watcher(maps, config).applied_objects());
    let next = tokio::time::timeout(DEADLINE, applied.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(next.metadata.name.as_deref(), Some("a"));
    api.config_map("b").await;
    let next = tokio::time::timeout(DEADLINE, applied.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(next.metadata.name.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_watcher_lists_and_watches() {
    sees_changes(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_watcher_streams_its_list() {
    sees_changes(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn expired_events_are_removed() {
    let api = Api::over(coracle_store::MemoryStore::new(), |config| {
        config.event_ttl = std::time::Duration::ZERO;
    })
    .await;
    let events: Resources<Event> = Resources::default_namespaced(client(&api));
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "e.1", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "R", "type": "Normal", "lastTimestamp": "2001-01-01T00:00:00Z", "firstTimestamp": "2001-01-01T00:00:00Z",
    }))
    .unwrap();
    events.create(&PostParams::default(), &event).await.unwrap();
    let mut watch = api.watch("/api/v1/namespaces/default/events?watch=1").await;
    assert_eq!(watch.line().await, "ADDED e.1");
    let cancel = tokio_util::sync::CancellationToken::new();
    let chores = tokio::spawn({
        let (server, cancel) = (api.server.clone(), cancel.clone());
        async move { server.run(cancel).await }
    });
    assert_eq!(watch.line().await, "DELETED e.1");
    cancel.cancel();
    chores.await.unwrap();
}
