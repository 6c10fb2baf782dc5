//! test/e2e/apps/deployment.go: what of a Deployment needs no controller.

use serde_json::json;

use crate::conformance::objects::Objects;
use crate::harness::{Api, deployment};

/// Must: a Deployment is created.
/// Must: its status is read, updated and patched, and each change is seen by later reads.
#[tokio::test]
async fn deployment_should_validate_deployment_status_endpoints() {
    let api = Api::new().await;
    let deployments = Objects::namespaced(&api, "/apis/apps/v1", "deployments");
    let mut body = deployment("web");
    body["metadata"]["labels"] = json!({"e2e": "testing"});
    deployments.create(&body).await;
    deployments.write_conditions("web", "e2e=testing").await;
}
