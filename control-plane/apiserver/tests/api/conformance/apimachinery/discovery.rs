//! The groups that a server says it has.

use crate::harness::Api;

/// Must: each group names a preferred version, which is one of its versions
#[tokio::test]
async fn discovery_should_validate_preferredversion_for_each_apigroup() {
    let api = Api::new().await;
    let groups = api.get("/apis/").await.ok(200)["groups"].clone();
    let groups = groups.as_array().unwrap();
    assert!(!groups.is_empty());
    for listed in groups {
        let name = listed["name"].as_str().unwrap();
        let group = api.get(&format!("/apis/{name}/")).await.ok(200);
        assert_eq!(group["preferredVersion"], listed["preferredVersion"]);
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.contains(&group["preferredVersion"]), "{group}");
    }
}
