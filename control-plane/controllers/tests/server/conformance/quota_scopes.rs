//! Quotas that count some Pods only.

use serde_json::{Value, json};

use super::resource_quota::{Quotas, pod};
use crate::harness::{create, delete};

/// Creates two quotas, of which each scope is what the other is not; then Pods, one after
/// another, with the place (0 or 1) of the quota that counts each, while the other does not, and
/// what is counted.
async fn split(scopes: [&str; 2], hard: Value, pods: [(Value, usize, Value); 2]) {
    let quotas = Quotas::new().await;
    let mut none = hard.clone();
    for amount in none.as_object_mut().unwrap().values_mut() {
        *amount = json!("0");
    }
    for scope in scopes {
        let name = scope.to_lowercase();
        let spec = json!({"hard": hard, "scopes": [scope]});
        create(
            &quotas.quotas,
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
        let status = quotas.shows(&name, none.clone()).await;
        assert_eq!(status["hard"], hard);
    }
    let api = quotas.pods();
    for (pod, by, counted) in pods {
        create(&api, pod.clone()).await;
        let [counts, ignores] = [scopes[by], scopes[1 - by]].map(str::to_lowercase);
        quotas.shows(&counts, counted).await;
        quotas.shows(&ignores, none.clone()).await;
        delete(&api, pod["metadata"]["name"].as_str().unwrap()).await;
        quotas.shows(&counts, none.clone()).await;
        quotas.shows(&ignores, none.clone()).await;
    }
}

/// Must: quotas of Pods of best effort, and of all others, can be created
/// Must: their status says what is used and what may be
/// Must: a Pod without requests and limits can be created
/// Must: the quota of best effort counts it
/// Must: the other does not
/// Must: it can be deleted
/// Must: it is then not counted
/// Must: a Pod with requests and limits can be created
/// Must: the quota of what is not best effort counts it
/// Must: the other does not
/// Must: it can be deleted
/// Must: it is then not counted
#[tokio::test]
async fn resourcequota_should_verify_resourcequota_with_best_effort_scope() {
    let requests = json!({"cpu": "500m", "memory": "200Mi"});
    let limits = json!({"cpu": "1", "memory": "400Mi"});
    let one = json!({"pods": "1"});
    let pods = [
        (pod("best-effort", json!({}), json!({})), 0, one.clone()),
        (pod("burstable", requests, limits), 1, one),
    ];
    split(["BestEffort", "NotBestEffort"], json!({"pods": "5"}), pods).await;
}

/// Must: quotas of Pods that end by themselves, and of all others, can be created
/// Must: their status says what is used and what may be
/// Must: a Pod without a deadline can be created
/// Must: the quota of Pods that do not end counts it, its requests and its limits
/// Must: the other does not
/// Must: it can be deleted
/// Must: it is then not counted
/// Must: a Pod with a deadline can be created
/// Must: the quota of Pods that end counts it, its requests and its limits
/// Must: the other does not
/// Must: it can be deleted
/// Must: it is then not counted
#[tokio::test]
async fn resourcequota_should_verify_resourcequota_with_terminating_scopes() {
    let hard = json!({
        "pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2",
        "limits.memory": "1Gi",
    });
    let requests = json!({"cpu": "500m", "memory": "200Mi"});
    let limits = json!({"cpu": "1", "memory": "400Mi"});
    let used = json!({
        "pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "1",
        "limits.memory": "400Mi",
    });
    let mut ends = pod("ends", requests.clone(), limits.clone());
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    let pods = [
        (pod("runs", requests, limits), 1, used.clone()),
        (ends, 0, used),
    ];
    split(["Terminating", "NotTerminating"], hard, pods).await;
}
