//! Group-versions of the API, and who serves them.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Subject, TABLE, lifecycle};
use crate::harness::Api;

const GROUP_VERSION: &str = "/apis/apiregistration.k8s.io/v1";

#[tokio::test]
async fn api_services() {
    let api = Api::new().await;
    let service = json!({"namespace": "default", "name": "sample"});
    let spec = json!({"group": "example.com", "version": "v1alpha1", "service": service, "caBundle": "YQ==", "groupPriorityMinimum": 2000, "versionPriority": 200});
    let condition = json!({"type": "Available", "status": "False", "reason": "Test", "message": "Set by a test"});
    let subject = Subject {
        group_version: GROUP_VERSION,
        plural: "apiservices",
        namespaced: false,
        body: json!({"metadata": {"name": "v1alpha1.example.com"}, "spec": spec}),
        status: Some(json!({ "conditions": [condition] })),
    };
    lifecycle(&api, &subject).await;
}

#[tokio::test]
async fn what_the_server_serves_itself_is_local_and_available() {
    let api = Api::new().await;
    let path = format!("{GROUP_VERSION}/apiservices");
    let table = api.get_as(&path, TABLE).await.ok(200);
    let mut names = BTreeSet::new();
    for row in table["rows"].as_array().unwrap() {
        assert_eq!(row["cells"][1], "Local");
        assert_eq!(row["cells"][2], "True");
        names.insert(row["cells"][0].as_str().unwrap().to_owned());
    }
    let groups = api.get("/apis").await.ok(200);
    let served = groups["groups"].as_array().unwrap().iter();
    let mut want: BTreeSet<String> = served
        .flat_map(|group| {
            let name = group["name"].as_str().unwrap().to_owned();
            let versions = group["versions"].as_array().unwrap().clone();
            versions
                .into_iter()
                .map(move |version| format!("{}.{name}", version["version"].as_str().unwrap()))
        })
        .collect();
    // The group of this kind is that of who asks the others, and is not asked for.
    want.remove("v1.apiregistration.k8s.io");
    want.insert("v1.".to_owned());
    assert_eq!(names, want);
    let newer = api.get(&format!("{path}/v2.autoscaling")).await.ok(200);
    assert_eq!(newer["spec"]["versionPriority"], 30);
    for (name, group, version) in [
        ("v1.", 18_000, 1),
        ("v1.autoscaling", 17_500, 15),
        ("v1.resource.k8s.io", 16_200, 21),
        ("v1.flowcontrol.apiserver.k8s.io", 16_100, 21),
        ("v1.storagemigration.k8s.io", 15_800, 15),
    ] {
        let spec = api.get(&format!("{path}/{name}")).await.ok(200)["spec"].clone();
        assert_eq!(spec["groupPriorityMinimum"], group, "{name}");
        assert_eq!(spec["versionPriority"], version, "{name}");
    }
    let condition = &newer["status"]["conditions"][0];
    assert_eq!(condition["reason"], "Local");
    assert_eq!(
        condition["lastTransitionTime"],
        newer["metadata"]["creationTimestamp"]
    );
}
