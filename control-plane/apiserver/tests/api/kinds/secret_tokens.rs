//! Tokens that Secrets hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_store::{
    List, ListOptions, MemoryStore, Precondition, Read, Record, Result, Revision, Store,
    Value as Stored, Watch,
};
use serde_json::{Value, json};

use super::tokens::{account, review, whoami};
use crate::harness::Api;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The token of an account, and the account; the Secret that is to hold it is not there yet.
async fn token(api: &Api) -> (String, Value) {
    let made = account(api, "robot").await;
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let token = api.server.secret_token("default", ("robot", uid), "held");
    (token.unwrap(), made)
}

async fn hold(api: &Api, token: &str) {
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let secret = json!({
        "metadata": {"name": "held", "annotations": annotations},
        "type": "kubernetes.io/service-account-token", "stringData": {"token": token},
    });
    api.post(SECRETS, &secret).await.ok(201);
}

/// A token that a Secret holds is good while the Secret holds it.
#[tokio::test]
async fn a_token_of_a_secret_ends_with_the_secret() {
    let api = Api::new().await;
    let (token, made) = token(&api).await;
    assert_eq!(whoami(&api, &token).await, None);
    hold(&api, &token).await;
    let user = whoami(&api, &token).await.unwrap();
    assert_eq!(user["username"], "system:serviceaccount:default:robot");
    assert_eq!(user["uid"], made["metadata"]["uid"]);
    assert_eq!(user.get("extra"), None);
    let path = format!("{SECRETS}/held");
    let used = api.get(&path).await.ok(200);
    let label = &used["metadata"]["labels"][LAST_USED];
    let (label, day) = (label.as_str().unwrap(), "2026-01-01");
    assert!(label >= day && label.len() == day.len(), "{label}");
    // It is written once a day, and again where another day has begun.
    whoami(&api, &token).await.unwrap();
    let again = api.get(&path).await.ok(200);
    if again["metadata"]["labels"] == used["metadata"]["labels"] {
        assert_eq!(again["metadata"], used["metadata"]);
    }
    let mark = |value: Value| {
        let labels = json!({"kubernetes.io/legacy-token-invalid-since": value});
        json!({"metadata": {"labels": labels}})
    };
    api.patch(&path, "merge", &mark(json!("2026-01-01")))
        .await
        .ok(200);
    let error = review(&api, &token, &[]).await["error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains("has been marked invalid"), "{error}");
    api.patch(&path, "merge", &mark(Value::Null)).await.ok(200);
    whoami(&api, &token).await.unwrap();
    let other = json!({"stringData": {"token": "other"}});
    api.patch(&path, "merge", &other).await.ok(200);
    let error = review(&api, &token, &[]).await["error"].clone();
    assert!(error.as_str().unwrap().contains("server's copy"), "{error}");
    api.delete(&path).await.ok(200);
    let error = review(&api, &token, &[]).await["error"].clone();
    let error = error.as_str().unwrap();
    assert!(error.contains("has been invalidated"), "{error}");
}

/// A store that, once it is without a quorum, does not answer who wants the newest of a Secret.
struct Alone {
    store: Arc<MemoryStore>,
    cut_off: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl Store for Alone {
    async fn create(&self, key: &str, value: Stored) -> Result<Record> {
        self.store.create(key, value).await
    }

    async fn get(&self, key: &str, read: Read) -> Result<Option<Record>> {
        let newest = matches!(read, Read::Latest) && key.contains("/secrets/");
        if newest && self.cut_off.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        self.store.get(key, read).await
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<List> {
        self.store.list(prefix, options).await
    }

    async fn compare_and_swap(&self, key: &str, on: Precondition, value: Stored) -> Result<Record> {
        self.store.compare_and_swap(key, on, value).await
    }

    async fn delete(&self, key: &str, on: Precondition) -> Result<Record> {
        self.store.delete(key, on).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.store.watch(prefix, from).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }
}

#[tokio::test]
async fn who_uses_a_token_does_not_wait_for_a_store_without_a_quorum() {
    let store = Arc::new(Alone {
        store: MemoryStore::new(),
        cut_off: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
    });
    let api = Api::over(store.clone(), |_| {}).await;
    let (token, _) = token(&api).await;
    hold(&api, &token).await;
    store.cut_off.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let known = tokio::time::timeout(Duration::from_secs(20), whoami(&api, &token));
        assert!(known.await.unwrap().is_some());
    }
    // It is not tried for each of them.
    assert_eq!(store.asked.load(Ordering::SeqCst), 1);
    store.cut_off.store(false, Ordering::SeqCst);
    let secret = api.get(&format!("{SECRETS}/held")).await.ok(200);
    assert_eq!(secret["metadata"].get("labels"), None);
}
