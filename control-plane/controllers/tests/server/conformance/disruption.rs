//! test/e2e/apps/disruption.go.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, EvictParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{is_ready, run_pods};
use crate::harness::{Cluster, create, until};

async fn ready_pods(pods: &Api<Pod>, count: usize) {
    for n in 0..count {
        let name = format!("pod-{n}");
        let labels = json!({"foo": "bar"});
        create(pods, json!({"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}})).await;
        until(pods, &name, |pod| pod.is_some_and(is_ready)).await;
    }
}

fn budget(spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"foo": "bar"}});
    json!({"metadata": {"name": "foo"}, "spec": spec})
}

/// Waits until the budget as it is now was seen, and allows so many disruptions.
#[track_caller]
fn allows(
    budgets: &Api<PodDisruptionBudget>,
    disruptions: i32,
) -> impl Future<Output = Option<PodDisruptionBudget>> {
    until(budgets, "foo", move |budget| {
        let Some(budget) = budget else { return false };
        let Some(status) = &budget.status else {
            return false;
        };
        status.observed_generation == budget.metadata.generation
            && status.disruptions_allowed == Some(disruptions)
    })
}

async fn is_evicted(pods: &Api<Pod>, name: &str) -> bool {
    match pods.evict(name, &EvictParams::default()).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 429 => false,
        Err(error) => panic!("{error}"),
    }
}

/// Must: the status of a budget says how many disruptions are allowed, from its creation on and
/// when its Pods change.
#[tokio::test]
async fn disruptioncontroller_should_observe_poddisruptionbudget_status_updated() {
    let cluster = Cluster::new().await;
    let budgets: Api<PodDisruptionBudget> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    create(&budgets, budget(json!({"minAvailable": 1}))).await;
    allows(&budgets, 0).await;
    ready_pods(&pods, 3).await;
    let seen = allows(&budgets, 2).await.unwrap();
    let status = seen.status.unwrap();
    assert_eq!(status.current_healthy, Some(3));
    assert_eq!(status.expected_pods, Some(3));
    assert_eq!(status.desired_healthy, Some(1));
}

/// Must: an eviction is refused while a budget does not allow it.
/// Must: it succeeds once the budget is updated to allow it.
/// Must: the next is refused once the budget is patched not to, and succeeds when there is none.
#[tokio::test]
async fn disruptioncontroller_should_block_an_eviction_until_the_pdb_is_updated_to_allow_it() {
    let cluster = Cluster::new().await;
    let budgets: Api<PodDisruptionBudget> = cluster.namespaced("default");
    let pods: Api<Pod> = cluster.namespaced("default");
    let _node = run_pods(&cluster);
    create(&budgets, budget(json!({"minAvailable": 3}))).await;
    ready_pods(&pods, 3).await;
    until(&budgets, "foo", |budget| {
        let status = budget.and_then(|budget| budget.status.as_ref());
        status.is_some_and(|status| status.current_healthy == Some(3))
    })
    .await;
    assert!(!is_evicted(&pods, "pod-0").await);

    let mut seen = budgets.get("foo").await.unwrap();
    let two = serde_json::from_value(json!(2)).unwrap();
    seen.spec.as_mut().unwrap().min_available = Some(two);
    seen.metadata.managed_fields = None;
    budgets
        .replace("foo", &Default::default(), &seen)
        .await
        .unwrap();
    allows(&budgets, 1).await;
    assert!(is_evicted(&pods, "pod-0").await);
    until(&pods, "pod-0", |pod| pod.is_none()).await;

    let patch = Patch::Merge(json!({"spec": {"minAvailable": 3}}));
    budgets
        .patch("foo", &PatchParams::default(), &patch)
        .await
        .unwrap();
    allows(&budgets, 0).await;
    assert!(!is_evicted(&pods, "pod-1").await);
    budgets
        .delete("foo", &DeleteParams::default())
        .await
        .unwrap();
    assert!(is_evicted(&pods, "pod-1").await);
}
