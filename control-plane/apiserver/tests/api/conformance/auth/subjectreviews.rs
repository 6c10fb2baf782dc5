//! Reviews of what others may do.

use coracle_apiserver::UserInfo;
use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS};

/// Must: a ServiceAccount can be created
/// Must: a SubjectAccessReview of it can be created
/// Must: the review says of listing what the ServiceAccount meets when it lists
/// Must: a LocalSubjectAccessReview of it can be created
/// Must: that says the same
#[tokio::test]
async fn subjectreview_should_support_subjectreview_api_operations() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "e2e"}});
    let account = api.post(path, &account).await.ok(201);
    let name = "system:serviceaccount:default:e2e";
    let of_accounts = ["system:authenticated", "system:serviceaccounts"];
    let mut groups = [&of_accounts[..], &["system:serviceaccounts:default"]].concat();
    let reviews = "/apis/authorization.k8s.io/v1";
    let local = format!("{reviews}/namespaces/default/localsubjectaccessreviews");

    // Once as it is, and once as a member of those who may do anything.
    for allowed in [false, true] {
        let user = UserInfo::new(name, &groups);
        let listed = api.user(Some(user)).get(CONFIG_MAPS).await;
        assert_eq!(listed.code, if allowed { 200 } else { 403 });
        let attributes = json!({"verb": "list", "resource": "configmaps", "namespace": "default", "version": "v1"});
        let review = json!({
            "metadata": {"namespace": "default"},
            "spec": {
                "resourceAttributes": attributes, "user": name, "groups": groups,
                "uid": account["metadata"]["uid"],
            },
        });
        let mut of_cluster = review.clone();
        of_cluster["metadata"] = json!({});
        let answer = api
            .post(&format!("{reviews}/subjectaccessreviews"), &of_cluster)
            .await
            .ok(201);
        assert_eq!(answer["status"]["allowed"], allowed);
        let answer = api.post(&local, &review).await.ok(201);
        assert_eq!(answer["status"]["allowed"], allowed);
        groups.push("system:masters");
    }
}
