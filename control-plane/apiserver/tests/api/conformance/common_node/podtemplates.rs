//! test/e2e/common/node/podtemplates.go: PodTemplate.

use serde_json::{Value, json};

use crate::conformance::objects::Objects;
use crate::harness::Api;

fn template(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {label: "true"}},
        "template": {"spec": {"containers": [{"name": "nginx", "image": "nginx"}]}},
    })
}

/// Must: no PodTemplate has the label; one with it is created and read.
/// Must: it is patched, and the new label is read.
/// Must: it is deleted, and the list of all namespaces by its label is empty.
#[tokio::test]
async fn podtemplates_should_run_the_lifecycle_of_podtemplates() {
    let api = Api::new().await;
    let templates = Objects::namespaced(&api, "/api/v1", "podtemplates");
    let selector = "podtemplate-static=true";
    assert!(templates.list_everywhere(selector).await.is_empty());
    let created = templates
        .create(&template("nginx", "podtemplate-static"))
        .await;
    assert_eq!(templates.get("nginx").await, created);
    templates.label("nginx", "podtemplate", "patched").await;
    templates.delete("nginx").await;
    assert!(templates.list_everywhere(selector).await.is_empty());
}

/// Must: a set of PodTemplates is created, and a list by their label finds them.
/// Must: the set is deleted, and the list no longer has it.
#[tokio::test]
async fn podtemplates_should_delete_a_collection_of_pod_templates() {
    let api = Api::new().await;
    let templates = Objects::namespaced(&api, "/api/v1", "podtemplates");
    for name in [
        "test-podtemplate-1",
        "test-podtemplate-2",
        "test-podtemplate-3",
    ] {
        templates.create(&template(name, "podtemplate-set")).await;
    }
    assert_eq!(templates.list("podtemplate-set=true").await.len(), 3);
    templates.delete_all("podtemplate-set=true").await;
    assert!(templates.list("podtemplate-set=true").await.is_empty());
}

/// Must: a PodTemplate is created.
/// Must: it is replaced.
/// Must: what the replacement gave is read.
#[tokio::test]
async fn podtemplates_should_replace_a_pod_template() {
    let api = Api::new().await;
    let templates = Objects::namespaced(&api, "/api/v1", "podtemplates");
    let mut replacement = templates
        .create(&template("nginx", "podtemplate-set"))
        .await;
    replacement["metadata"]["annotations"]["updated"] = json!("true");
    replacement["template"]["spec"]["containers"][0]["image"] = json!("nginx:2");
    let replaced = templates.update(&replacement).await;
    assert_eq!(replaced["metadata"]["annotations"]["updated"], "true");
    assert_eq!(
        replaced["template"]["spec"]["containers"][0]["image"],
        "nginx:2"
    );
    assert_eq!(replaced["metadata"]["uid"], replacement["metadata"]["uid"]);
}
