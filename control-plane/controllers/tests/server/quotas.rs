use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Service};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::harness::{Cluster, create, delete, set_status, until};

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "100m"}}}]}})
}

/// Waits until the quota shows this use, whatever else it shows.
async fn shows(quotas: &Api<ResourceQuota>, want: Value) {
    until(quotas, "all", |quota| {
        let used = quota.and_then(|quota| quota.status.as_ref()?.used.clone());
        let used = serde_json::to_value(used).unwrap();
        let mut pairs = want.as_object().unwrap().iter();
        pairs.all(|(name, amount)| used.get(name) == Some(amount))
    })
    .await;
}

#[tokio::test]
async fn a_quota_counts_what_comes_and_goes() {
    let cluster = Cluster::new().await;
    let quotas: Api<ResourceQuota> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let maps: Api<ConfigMap> = cluster.namespaced("default");
    create(&pods, pod("before")).await;
    create(&maps, json!({"metadata": {"name": "before"}})).await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "count/configmaps": "2", "services": "5",
        "count/deployments.apps": "1"});
    create(
        &quotas,
        json!({"metadata": {"name": "all"}, "spec": {"hard": hard}}),
    )
    .await;
    shows(
        &quotas,
        json!({"pods": "1", "requests.cpu": "100m", "count/configmaps": "1",
        "services": "1", "count/deployments.apps": "0"}),
    )
    .await;

    create(&pods, pod("second")).await;
    let third = serde_json::from_value(pod("third")).unwrap();
    let refused = pods
        .create(&PostParams::default(), &third)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("exceeded quota: all"),
        "{refused}"
    );

    set_status(&pods, "before", json!({"phase": "Succeeded"})).await;
    shows(&quotas, json!({"pods": "1", "requests.cpu": "100m"})).await;
    pods.create(&PostParams::default(), &third).await.unwrap();
    delete(&pods, "second").await;
    delete(&pods, "third").await;
    delete(&maps, "before").await;
    let services: Api<Service> = cluster.namespaced("default");
    create(
        &services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    shows(
        &quotas,
        json!({"pods": "0", "requests.cpu": "0", "count/configmaps": "0", "services": "2"}),
    )
    .await;

    let more = Patch::Merge(json!({"spec": {"hard": {"pods": "7", "count/secrets": "3"}}}));
    quotas
        .patch("all", &PatchParams::default(), &more)
        .await
        .unwrap();
    shows(&quotas, json!({"pods": "0", "count/secrets": "0"})).await;
    let status = quotas.get("all").await.unwrap().status.unwrap();
    assert_eq!(status.hard.unwrap()["pods"].0, "7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_burst_never_exceeds_the_quota() {
    let cluster = Cluster::new().await;
    let quotas: Api<ResourceQuota> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let hard = json!({"metadata": {"name": "all"}, "spec": {"hard": {"pods": "5"}}});
    create(&quotas, hard).await;
    shows(&quotas, json!({"pods": "0"})).await;
    for round in 0..2 {
        let mut creations = tokio::task::JoinSet::new();
        for number in 0..30 {
            let pods = pods.clone();
            let pod = serde_json::from_value(pod(&format!("p{round}-{number}"))).unwrap();
            creations.spawn(async move { pods.create(&PostParams::default(), &pod).await });
        }
        let created = creations.join_all().await;
        let created: Vec<Pod> = created.into_iter().flatten().collect();
        assert_eq!(created.len(), 5);
        for pod in created {
            delete(&pods, &pod.name_any()).await;
        }
        shows(&quotas, json!({"pods": "0"})).await;
    }
}
