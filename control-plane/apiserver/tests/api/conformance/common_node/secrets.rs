//! test/e2e/common/node/secrets.go: Secret, without Pods that read it.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::Api;

/// Must: a Secret with an empty key is refused.
#[tokio::test]
async fn secrets_should_fail_to_create_secret_due_to_empty_secret_key() {
    let api = Api::new().await;
    let secrets = Objects::namespaced(&api, "/api/v1", "secrets");
    let body = json!({"metadata": {"name": "empty-key"}, "data": {"": "dmFsdWUtMQ=="}});
    let message = secrets.try_create(&body).await.fails(422, "Invalid");
    assert!(message.contains("data[]"), "{message}");
    secrets.gone("empty-key").await;
}

/// Must: a Secret is created, and the list of all namespaces has it.
/// Must: it is patched, and what is read then are the new values.
/// Must: it is deleted as a collection by its label.
/// Must: the list of all namespaces no longer has it.
#[tokio::test]
async fn secrets_should_patch_a_secret() {
    let api = Api::new().await;
    let secrets = Objects::namespaced(&api, "/api/v1", "secrets");
    let body = json!({
        "metadata": {"name": "secret", "labels": {"testsecret-constant": "true"}},
        "type": "Opaque", "data": {"key": "dmFsdWU="},
    });
    let created = secrets.create(&body).await;
    let constant = "testsecret-constant=true";
    assert_eq!(secrets.list_everywhere(constant).await, [created]);
    let patch =
        json!({"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": "dmFsdWUx"}});
    let patched = secrets.patch("secret", "strategic-merge", &patch).await;
    assert_eq!(patched["data"], json!({"key": "dmFsdWUx"}));
    assert_eq!(patched["metadata"]["labels"]["testsecret"], "true");
    assert_eq!(patched["metadata"]["labels"]["testsecret-constant"], "true");
    secrets.delete_all("testsecret=true").await;
    assert!(secrets.list_everywhere(constant).await.is_empty());
}
