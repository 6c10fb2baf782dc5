//! test/e2e/auth/service_accounts.go: what of accounts and their tokens needs no node.

use serde_json::{Value, json};

use crate::harness::{Api, PODS, pod};
use crate::kinds::tokens::{ACCOUNTS, account, review, token};

/// Must: an account can be created.
/// Must: a token can be created for it.
/// Must: the token is not empty.
/// Must: a review of the token can be created.
/// Must: the review says that the token is good, and names no error.
#[tokio::test]
async fn serviceaccounts_should_create_a_serviceaccounttoken_and_ensure_a_successful_tokenreview() {
    let api = Api::new().await;
    account(&api, "e2e").await;
    let token = token(&api, "e2e", &json!({})).await;
    assert!(!token.is_empty());
    let status = review(&api, &token, &[]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status.get("error"), None);
}

/// Must: the token is mounted where neither the Pod nor its account says no, and where the Pod says
/// yes, whatever its account says.
/// Must: the token is not mounted where the Pod says no, nor where it says nothing and its account
/// says no.
#[tokio::test]
async fn serviceaccounts_should_allow_opting_out_of_api_token_automount() {
    let api = Api::new().await;
    // The account that is there says nothing.
    for (name, automount) in [("mount", true), ("nomount", false)] {
        let body = json!({"metadata": {"name": name}, "automountServiceAccountToken": automount});
        api.post(ACCOUNTS, &body).await.ok(201);
    }
    for (account, of_pod, mounted) in [
        ("default", Value::Null, true),
        ("mount", Value::Null, true),
        ("nomount", Value::Null, false),
        ("default", json!(true), true),
        ("mount", json!(true), true),
        ("nomount", json!(true), true),
        ("default", json!(false), false),
        ("mount", json!(false), false),
        ("nomount", json!(false), false),
    ] {
        let mut body = pod(&format!("{account}-{of_pod}"));
        body["spec"]["serviceAccountName"] = json!(account);
        body["spec"]["automountServiceAccountToken"] = of_pod;
        let made = api.post(PODS, &body).await.ok(201);
        let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array();
        let mut mounts = mounts.into_iter().flatten();
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let found = mounts.find(|mount| mount["mountPath"] == path);
        assert_eq!(found.is_some(), mounted, "{made}");
        let Some(mount) = found else { continue };
        let volume = &made["spec"]["volumes"][0];
        assert_eq!(volume["name"], mount["name"]);
        let name = mount["name"].as_str().unwrap();
        assert!(name.starts_with("kube-api-access-"), "{name}");
        let want = json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]});
        assert_eq!(volume["projected"], want);
    }
}

/// Must: an account with a label is created, and a watch by that label tells of it.
/// Must: a patched account has what was patched.
/// Must: a list of all namespaces by that label has the account with what was patched.
/// Must: the account can be deleted, and the watch tells of it.
#[tokio::test]
async fn serviceaccounts_should_run_through_the_lifecycle_of_a_serviceaccount() {
    let api = Api::new().await;
    let name = "testserviceaccount";
    let label = "test-serviceaccount-static";
    let selector = format!("labelSelector={label}%3Dtrue");
    let body = json!({"metadata": {"name": name, "labels": {label: "true"}}});
    let made = api.post(ACCOUNTS, &body).await.ok(201);
    let path = format!("{ACCOUNTS}/{name}");
    let read = api.get(&path).await.ok(200);
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    let mut watch = api
        .watch(&format!("{ACCOUNTS}?watch=true&{selector}"))
        .await;
    assert_eq!(watch.line().await, format!("ADDED {name}"));

    let patch = json!({"automountServiceAccountToken": false});
    let patched = api.patch(&path, "strategic-merge", &patch).await.ok(200);
    assert_eq!(patched["automountServiceAccountToken"], false);
    assert_eq!(watch.line().await, format!("MODIFIED {name}"));
    let list = api
        .get(&format!("/api/v1/serviceaccounts?{selector}"))
        .await;
    let list = list.ok(200)["items"].clone();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(list[0]["metadata"]["name"], name);
    assert_eq!(list[0]["metadata"]["namespace"], "default");
    assert_eq!(list[0]["automountServiceAccountToken"], false);

    api.delete(ACCOUNTS).await.ok(200);
    assert_eq!(watch.line().await, format!("DELETED {name}"));
    api.get(&path).await.fails(404, "NotFound");
}

/// Must: an account can be created.
/// Must: it can be updated.
/// Must: the field has its new value then.
#[tokio::test]
async fn serviceaccounts_should_update_a_serviceaccount() {
    let api = Api::new().await;
    let body = json!({"metadata": {"name": "e2e-sa"}, "automountServiceAccountToken": false});
    let made = api.post(ACCOUNTS, &body).await.ok(201);
    assert_eq!(made["automountServiceAccountToken"], false);
    let path = format!("{ACCOUNTS}/e2e-sa");
    let mut account = api.get(&path).await.ok(200);
    account["automountServiceAccountToken"] = json!(true);
    let updated = api.put(&path, &account).await.ok(200);
    assert_eq!(updated["automountServiceAccountToken"], true);
    assert_eq!(api.get(&path).await.ok(200), updated);
}
