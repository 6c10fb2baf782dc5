//! test/e2e/apps/disruption.go: what of a PodDisruptionBudget needs no controller.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn budget(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"foo": "bar"}},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"foo": "bar"}}},
    })
}

fn budgets(api: &Api) -> Objects<'_> {
    Objects::namespaced(api, "/apis/policy/v1", "poddisruptionbudgets")
}

/// Must: a budget is created.
/// Must: it is updated, and patched.
/// Must: it is deleted.
#[tokio::test]
async fn disruptioncontroller_should_create_a_poddisruptionbudget() {
    let api = Api::new().await;
    let budgets = budgets(&api);
    let mut created = budgets.create(&budget("foo")).await;
    assert_eq!(created["spec"]["minAvailable"], 1);
    created["spec"]["minAvailable"] = json!("2%");
    let updated = budgets.update(&created).await;
    assert_eq!(updated["spec"]["minAvailable"], "2%");
    let patch = json!({"spec": {"minAvailable": "3%"}});
    let patched = budgets.patch("foo", "strategic-merge", &patch).await;
    assert_eq!(patched["spec"]["minAvailable"], "3%");
    assert_eq!(patched["spec"]["selector"], created["spec"]["selector"]);
    budgets.delete("foo").await;
    budgets.gone("foo").await;
}

/// Must: the status is updated.
/// Must: the status is patched.
#[tokio::test]
async fn disruptioncontroller_should_update_patch_poddisruptionbudget_status() {
    let api = Api::new().await;
    let budgets = budgets(&api);
    let mut budget = budgets.create(&budget("foo")).await;
    let since = "2026-01-01T00:00:00Z";
    budget["status"] = json!({
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2,
        "expectedPods": 3, "disruptedPods": {"pod-0": since},
    });
    let updated = budgets.update_status(&budget).await;
    assert_eq!(updated["status"]["disruptedPods"], json!({"pod-0": since}));
    assert_eq!(updated["status"]["currentHealthy"], 3);
    let patch = json!({"status": {"disruptedPods": {"pod-0": null, "pod-1": since}}});
    let patched = budgets.patch_status("foo", "merge", &patch).await;
    assert_eq!(patched["status"]["disruptedPods"], json!({"pod-1": since}));
}

/// Must: a list finds the budgets of one namespace and of all.
/// Must: deletecollection deletes those of one namespace.
#[tokio::test]
async fn disruptioncontroller_listing_poddisruptionbudgets_for_all_namespaces_should_list_and_delete_a_collection_of_poddisruptionbudgets()
 {
    let api = Api::new().await;
    let other = json!({"metadata": {"name": "other"}});
    api.post("/api/v1/namespaces", &other).await.ok(201);
    let elsewhere = "/apis/policy/v1/namespaces/other/poddisruptionbudgets";
    let budgets = budgets(&api);
    for name in ["foo", "foo2"] {
        budgets.create(&budget(name)).await;
    }
    api.post(elsewhere, &budget("foo")).await.ok(201);
    assert_eq!(budgets.list_everywhere("foo=bar").await.len(), 3);
    assert_eq!(budgets.list("foo=bar").await.len(), 2);
    budgets.delete_all("foo=bar").await;
    assert!(budgets.list("foo=bar").await.is_empty());
    assert_eq!(budgets.list_everywhere("foo=bar").await.len(), 1);
}
