//! Fields that a strict server does not take.

use http::Method;

use crate::harness::Api;

/// Creates a Deployment strictly, with more in its metadata and in its spec; gives what the
/// server says against it.
async fn refused(metadata: &str, spec: &str) -> String {
    let pods = r#""metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}"#;
    let body = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "d", {metadata} "labels": {{"app": "a"}}}},
            "spec": {{{spec} "selector": {{"matchLabels": {{"app": "a"}}}}, "template": {{{pods}}}}}}}"#
    );
    let api = Api::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let strict = format!("{path}?fieldManager=m&fieldValidation=Strict");
    let answer = api
        .raw(Method::POST, &strict, "application/json", body)
        .await;
    api.get(&format!("{path}/d")).await.fails(404, "NotFound");
    answer.fails(400, "BadRequest")
}

/// Must: an object with a field that its type does not have is refused by name of the field
/// Must: one with a field that comes twice is refused by name of the field
#[tokio::test]
async fn fieldvalidation_should_detect_unknown_and_duplicate_fields_of_a_typed_object() {
    let spec = r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#;
    let message = refused("", spec).await;
    let want = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(message.contains(want), "{message}");
}

/// Must: an object with an unknown field in its metadata is refused by name of the field
#[tokio::test]
async fn fieldvalidation_should_detect_unknown_metadata_fields_of_a_typed_object() {
    let message = refused(r#""unknownMeta": "foo","#, "").await;
    let want = r#"strict decoding error: unknown field "metadata.unknownMeta""#;
    assert!(message.contains(want), "{message}");
}
