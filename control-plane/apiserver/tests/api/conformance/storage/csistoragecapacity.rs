//! test/e2e/storage/csistoragecapacity.go: CSIStorageCapacity.

use serde_json::json;

use crate::harness::Api;
use crate::kinds::{Subject, lifecycle};

/// Must: discovery has the group storage.k8s.io.
/// Must: discovery of the group has its version v1.
/// Must: discovery of the version has its csistoragecapacities.
/// Must: create, get, list, watch, update, patch, delete and deletecollection are served.
#[tokio::test]
async fn csistoragecapacity_should_support_csistoragecapacities_api_operations() {
    let api = Api::new().await;
    let subject = Subject {
        group_version: "/apis/storage.k8s.io/v1",
        plural: "csistoragecapacities",
        namespaced: true,
        body: json!({"metadata": {"name": "csc"}, "storageClassName": "e2e.example.com"}),
        status: None,
    };
    lifecycle(&api, &subject).await;
}
