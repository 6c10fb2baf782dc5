//! What Pods and clients know of the API server, and tokens that Secrets hold.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::harness::{Cluster, create, delete, until};

const NAME: &str = "kube-root-ca.crt";
/// The root certificates, which nobody reads here.
const CERTIFICATE: &str = "a certificate";

async fn cluster() -> Cluster {
    Cluster::with(|config| config.root_ca = Some(CERTIFICATE.to_owned())).await
}

fn has_certificates(map: Option<&ConfigMap>) -> bool {
    let wanted: BTreeMap<_, _> = [("ca.crt".to_owned(), CERTIFICATE.to_owned())].into();
    map.is_some_and(|map| map.data.as_ref() == Some(&wanted))
}

/// Must: every namespace is given a ConfigMap with the root certificates.
/// Must: one that is deleted is made anew.
/// Must: one that is changed is put right.
#[tokio::test]
async fn serviceaccounts_should_guarantee_kube_root_ca_crt_exist_in_any_namespace() {
    let cluster = cluster().await;
    let namespaces: Api<Namespace> = cluster.all();
    create(&namespaces, json!({"metadata": {"name": "any"}})).await;
    let maps: Api<ConfigMap> = cluster.namespaced("any");
    let first = until(&maps, NAME, has_certificates).await.unwrap();
    delete(&maps, NAME).await;
    let another = |map: Option<&ConfigMap>| {
        has_certificates(map) && map.unwrap().metadata.uid != first.metadata.uid
    };
    until(&maps, NAME, another).await;
    for data in [
        json!({"ca.crt": ""}),
        json!({"ca.crt": CERTIFICATE, "more": "x"}),
        json!({}),
    ] {
        let changed = json!({"metadata": {"name": NAME}, "data": data});
        let changed = serde_json::from_value(changed).unwrap();
        let parameters = PostParams::default();
        maps.replace(NAME, &parameters, &changed).await.unwrap();
        until(&maps, NAME, has_certificates).await;
    }
}

#[tokio::test]
async fn a_secret_for_an_account_is_filled_and_goes_with_it() {
    let cluster = cluster().await;
    let accounts: Api<ServiceAccount> = cluster.namespaced("default");
    let secrets: Api<Secret> = cluster.namespaced("default");
    let account = create(&accounts, json!({"metadata": {"name": "robot"}})).await;
    let secret = |name: &str, account: &str| {
        json!({
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token",
        })
    };
    create(&secrets, secret("held", "robot")).await;
    create(&secrets, secret("lost", "nobody")).await;
    let text = |secret: &Secret, key: &str| {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        data.map(|ByteString(bytes)| String::from_utf8(bytes.clone()).unwrap())
    };
    let has_token = |secret: Option<&Secret>| secret.is_some_and(|s| text(s, "token").is_some());
    let held = until(&secrets, "held", has_token).await.unwrap();
    assert_eq!(text(&held, "ca.crt").as_deref(), Some(CERTIFICATE));
    assert_eq!(text(&held, "namespace").as_deref(), Some("default"));
    let annotations = held.metadata.annotations.as_ref().unwrap();
    let uid = annotations.get("kubernetes.io/service-account.uid");
    assert_eq!(uid, account.metadata.uid.as_ref());
    until(&secrets, "lost", |secret| secret.is_none()).await;

    let review = json!({"metadata": {}, "spec": {"token": text(&held, "token")}});
    let review: TokenReview = create(&cluster.all(), review).await;
    let status = review.status.unwrap();
    assert_eq!(status.error, None);
    let user = status.user.unwrap().username;
    assert_eq!(user.as_deref(), Some("system:serviceaccount:default:robot"));
    delete(&accounts, "robot").await;
    until(&secrets, "held", |secret| secret.is_none()).await;
}
