//! How fast Pods become ready.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, sample};
use crate::{Row, percentile};

pub(crate) fn rows() {
    let cluster = Cluster::up(&[]);
    let guest = sample("hello-http").join("hello-http.wasm");
    cluster.coracle(&["push", guest.to_str().unwrap_or_default(), "hello-http:v1"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = client(&cluster).await;
        let spec = json!({"containers": [container()]});
        let mut times = one_by_one(&client, &spec, 100).await;
        Row::new(
            "image cached: create of an HTTP Pod to Ready, p50 / p99 of 100",
            format!(
                "{:.1} / {:.1} ms",
                percentile(&mut times, 50.0),
                percentile(&mut times, 99.0)
            ),
            "≤ 20 / 100 ms",
        )
        .print();
        let burst = burst(&client, &spec, 500).await;
        Row::new(
            "a Deployment scaled 0 → 500 Ready",
            format!("{:.2} s", burst.as_secs_f64()),
            "≤ 5 s",
        )
        .print();
    });
}

/// A client of the cluster's admin.
pub(crate) async fn client(cluster: &Cluster) -> kube::Client {
    let file = kube::config::Kubeconfig::read_from(cluster.data().join("kubeconfig"))
        .expect("the kubeconfig reads");
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default())
        .await
        .expect("the kubeconfig fits");
    kube::Client::try_from(config).expect("a client")
}

fn container() -> Value {
    json!({
        "name": "main",
        "image": "hello-http:v1",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080}],
    })
}

/// Milliseconds from the create call to the watch event that says Ready, Pod after Pod of a spec.
pub(crate) async fn one_by_one(client: &kube::Client, spec: &Value, count: usize) -> Vec<f64> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut times = Vec::new();
    // The first pulls and compiles the image.
    for number in 0..=count {
        let name = format!("single-{number}");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": spec,
        }))
        .expect("a Pod");
        let started = Instant::now();
        let created = pods
            .create(&PostParams::default(), &pod)
            .await
            .expect("created");
        let from = created.metadata.resource_version.unwrap_or_default();
        let parameters = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = pods
            .watch(&parameters, &from)
            .await
            .expect("a watch")
            .boxed();
        while let Some(event) = events.try_next().await.expect("an event") {
            if let WatchEvent::Modified(pod) = event
                && coracle_apimachinery::pods::is_ready(&pod)
            {
                break;
            }
        }
        if number > 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let now = DeleteParams::default().grace_period(0);
        let _ = pods.delete(&name, &now).await;
    }
    times
}

/// The time in which a Deployment goes from none to `count` ready Pods of a spec.
pub(crate) async fn burst(client: &kube::Client, spec: &Value, count: i32) -> Duration {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "burst"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "burst"}},
            "template": {
                "metadata": {"labels": {"app": "burst"}},
                "spec": spec,
            },
        },
    }))
    .expect("a Deployment");
    let created = deployments
        .create(&PostParams::default(), &deployment)
        .await
        .expect("created");
    let from = created.metadata.resource_version.unwrap_or_default();
    let parameters = WatchParams::default().fields("metadata.name=burst");
    let mut events = deployments
        .watch(&parameters, &from)
        .await
        .expect("a watch")
        .boxed();
    let started = Instant::now();
    deployments
        .patch(
            "burst",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": count}})),
        )
        .await
        .expect("scaled");
    while let Some(event) = events.try_next().await.expect("an event") {
        if let WatchEvent::Modified(deployment) = event
            && deployment.status.and_then(|status| status.ready_replicas) == Some(count)
        {
            break;
        }
    }
    started.elapsed()
}
