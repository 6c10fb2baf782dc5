//! EndpointSlices as objects. Those of Services are tested with the controllers.

use serde_json::json;

use crate::harness::Api;
use crate::kinds::{Subject, lifecycle};

/// Must: discovery has the group discovery.k8s.io
/// Must: the group has version v1
/// Must: the version has endpointslices
/// Must: they can be created, read, listed, watched, updated, patched and deleted, one or many
#[tokio::test]
async fn endpointslice_should_support_creating_endpointslice_api_operations() {
    let body = json!({
        "metadata": {"name": "slice"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}],
    });
    let subject = Subject {
        group_version: "/apis/discovery.k8s.io/v1",
        plural: "endpointslices",
        namespaced: true,
        body,
        status: None,
    };
    lifecycle(&Api::new().await, &subject).await;
}
