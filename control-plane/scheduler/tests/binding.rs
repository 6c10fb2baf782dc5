//! Hundreds of Pods are bound, each once, and told of.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_scheduler::{Feed, SchedulerConfig, run};
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::client::Body;
use kube::runtime::reflector::store;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tower::service_fn;

/// What the API server was asked to do.
#[derive(Default)]
struct Asked {
    /// Bindings by Pod: how often, and to which node at last.
    bindings: Mutex<HashMap<String, (usize, String)>>,
    /// Conditions by Pod.
    conditions: Mutex<BTreeMap<String, Value>>,
    changed: Notify,
}

async fn serve(request: Request<Body>, asked: Arc<Asked>) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect_bytes().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut path = path.rsplit('/');
    let (last, name) = (
        path.next().unwrap_or_default(),
        path.next().unwrap_or_default(),
    );
    let answer = match (method, last) {
        (Method::POST, "binding") => {
            let mut bindings = asked.bindings.lock().unwrap();
            let entry = bindings.entry(name.to_owned()).or_default();
            entry.0 += 1;
            entry.1 = body["target"]["name"].as_str().unwrap().to_owned();
            // One is refused at first.
            if name == "p7" && entry.0 == 1 {
                let refusal = json!({"kind": "Status", "status": "Failure", "code": 500,
                    "reason": "InternalError", "message": "not now"});
                let response = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(response
                    .body(Body::from(refusal.to_string().into_bytes()))
                    .unwrap());
            }
            json!({"kind": "Status", "status": "Success", "code": 201})
        }
        (Method::PATCH, "status") => {
            let condition = body["status"]["conditions"][0].clone();
            asked
                .conditions
                .lock()
                .unwrap()
                .insert(name.to_owned(), condition);
            json!({"metadata": {"name": name}})
        }
        _ => body,
    };
    asked.changed.notify_one();
    Ok(Response::new(Body::from(answer.to_string().into_bytes())))
}

fn feed<K>(objects: Vec<K>) -> (Feed<K>, broadcast::Sender<Arc<K>>)
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    let (sender, changes) = broadcast::channel(16);
    let ready = tokio::sync::watch::channel(true).1;
    let feed = Feed {
        store,
        changes,
        ready,
    };
    (feed, sender)
}

fn pod(name: &str, spec: Value) -> Pod {
    let metadata = json!({"name": name, "namespace": "ns", "uid": name});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

#[tokio::test]
async fn five_hundred_pods() {
    let asked = Arc::new(Asked::default());
    let seen = asked.clone();
    let client = Client::new(
        service_fn(move |request| serve(request, seen.clone())),
        "default",
    );
    let nodes = (0..3).map(|n| {
        let amounts = json!({"cpu": "64", "memory": "64Gi", "pods": "200"});
        let node =
            json!({"metadata": {"name": format!("n{n}")}, "status": {"allocatable": amounts}});
        serde_json::from_value(node).unwrap()
    });
    let plain = json!({"containers": [{"name": "c", "image": "i"}]});
    let mut pods: Vec<Pod> = (0..500)
        .map(|n| pod(&format!("p{n}"), plain.clone()))
        .collect();
    let with = |field: &str, value: Value| {
        let mut spec = plain.clone();
        spec[field] = value;
        spec
    };
    pods.push(pod(
        "elsewhere",
        with("nodeSelector", json!({"disk": "none"})),
    ));
    pods.push(pod("foreign", with("schedulerName", json!("another"))));
    pods.push(pod(
        "gated",
        with("schedulingGates", json!([{"name": "a/b"}])),
    ));
    pods.push(pod("placed", with("nodeName", json!("n1"))));
    let (nodes, _nodes) = feed::<Node>(nodes.collect());
    let (pods, _pods) = feed(pods);
    let cancel = CancellationToken::new();
    let scheduler = tokio::spawn(run(
        client,
        SchedulerConfig::new(pods, nodes),
        cancel.clone(),
    ));

    let done = async {
        loop {
            let bound = asked
                .bindings
                .lock()
                .unwrap()
                .values()
                .map(|(times, _)| times)
                .sum::<usize>();
            // All once, and the refused one once more.
            if bound == 501 && !asked.conditions.lock().unwrap().is_empty() {
                return;
            }
            asked.changed.notified().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), done).await;
    let bindings = asked.bindings.lock().unwrap().clone();
    assert!(in_time.is_ok(), "only {} were bound", bindings.len());
    assert_eq!(bindings.len(), 500);
    assert!(
        bindings
            .iter()
            .all(|(name, (times, _))| *times == 1 || name == "p7")
    );
    let mut per_node: BTreeMap<String, usize> = BTreeMap::new();
    for (_, node) in bindings.into_values() {
        *per_node.entry(node).or_default() += 1;
    }
    assert_eq!(per_node.values().sum::<usize>(), 500);
    assert!(
        per_node.values().all(|count| (160..=175).contains(count)),
        "{per_node:?}"
    );
    let condition = asked.conditions.lock().unwrap()["elsewhere"].clone();
    assert_eq!(condition["reason"], "Unschedulable");
    let message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    assert_eq!(condition["message"], message);
    cancel.cancel();
    scheduler.await.unwrap().unwrap();
}
