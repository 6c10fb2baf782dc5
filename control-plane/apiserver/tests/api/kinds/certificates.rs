//! Requests for certificates.

use k8s_openapi::ByteString;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use super::{Subject, TABLE, lifecycle};
use crate::harness::Api;

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A request, and a certificate that could be its answer.
fn request() -> (Value, ByteString) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let spec = json!({
        "request": ByteString(request.into_bytes()),
        "signerName": "example.com/e2e", "expirationSeconds": 3600,
        "usages": ["digital signature", "client auth"],
        "username": "somebody-else", "groups": ["system:masters"],
    });
    let body = json!({"metadata": {"name": "csr:1"}, "spec": spec});
    (body, ByteString(certificate.into_bytes()))
}

/// A request for a certificate of a Pod.
pub(super) fn of_pod() -> Value {
    let key = KeyPair::generate().unwrap();
    let stub = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let stub = ByteString(stub.der().to_vec());
    json!({"spec": {
        "signerName": "example.com/e2e", "stubPKCS10Request": stub,
        "podName": "p", "podUID": "1", "nodeName": "n", "nodeUID": "2",
        "serviceAccountName": "default", "serviceAccountUID": "3",
    }})
}

/// Must: discovery has the group certificates.k8s.io
/// Must: the group has version v1
/// Must: the version has certificatesigningrequests, their approval and their status
/// Must: objects can be created, read, listed, watched, updated, patched and deleted, one or many
/// Must: the approval can be read, updated and patched
/// Must: the status can be read, updated and patched
#[tokio::test]
async fn certificates_api_should_support_csr_api_operations() {
    let api = Api::new().await;
    let (body, certificate) = request();
    let subject = Subject {
        group_version: "/apis/certificates.k8s.io/v1",
        plural: "certificatesigningrequests",
        namespaced: false,
        body,
        status: Some(json!({ "certificate": certificate })),
    };
    lifecycle(&api, &subject).await;

    let resources = api.get(subject.group_version).await.ok(200);
    let mut resources = resources["resources"].as_array().unwrap().iter();
    assert!(resources.any(|known| known["name"] == "certificatesigningrequests/approval"));
    let mut request = subject.create(&api, "csr:2").await;
    let approval = format!("{PATH}/csr:2/approval");
    let condition =
        json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "Set by a test"});
    request["status"]["conditions"] = json!([condition]);
    let approved = api.put(&approval, &request).await.ok(200);
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = api.patch(&approval, "merge", &patch).await.ok(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    assert_eq!(api.get(&approval).await.ok(200), patched);
}

#[tokio::test]
async fn a_request_is_its_authors_and_is_approved_apart() {
    let api = Api::new().await;
    let (body, certificate) = request();
    let created = api.post(PATH, &body).await.ok(201);
    assert_eq!(created["spec"]["username"], "admin");
    assert_eq!(
        created["spec"]["groups"],
        json!(["system:masters", "system:authenticated"])
    );
    let path = format!("{PATH}/csr:1");
    let approval = format!("{path}/approval");
    assert_eq!(api.get(&approval).await.ok(200), created);

    let mut approved = created.clone();
    approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "E2E", "message": "Set by a test"}]);
    approved["spec"]["username"] = json!("mallory");
    approved["status"]["certificate"] = json!(certificate);
    let stored = api.put(&approval, &approved).await.ok(200);
    assert_eq!(stored["spec"], created["spec"]);
    assert!(stored["status"].get("certificate").is_none());
    let condition = &stored["status"]["conditions"][0];
    assert_eq!(condition["type"], "Approved");
    assert!(condition["lastUpdateTime"].is_string());
    assert!(condition["lastTransitionTime"].is_string());

    let table = api.get_as(&path, TABLE).await.ok(200);
    let cells = &table["rows"][0]["cells"];
    assert_eq!(cells[2], "example.com/e2e");
    assert_eq!(cells[4], "60m");
    assert_eq!(cells[5], "Approved");

    let issue = json!({"status": {"certificate": certificate}});
    let issued = api.patch(&format!("{path}/status"), "merge", &issue).await;
    assert_eq!(
        issued.ok(200)["status"]["conditions"],
        stored["status"]["conditions"]
    );
    let revoke = json!({"status": {"conditions": []}});
    for part in ["approval", "status"] {
        let message = api
            .patch(&format!("{path}/{part}"), "merge", &revoke)
            .await
            .fails(422, "Invalid");
        let want = "updates may not remove a condition of type \"Approved\"";
        assert!(message.contains(want), "{message}");
    }
    let of_signer = |name: &str| format!("{PATH}?fieldSelector=spec.signerName%3D{name}");
    let list = api.get(&of_signer("example.com/e2e")).await.ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let list = api.get(&of_signer("example.com/other")).await.ok(200);
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn cluster_trust_bundles() {
    let api = Api::new().await;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let anchor = authority.self_signed(&key).unwrap().pem();
    let spec = json!({"signerName": "example.com/s", "trustBundle": anchor});
    let subject = Subject {
        group_version: "/apis/certificates.k8s.io/v1",
        plural: "clustertrustbundles",
        namespaced: false,
        body: json!({"metadata": {"name": "example.com:s:live"}, "spec": spec}),
        status: None,
    };
    lifecycle(&api, &subject).await;
}

#[tokio::test]
async fn requests_of_pods_are_answered_once() {
    const PATH: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests";
    let api = Api::new().await;
    let mut body = of_pod();
    body["metadata"]["name"] = json!("r");
    let created = api.post(PATH, &body).await.ok(201);
    assert_eq!(created["spec"]["maxExpirationSeconds"], 86_400);
    let path = format!("{PATH}/r");
    let change = json!({"spec": {"podName": "q"}});
    let message = api.patch(&path, "merge", &change).await;
    let message = message.fails(422, "Invalid");
    assert!(message.contains("field is immutable"), "{message}");

    let of_status = format!("{path}/status");
    let answer = |kind: &str| {
        let since = "2026-01-01T00:00:00Z";
        let condition = json!({"type": kind, "status": "True", "reason": "E2E", "message": "", "lastTransitionTime": since});
        json!({"status": {"conditions": [condition]}})
    };
    api.patch(&of_status, "merge", &answer("Denied"))
        .await
        .ok(200);
    let message = api.patch(&of_status, "merge", &answer("Failed")).await;
    let message = message.fails(422, "Invalid");
    assert!(message.contains("status: Invalid value"), "{message}");
    let table = api.get_as(&path, TABLE).await.ok(200);
    let cells = json!([
        "r",
        "p",
        "default",
        "n",
        "example.com/e2e",
        "Denied",
        "<none>"
    ]);
    assert_eq!(table["rows"][0]["cells"], cells);
}
