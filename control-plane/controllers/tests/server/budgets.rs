use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use kube::ResourceExt;
use kube::api::{Api, EvictParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, set_status, until};

fn workload(name: &str, replicas: i32) -> Value {
    let labels = json!({"app": name});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "serviceName": name,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn budget(app: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": app}});
    json!({"metadata": {"name": app}, "spec": spec})
}

/// Expected, desired, healthy, allowed.
async fn shows(budgets: &Api<PodDisruptionBudget>, name: &str, want: [i32; 4]) {
    until(budgets, name, |budget| {
        let Some(status) = budget.and_then(|budget| budget.status.as_ref()) else {
            return false;
        };
        numbers(status) == want.map(Some) && status.observed_generation == Some(1)
    })
    .await;
}

fn numbers(status: &PodDisruptionBudgetStatus) -> [Option<i32>; 4] {
    [
        status.expected_pods,
        status.desired_healthy,
        status.current_healthy,
        status.disruptions_allowed,
    ]
}

async fn make_ready(pods: &Api<Pod>, name: &str) {
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    set_status(pods, name, ready).await;
}

#[tokio::test]
async fn a_budget_follows_its_deployment() {
    let cluster = Cluster::new().await;
    let budgets: Api<PodDisruptionBudget> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let deployments: Api<Deployment> = cluster.namespaced("default");
    create(&budgets, budget("web", json!({"maxUnavailable": 1}))).await;
    shows(&budgets, "web", [0, 0, 0, 0]).await;
    create(&deployments, workload("web", 3)).await;
    shows(&budgets, "web", [3, 2, 0, 0]).await;
    let selected = ListParams::default().labels("app=web");
    // All three are there before any is made ready.
    until(&deployments, "web", |web| {
        web.and_then(|web| web.status.as_ref()?.replicas) == Some(3)
    })
    .await;
    let names: Vec<String> = pods
        .list(&selected)
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    for name in &names {
        make_ready(&pods, name).await;
    }
    shows(&budgets, "web", [3, 2, 3, 1]).await;

    pods.evict(&names[0], &EvictParams::default())
        .await
        .unwrap();
    let refused = pods.evict(&names[1], &EvictParams::default()).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 429));
    shows(&budgets, "web", [3, 2, 2, 0]).await;

    let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
    deployments
        .patch("web", &PatchParams::default(), &scale)
        .await
        .unwrap();
    shows(&budgets, "web", [2, 1, 2, 1]).await;
}

#[tokio::test]
async fn a_budget_asks_other_controllers_for_their_scale() {
    let cluster = Cluster::new().await;
    let budgets: Api<PodDisruptionBudget> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let sets: Api<StatefulSet> = cluster.namespaced("default");
    let set = create(&sets, workload("db", 4)).await;
    create(&budgets, budget("db", json!({"minAvailable": "50%"}))).await;
    let owner = |kind: &str, version: &str, uid: Option<String>| json!({"apiVersion": version, "kind": kind, "name": "db", "uid": uid, "controller": true});
    let pod = |name: &str, owner: Value| {
        json!({"metadata": {"name": name, "labels": {"app": name}, "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
    };
    let mut member = pod("member", owner("StatefulSet", "apps/v1", set.uid()));
    member["metadata"]["labels"] = json!({"app": "db"});
    create(&pods, member).await;
    make_ready(&pods, "member").await;
    // A controller of StatefulSets may add Pods of its own; none of them is ready.
    shows(&budgets, "db", [4, 2, 1, 0]).await;

    // What has no scale leaves a budget without a measure, and nobody may go.
    let map = json!({"metadata": {"name": "db"}});
    let map = create(&cluster.namespaced::<ConfigMap>("default"), map).await;
    create(&pods, pod("odd", owner("ConfigMap", "v1", map.uid()))).await;
    create(&budgets, budget("odd", json!({"maxUnavailable": 1}))).await;
    let failed = until(&budgets, "odd", |budget| {
        let conditions = budget.and_then(|budget| budget.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.reason == "SyncFailed"))
    })
    .await;
    let status = failed.unwrap().status.unwrap();
    assert_eq!(status.disruptions_allowed, Some(0));
    let message = &status.conditions.unwrap()[0].message;
    assert!(
        message.contains("configmaps does not implement the scale"),
        "{message}"
    );
}
