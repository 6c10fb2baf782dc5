//! All controllers together watch each kind once.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_controllers::informer::Informers;
use coracle_controllers::{ControllersConfig, run};
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::service_fn;

/// How often each path was watched.
#[derive(Default)]
struct Watches {
    counts: Mutex<BTreeMap<String, usize>>,
    changed: Notify,
}

const KINDS: [&str; 5] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "resourcequotas",
    "secrets",
];

/// An API server that has nothing, and serves some kinds to discovery: those that have an
/// informer, and two that only the garbage collector cares for.
async fn serve(
    request: Request<Body>,
    watches: Arc<Watches>,
) -> Result<Response<Body>, Infallible> {
    let (path, query) = (
        request.uri().path(),
        request.uri().query().unwrap_or_default(),
    );
    if query.contains("watch=") {
        let selector = query
            .split('&')
            .find(|part| part.starts_with("fieldSelector="));
        let key = format!("{path} {}", selector.unwrap_or_default());
        *watches.counts.lock().unwrap().entry(key).or_default() += 1;
        watches.changed.notify_one();
        // A watch that never tells anything.
        std::future::pending::<()>().await;
    }
    let resource = |name: &&str| {
        json!({"resource": name, "scope": "Namespaced", "singularResource": "",
            "responseKind": {"group": "", "version": "v1", "kind": name},
            "verbs": ["create", "delete", "get", "list", "watch"]})
    };
    let answer: Value = match path {
        "/apis" => {
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": []})
        }
        "/api" => {
            let resources: Vec<_> = KINDS.iter().map(resource).collect();
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "items": [{"versions": [{"version": "v1", "resources": resources}]}]})
        }
        _ => {
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})
        }
    };
    Ok(Response::new(Body::from(answer.to_string().into_bytes())))
}

#[tokio::test]
async fn each_kind_is_watched_once() {
    let watches = Arc::new(Watches::default());
    let seen = watches.clone();
    let service = service_fn(move |request| serve(request, seen.clone()));
    let client = Client::new(service, "default");
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let informers = Informers::start(&client, &tasks, &cancel);
    let mut config = ControllersConfig::new(informers);
    config.root_ca = Some("certificates".to_owned());
    let controllers = tokio::spawn(run(client, config, cancel.clone()));
    let expected = [
        "/api/v1/configmaps ",
        "/api/v1/configmaps fieldSelector=metadata.name%3Dkube-root-ca.crt",
        "/api/v1/endpoints ",
        "/api/v1/namespaces ",
        "/api/v1/nodes ",
        "/api/v1/persistentvolumeclaims ",
        "/api/v1/persistentvolumes ",
        "/api/v1/pods ",
        "/api/v1/resourcequotas ",
        "/api/v1/secrets ",
        "/api/v1/serviceaccounts ",
        "/api/v1/services ",
        "/apis/apps/v1/deployments ",
        "/apis/apps/v1/replicasets ",
        "/apis/coordination.k8s.io/v1/leases ",
        "/apis/discovery.k8s.io/v1/endpointslices ",
        "/apis/policy/v1/poddisruptionbudgets ",
        "/apis/storage.k8s.io/v1/volumeattributesclasses ",
    ];
    let all = async {
        while watches.counts.lock().unwrap().len() < expected.len() {
            watches.changed.notified().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), all).await;
    let counts = watches.counts.lock().unwrap().clone();
    assert!(in_time.is_ok(), "only these were watched: {counts:?}");
    assert_eq!(counts, expected.map(|path| (path.to_owned(), 1)).into());
    cancel.cancel();
    controllers.await.unwrap().unwrap();
    tasks.close();
    tasks.wait().await;
}
