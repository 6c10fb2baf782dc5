//! PodDisruptionBudgets and the evictions that they allow.

use serde_json::{Value, json};

use super::{Subject, lifecycle};
use crate::harness::{Api, PODS, pod};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn budget(name: &str, min_available: Value) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": min_available, "selector": {"matchLabels": {"app": "web"}}},
    })
}

async fn running_pod(api: &Api, name: &str, ready: bool) {
    let mut body = pod(name);
    body["metadata"]["labels"] = json!({"app": "web"});
    body["spec"]["nodeName"] = json!("n1");
    api.post(PODS, &body).await.ok(201);
    let state = if ready { "True" } else { "False" };
    let status =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": state}]}});
    api.patch(&format!("{PODS}/{name}/status"), "strategic-merge", &status)
        .await
        .ok(200);
}

async fn set_status(api: &Api, name: &str, status: Value) {
    let path = format!("{BUDGETS}/{name}/status");
    api.patch(&path, "merge", &json!({"status": status}))
        .await
        .ok(200);
}

async fn evict(api: &Api, name: &str) -> crate::harness::Answer {
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    api.post(&format!("{PODS}/{name}/eviction"), &eviction)
        .await
}

#[tokio::test]
async fn a_budget_holds_evictions_back_until_its_controller_allows_them() {
    let api = Api::new().await;
    running_pod(&api, "a", true).await;
    running_pod(&api, "b", true).await;
    api.post(BUDGETS, &budget("web", json!(2))).await.ok(201);

    let answer = evict(&api, "a").await;
    let message = answer.fails(429, "TooManyRequests");
    assert_eq!(
        message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(answer.headers["retry-after"], "10");
    let cause = &answer.json()["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    assert_eq!(
        cause["message"],
        "The disruption budget web is still being processed by the server."
    );

    let seen = json!({"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2});
    set_status(&api, "web", seen).await;
    let answer = evict(&api, "a").await;
    answer.fails(429, "TooManyRequests");
    assert_eq!(
        answer.json()["details"]["causes"][0]["message"],
        "The disruption budget web needs 2 healthy pods and has 2 currently"
    );
    api.get(&format!("{PODS}/a")).await.ok(200);

    let patched = api
        .patch(
            &format!("{BUDGETS}/web"),
            "merge",
            &json!({"spec": {"minAvailable": 1}}),
        )
        .await
        .ok(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    let allowed = json!({"observedGeneration": 2, "desiredHealthy": 1, "disruptionsAllowed": 1});
    set_status(&api, "web", allowed).await;
    let done = evict(&api, "a").await.ok(201);
    assert_eq!(done["status"], "Success");
    let gone = api.get(&format!("{PODS}/a")).await.ok(200);
    assert!(gone["metadata"]["deletionTimestamp"].is_string());
    let conditions = gone["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c["type"] == "DisruptionTarget" && c["reason"] == "EvictionByEvictionAPI")
    );
    let charged = api.get(&format!("{BUDGETS}/web")).await.ok(200);
    assert_eq!(charged["status"]["disruptionsAllowed"], 0);
    assert!(charged["status"]["disruptedPods"]["a"].is_string());
    assert_eq!(
        charged["status"]["conditions"][0]["reason"],
        "InsufficientPods"
    );
    evict(&api, "b").await.fails(429, "TooManyRequests");
    // The one that goes already may be asked to go again.
    evict(&api, "a").await.ok(201);
}

#[tokio::test]
async fn pods_that_do_not_serve_are_evicted_while_enough_others_do() {
    let api = Api::new().await;
    running_pod(&api, "sick", false).await;
    let mut always = budget("web", json!(1));
    always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
    api.post(BUDGETS, &always).await.ok(201);
    evict(&api, "sick").await.ok(201);

    running_pod(&api, "worse", false).await;
    let policy = json!({"spec": {"unhealthyPodEvictionPolicy": null}});
    api.patch(&format!("{BUDGETS}/web"), "merge", &policy)
        .await
        .ok(200);
    evict(&api, "worse").await.fails(429, "TooManyRequests");
    let enough = json!({"observedGeneration": 2, "currentHealthy": 1, "desiredHealthy": 1});
    set_status(&api, "web", enough).await;
    evict(&api, "worse").await.ok(201);
    let untouched = api.get(&format!("{BUDGETS}/web")).await.ok(200);
    assert!(untouched["status"].get("disruptedPods").is_none());
}

#[tokio::test]
async fn a_dry_run_charges_nothing_and_two_budgets_are_one_too_many() {
    let api = Api::new().await;
    running_pod(&api, "a", true).await;
    api.post(BUDGETS, &budget("web", json!(0))).await.ok(201);
    let allowed = json!({"observedGeneration": 1, "disruptionsAllowed": 1});
    set_status(&api, "web", allowed).await;
    let path = format!("{PODS}/a/eviction?dryRun=All");
    api.post(&path, &json!({"metadata": {"name": "a"}}))
        .await
        .ok(201);
    let untouched = api.get(&format!("{BUDGETS}/web")).await.ok(200);
    assert_eq!(untouched["status"]["disruptionsAllowed"], 1);
    let pod = api.get(&format!("{PODS}/a")).await.ok(200);
    assert!(pod["metadata"].get("deletionTimestamp").is_none());

    api.post(BUDGETS, &budget("other", json!(0))).await.ok(201);
    let message = evict(&api, "a").await.fails(500, "InternalError");
    assert!(
        message.contains("more than one PodDisruptionBudget"),
        "{message}"
    );
}

#[tokio::test]
async fn a_budget_has_every_verb() {
    let api = Api::new().await;
    let subject = Subject {
        group_version: "/apis/policy/v1",
        plural: "poddisruptionbudgets",
        namespaced: true,
        body: budget("web", json!("50%")),
        status: Some(
            json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}),
        ),
    };
    lifecycle(&api, &subject).await;
    subject.create(&api, "web").await;
    // The whole budget is replaced only by who has seen it.
    api.put(&format!("{BUDGETS}/web"), &subject.named("web"))
        .await
        .fails(422, "Invalid");
}
