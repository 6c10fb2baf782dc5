//! kube-rs from its crate, with a kubeconfig over TLS: typed, dynamic and metadata-only `Api`s,
//! reflectors, the recorder of events.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::events::v1::Event as RecordedEvent;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    Api, DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, PartialObjectMeta, Status};
use kube::discovery::{ApiResource, Discovery};
use kube::runtime::events::{Event as Said, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Config, Resource, ResourceExt};
use serde_json::json;

use super::reach::Reach;
use crate::cluster::DEADLINE;

/// Runs a test with a client of a cluster of its own.
fn with_client(test: impl AsyncFnOnce(&mut Reach, Client)) {
    let mut reach = Reach::up();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(reach.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        // Else it asks on for minutes what a budget does not allow.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        tokio::time::timeout(DEADLINE, test(&mut reach, client))
            .await
            .expect("done in time");
    });
}

/// A namespace without anything.
async fn namespace(client: &Client) -> String {
    let wanted = Namespace {
        metadata: ObjectMeta {
            generate_name: Some("kube-rs-".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces = Api::<Namespace>::all(client.clone());
    let made = namespaces.create(&PostParams::default(), &wanted).await;
    made.unwrap().name_any()
}

fn secret(name: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

fn deployment(replicas: u32, note: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "app", "labels": {"app": "app"}, "annotations": {"note": note}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": {"containers": [{"name": "c", "image": "hello-http:v1", "env": [{"name": "A", "value": "a"}]}]},
            },
        },
    })
}

/// What the server refused, with its status.
#[track_caller]
fn refused<T: Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}

/// The dynamic form of a kind, found by discovery.
async fn discovered(client: &Client, kind: &GroupVersionKind) -> ApiResource {
    let discovery = Discovery::new(client.clone())
        .run_aggregated()
        .await
        .unwrap();
    discovery.resolve_gvk(kind).unwrap().0
}

#[test]
fn lists_come_in_pages() {
    with_client(async |reach, client| {
        let namespace = namespace(&client).await;
        let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
        for number in 0..7 {
            let wanted = secret(&format!("page-{number}"));
            secrets
                .create(&PostParams::default(), &wanted)
                .await
                .unwrap();
        }
        let mut names = Vec::new();
        let mut request = ListParams::default().limit(3);
        loop {
            let page = secrets.list(&request).await.unwrap();
            names.extend(page.iter().map(ResourceExt::name_any));
            let left = page.metadata.remaining_item_count.unwrap_or_default();
            assert_eq!(usize::try_from(left).unwrap(), 7 - names.len());
            let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else {
                break;
            };
            request = request.continue_token(&token);
            // The rest of a list is there after a restart.
            tokio::task::block_in_place(|| reach.restart());
        }
        assert_eq!(
            names,
            [0, 1, 2, 3, 4, 5, 6].map(|number| format!("page-{number}"))
        );

        let partial = secrets.list_metadata(&ListParams::default().limit(3)).await;
        assert_eq!(partial.unwrap().items.len(), 3);
        let kind = discovered(&client, &GroupVersionKind::gvk("", "v1", "Secret")).await;
        let dynamic = Api::<DynamicObject>::namespaced_with(client, &namespace, &kind);
        let page = dynamic.list(&ListParams::default().limit(3)).await.unwrap();
        assert_eq!(page.items.len(), 3);
        assert!(page.metadata.continue_.is_some());
    });
}

#[test]
fn all_patches_do_what_they_say() {
    with_client(async |_, client| {
        let namespace = namespace(&client).await;
        let kind = discovered(&client, &GroupVersionKind::gvk("apps", "v1", "Deployment")).await;
        let dynamic = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &kind);
        let typed = Api::<Deployment>::namespaced(client, &namespace);
        let one = PatchParams::apply("one");
        let applied = Patch::Apply(deployment(0, "mine"));
        dynamic.patch("app", &one, &applied).await.unwrap();

        let by_json = json!([
            {"op": "test", "path": "/spec/replicas", "value": 0},
            {"op": "add", "path": "/metadata/labels/json", "value": "yes"},
        ]);
        let by_json = Patch::Json::<()>(serde_json::from_value(by_json).unwrap());
        let plain = PatchParams::default();
        typed.patch("app", &plain, &by_json).await.unwrap();
        let by_merge = json!({"metadata": {"labels": {"json": null, "merge": "yes"}}});
        let by_merge = Patch::Merge(by_merge);
        let partial = typed.patch_metadata("app", &plain, &by_merge).await;
        assert_eq!(partial.unwrap().labels()["merge"], "yes");
        let by_key = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "env": [{"name": "B", "value": "b"}]},
        ]}}}});
        let patched = typed.patch("app", &plain, &Patch::Strategic(by_key)).await;
        let patched = patched.unwrap();
        assert!(!patched.labels().contains_key("json"));
        let spec = patched.spec.template.spec.unwrap();
        assert_eq!(spec.containers[0].image.as_deref(), Some("hello-http:v1"));
        assert_eq!(spec.containers[0].env.as_ref().unwrap().len(), 2);

        // Another manager may not take what is owned, unless it insists.
        let two = PatchParams::apply("two");
        let theirs = Patch::Apply(deployment(1, "theirs"));
        let conflict = refused(typed.patch("app", &two, &theirs).await);
        assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
        let causes = conflict.details.unwrap().causes;
        let fields: Vec<_> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, [".metadata.annotations.note", ".spec.replicas"]);
        assert!(
            causes
                .iter()
                .all(|cause| cause.reason == "FieldManagerConflict"
                    && cause.message.contains(r#"conflict with "one""#)),
            "{causes:?}"
        );
        let forced = typed.patch("app", &two.force(), &theirs).await.unwrap();
        assert_eq!(forced.annotations()["note"], "theirs");
    });
}

/// The versions of what a store has.
fn versions<K>(store: &Store<K>) -> BTreeMap<String, String>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let objects = store.state();
    let version = |object: &K| (object.name_any(), object.resource_version().unwrap());
    objects.iter().map(|object| version(object)).collect()
}

/// Goes on with a reflector until its store is as it should be.
async fn reflects<K>(
    events: &mut (impl Stream<Item = watcher::Result<watcher::Event<K>>> + Unpin),
    store: &Store<K>,
    truth: &BTreeMap<String, String>,
) where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    while versions(store) != *truth {
        // An error is followed by another try.
        let _ = events.next().await.expect("a watcher never ends");
    }
}

#[test]
fn reflectors_come_through_disconnects() {
    with_client(async |reach, client| {
        let namespace = namespace(&client).await;
        let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
        let kind = ApiResource::erase::<Secret>(&());
        let partial = Api::<PartialObjectMeta<Secret>>::namespaced(client.clone(), &namespace);
        let dynamic = Api::<DynamicObject>::namespaced_with(client, &namespace, &kind);

        let (listed, writer) = reflector::store();
        let config = watcher::Config::default().page_size(2);
        let watch = watcher(secrets.clone(), config).default_backoff();
        let mut lists = pin!(reflector(writer, watch));
        let (streamed, writer) = reflector::store();
        let config = watcher::Config::default().streaming_lists();
        let watch = watcher(partial, config).default_backoff();
        let mut streams = pin!(reflector(writer, watch));
        let writer = reflector::store::Writer::new(kind);
        let untyped = writer.as_reader();
        let watch = watcher(dynamic, watcher::Config::default()).default_backoff();
        let mut dynamics = pin!(reflector(writer, watch));

        for round in 0..4 {
            for name in ["kept", "lost", "late"] {
                let wanted = secret(&format!("{name}-{round}"));
                secrets
                    .create(&PostParams::default(), &wanted)
                    .await
                    .unwrap();
                match (name, round) {
                    ("lost", 1 | 3) => reach.cut(),
                    ("lost", 2) => tokio::task::block_in_place(|| reach.restart()),
                    _ => {}
                }
            }
            let lost = format!("lost-{round}");
            secrets
                .delete(&lost, &DeleteParams::default())
                .await
                .unwrap();
            let change =
                Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
            secrets
                .patch("kept-0", &PatchParams::default(), &change)
                .await
                .unwrap();
            let all = secrets.list(&ListParams::default()).await.unwrap();
            let version = |object: &Secret| (object.name_any(), object.resource_version().unwrap());
            let truth: BTreeMap<_, _> = all.iter().map(version).collect();
            reflects(&mut lists, &listed, &truth).await;
            reflects(&mut streams, &streamed, &truth).await;
            reflects(&mut dynamics, &untyped, &truth).await;
        }
    });
}

#[test]
fn pods_are_scaled_evicted_and_spoken_of() {
    with_client(async |_, client| {
        let deployments = Api::<Deployment>::default_namespaced(client.clone());
        let wanted = serde_json::from_value(deployment(0, "")).unwrap();
        deployments
            .create(&PostParams::default(), &wanted)
            .await
            .unwrap();
        let scale = deployments.get_scale("app").await.unwrap();
        assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=app"));
        let more = Patch::Merge(json!({"spec": {"replicas": 1}}));
        let scaled = deployments
            .patch_scale("app", &PatchParams::default(), &more)
            .await;
        assert_eq!(scaled.unwrap().spec.unwrap().replicas, Some(1));
        let ready = |found: Option<&Deployment>| {
            let status = found.and_then(|found| found.status.as_ref());
            status.is_some_and(|status| status.ready_replicas == Some(1))
        };
        await_condition(deployments, "app", ready).await.unwrap();

        let pods = Api::<Pod>::default_namespaced(client.clone());
        let ours = ListParams::default().labels("app=app");
        let pod = pods.list(&ours).await.unwrap().items.remove(0);
        let name = pod.name_any();
        let budgets = Api::<PodDisruptionBudget>::default_namespaced(client.clone());
        let guard = json!({
            "metadata": {"name": "guard"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "app"}}},
        });
        let guard = serde_json::from_value(guard).unwrap();
        budgets
            .create(&PostParams::default(), &guard)
            .await
            .unwrap();
        let params = EvictParams::default();
        let denied = refused(pods.evict(&name, &params).await);
        assert_eq!(
            (denied.code, denied.reason.as_str()),
            (429, "TooManyRequests")
        );
        budgets
            .delete("guard", &DeleteParams::default())
            .await
            .unwrap();
        pods.evict(&name, &params).await.unwrap();
        let uid = pod.uid().unwrap();
        await_condition(pods, &name, conditions::is_deleted(&uid))
            .await
            .unwrap();

        // Said twice, it is one event with a series.
        let recorder = Recorder::new(client.clone(), Reporter::from("kube-rs"));
        let said = Said {
            type_: EventType::Normal,
            reason: "Sung".to_owned(),
            note: Some("a song".to_owned()),
            action: "Singing".to_owned(),
            secondary: None,
        };
        for _ in 0..2 {
            recorder.publish(&said, &pod.object_ref(&())).await.unwrap();
        }
        let events = Api::<RecordedEvent>::default_namespaced(client);
        let heard = ListParams::default().fields("reason=Sung");
        let heard = events.list(&heard).await.unwrap().items;
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].series.as_ref().map(|series| series.count), Some(2));
        assert_eq!(heard[0].regarding.as_ref().unwrap().uid, Some(uid));
    });
}
