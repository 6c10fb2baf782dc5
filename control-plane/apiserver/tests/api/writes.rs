//! create, update and patch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use coracle_store::{
    Error, List, ListOptions, MemoryStore, Precondition, Read, Record, Result, Revision, Store,
    Value, Watch,
};
use http::Method;
use serde_json::json;

use crate::harness::{Api, CONFIG_MAPS, deployment};

#[tokio::test]
async fn create_sets_what_the_server_owns() {
    let api = Api::new().await;
    let body = json!({"metadata": {
        "name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7,
        "deletionTimestamp": "2001-01-01T00:00:00Z", "managedFields": [],
    }});
    let created = api.post(CONFIG_MAPS, &body).await.ok(201);
    let meta = &created["metadata"];
    assert_eq!(created["kind"], "ConfigMap");
    assert_eq!(created["apiVersion"], "v1");
    assert_eq!(meta["namespace"], "default");
    assert_ne!(meta["uid"], "mine");
    assert_ne!(meta["creationTimestamp"], "2001-01-01T00:00:00Z");
    assert!(
        meta["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
    for absent in ["generation", "deletionTimestamp", "managedFields"] {
        assert!(meta.get(absent).is_none(), "{absent}");
    }
    let read = api.get(&format!("{CONFIG_MAPS}/a")).await.ok(200);
    assert_eq!(read, created);
}

#[tokio::test]
async fn names_are_generated() {
    let api = Api::new().await;
    let body = json!({"metadata": {"generateName": "a-"}});
    let one = api.post(CONFIG_MAPS, &body).await.ok(201);
    let two = api.post(CONFIG_MAPS, &body).await.ok(201);
    let name = |object: &serde_json::Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("a-") && name(&one).len() == 7);
    assert_ne!(name(&one), name(&two));
}

/// A store in which the next so many names of ConfigMaps and LimitRanges are taken, whatever they are.
struct Crowded {
    store: Arc<MemoryStore>,
    taken: AtomicUsize,
    /// How many replacements others are faster with.
    faster: AtomicUsize,
}

#[async_trait]
impl Store for Crowded {
    async fn create(&self, key: &str, value: Value) -> Result<Record> {
        let one_less = |taken: usize| taken.checked_sub(1);
        let is_tried = key.contains("/configmaps/") || key.contains("/limitranges/");
        if !is_tried
            || self
                .taken
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                .is_err()
        {
            return self.store.create(key, value).await;
        }
        let current = Record::new(key, 1, 1, value.get());
        Err(Error::Exists {
            key: key.to_owned(),
            current: Box::new(current),
        })
    }

    async fn get(&self, key: &str, read: Read) -> Result<Option<Record>> {
        self.store.get(key, read).await
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<List> {
        self.store.list(prefix, options).await
    }

    async fn compare_and_swap(&self, key: &str, on: Precondition, value: Value) -> Result<Record> {
        let one_less = |faster: usize| faster.checked_sub(1);
        let faster = &self.faster;
        let late = faster.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        match self.store.get(key, Read::Latest).await? {
            Some(current) if late.is_ok() => Err(Error::Conflict {
                key: key.to_owned(),
                current: Box::new(current),
            }),
            _ => self.store.compare_and_swap(key, on, value).await,
        }
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
async fn generated_names_that_are_taken_are_generated_again() {
    for (taken, code) in [(1, 201), (7, 201), (8, 409)] {
        let store = Crowded {
            store: MemoryStore::new(),
            taken: AtomicUsize::new(0),
            faster: AtomicUsize::new(0),
        };
        let store = Arc::new(store);
        let api = Api::over(store.clone(), |_| {}).await;
        store.taken.store(taken, Ordering::SeqCst);
        let body = json!({"metadata": {"generateName": "a-"}});
        let answer = api.post(CONFIG_MAPS, &body).await;
        assert_eq!(answer.code, code, "{taken}: {}", answer.text);
        if code == 409 {
            let message = answer.fails(409, "AlreadyExists");
            assert!(
                message.contains("not able to generate a unique name"),
                "{message}"
            );
            assert_eq!(answer.json()["details"]["retryAfterSeconds"], 1);
        } else {
            let name = answer.json()["metadata"]["name"].clone();
            let path = format!("{CONFIG_MAPS}/{}", name.as_str().unwrap());
            assert_eq!(api.get(&path).await.ok(200), answer.json());
        }
    }
    // A name that was chosen is not chosen again.
    let store = Crowded {
        store: MemoryStore::new(),
        taken: AtomicUsize::new(1),
        faster: AtomicUsize::new(0),
    };
    let api = Api::over(Arc::new(store), |_| {}).await;
    let body = json!({"metadata": {"name": "a"}});
    api.post(CONFIG_MAPS, &body)
        .await
        .fails(409, "AlreadyExists");
}

#[tokio::test]
async fn who_demands_no_version_waits_its_turn() {
    let store = Arc::new(Crowded {
        store: MemoryStore::new(),
        taken: AtomicUsize::new(0),
        faster: AtomicUsize::new(0),
    });
    let api = Api::over(store.clone(), |_| {}).await;
    api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    store.faster.store(100, Ordering::SeqCst);
    let patch = json!({"metadata": {"finalizers": ["x.io/a"]}});
    api.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(store.faster.load(Ordering::SeqCst), 0);
    store.faster.store(100, Ordering::SeqCst);
    api.delete(&path).await.ok(200);
    assert_eq!(store.faster.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_update_creates_what_others_create_and_delete() {
    let path = "/api/v1/namespaces/default/limitranges/a";
    let range = json!({"metadata": {"name": "a"}, "spec": {"limits": []}});
    for (taken, code) in [(0, 201), (5, 201), (1000, 409)] {
        let store = Arc::new(Crowded {
            store: MemoryStore::new(),
            taken: AtomicUsize::new(0),
            faster: AtomicUsize::new(0),
        });
        let api = Api::over(store.clone(), |_| {}).await;
        store.taken.store(taken, Ordering::SeqCst);
        let answer = api.put(path, &range).await;
        assert_eq!(answer.code, code, "{taken}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_second_object_of_a_name_is_refused() {
    let api = Api::new().await;
    api.config_map("a").await;
    let message = api
        .post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .fails(409, "AlreadyExists");
    assert_eq!(message, "configmaps \"a\" already exists");
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let api = Api::new().await;
    let yaml = "metadata:\n  name: a\ndata:\n  x: \"1\"\n";
    let answer = api
        .raw(Method::POST, CONFIG_MAPS, "application/yaml", yaml)
        .await;
    assert_eq!(answer.ok(201)["data"]["x"], "1");
    let answer = api
        .get_as(&format!("{CONFIG_MAPS}/a"), "application/yaml")
        .await;
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(answer.text.contains("kind: ConfigMap\n"), "{}", answer.text);
}

#[tokio::test]
async fn updates_are_of_the_object_that_the_path_names() {
    let api = Api::new().await;
    api.config_map("a").await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let other = "the name of the object (other) does not match the name on the URL (a)";
    let none = "the name of the object (a based on URL) was undeterminable: name must be provided";
    // An object, what does not exist, and what an update would create.
    for path in [
        format!("{CONFIG_MAPS}/a"),
        "/api/v1/namespaces/default/secrets/a".to_owned(),
        format!("{leases}/a"),
        "/api/v1/namespaces/a/finalize".to_owned(),
        "/apis/apps/v1/namespaces/default/deployments/a/status".to_owned(),
    ] {
        for (meta, want) in [
            (json!({"name": "other"}), other),
            (json!({"name": ""}), none),
            (json!({}), none),
        ] {
            let answer = api.put(&path, &json!({"metadata": meta})).await;
            assert_eq!(answer.fails(400, "BadRequest"), want, "{path} {meta}");
        }
    }
    let unnamed = json!({"metadata": {"name": null}});
    let path = format!("{CONFIG_MAPS}/a");
    let answer = api.patch(&path, "merge", &unnamed).await;
    assert_eq!(answer.fails(400, "BadRequest"), none);
    let path = format!("{leases}/a");
    api.get(&path).await.fails(404, "NotFound");
}

#[tokio::test]
async fn updates_are_conditional_on_the_version_that_they_name() {
    let api = Api::new().await;
    let mut object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let stale = object.clone();
    object["data"]["a"] = json!("2");
    let updated = api.put(&path, &object).await.ok(200);
    assert_eq!(updated["data"]["a"], "2");
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        stale["metadata"]["resourceVersion"]
    );
    let message = api.put(&path, &stale).await.fails(409, "Conflict");
    assert!(
        message.contains("the object has been modified"),
        "{message}"
    );
    // Without a version the last writer wins.
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    object["data"]["a"] = json!("3");
    api.put(&path, &object).await.ok(200);
    object["metadata"]["uid"] = json!("another");
    let message = api.put(&path, &object).await.fails(409, "Conflict");
    assert!(
        message.contains("UID in precondition: another"),
        "{message}"
    );
    // What a patch makes of the object that is there is no other object.
    let patch = json!({"metadata": {"uid": "another"}});
    let message = api
        .patch(&path, "merge", &patch)
        .await
        .fails(422, "Invalid");
    let immutable = "metadata.uid: Invalid value: \"another\": field is immutable";
    assert!(message.contains(immutable), "{message}");
    api.put(
        &format!("{CONFIG_MAPS}/b"),
        &json!({"metadata": {"name": "b"}}),
    )
    .await
    .fails(404, "NotFound");
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let api = Api::new().await;
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(api.put(&path, &object).await.ok(200), object);
    assert_eq!(
        api.patch(&path, "merge", &json!({"data": {"a": "1"}}))
            .await
            .ok(200),
        object
    );
}

#[tokio::test]
async fn the_three_patches() {
    let api = Api::new().await;
    api.post(
        "/apis/apps/v1/namespaces/default/deployments",
        &deployment("web"),
    )
    .await
    .ok(201);
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let containers =
        |value: serde_json::Value| value["spec"]["template"]["spec"]["containers"].clone();

    let add =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "x"}]}}}});
    let merged = containers(api.patch(path, "strategic-merge", &add).await.ok(200));
    assert_eq!(merged.as_array().unwrap().len(), 2);

    let replace =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "x"}]}}}});
    let replaced = containers(api.patch(path, "merge", &replace).await.ok(200));
    assert_eq!(replaced.as_array().unwrap().len(), 1);

    let operations = json!([
        {"op": "test", "path": "/spec/template/spec/containers/0/name", "value": "e"},
        {"op": "replace", "path": "/spec/replicas", "value": 4},
    ]);
    assert_eq!(
        api.patch(path, "json", &operations).await.ok(200)["spec"]["replicas"],
        4
    );
    let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 5}]);
    api.patch(path, "json", &failing)
        .await
        .fails(422, "Invalid");
}

#[tokio::test]
async fn patches_that_race_are_all_applied() {
    let api = Api::new().await;
    api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..12).map(|n| {
        let (api, path) = (api.clone(), path.clone());
        tokio::spawn(async move {
            api.patch(&path, "merge", &json!({"data": {format!("k{n}"): "v"}}))
                .await
                .ok(200)
        })
    });
    for patch in futures::future::join_all(patches).await {
        patch.unwrap();
    }
    let object = api.get(&path).await.ok(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 13);
}

#[tokio::test]
async fn times_of_an_earlier_object_are_ignored() {
    let api = Api::new().await;
    let created = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let earlier = json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z"}});
    let patched = api.patch(&path, "merge", &earlier).await.ok(200);
    assert_eq!(patched, created);
    let mut replaced = created.clone();
    replaced["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    assert_eq!(api.put(&path, &replaced).await.ok(200), created);
    // A deletion does not begin by a field, nor end by it.
    let going = json!({"metadata": {"deletionTimestamp": "2001-01-01T00:00:00Z"}});
    api.patch(&path, "merge", &going)
        .await
        .fails(422, "Invalid");
    let held = json!({"metadata": {"finalizers": ["x.io/a"]}});
    api.patch(&path, "merge", &held).await.ok(200);
    let deleted = api.delete(&path).await.ok(200);
    assert_eq!(api.patch(&path, "merge", &going).await.ok(200), deleted);
    let again = json!({"metadata": {"name": "a"}});
    let message = api.post(CONFIG_MAPS, &again).await;
    let message = message.fails(409, "AlreadyExists");
    let want = "object is being deleted: configmaps \"a\" already exists";
    assert_eq!(message, want);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let api = Api::new().await;
    let created = api
        .post(
            &format!("{CONFIG_MAPS}?dryRun=All"),
            &json!({"metadata": {"name": "a"}}),
        )
        .await
        .ok(201);
    assert!(created["metadata"]["uid"].is_string());
    api.get(&format!("{CONFIG_MAPS}/a"))
        .await
        .fails(404, "NotFound");
    let object = api.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    let patched = api
        .patch(&path, "merge", &json!({"data": {"a": "2"}}))
        .await
        .ok(200);
    assert_eq!(patched["data"]["a"], "2");
    assert_eq!(api.delete(&path).await.code, 200);
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a")).await.ok(200), object);
    api.post(
        &format!("{CONFIG_MAPS}?dryRun=All"),
        &json!({"metadata": {"name": "a"}}),
    )
    .await
    .fails(409, "AlreadyExists");
}

#[tokio::test]
async fn a_changed_spec_advances_the_generation_and_a_status_does_not() {
    let api = Api::new().await;
    let created = api
        .post(
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment("web"),
        )
        .await
        .ok(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let patched = api
        .patch(
            path,
            "merge",
            &json!({"spec": {"replicas": 5}, "status": {"replicas": 9}}),
        )
        .await
        .ok(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    assert!(patched["status"]["replicas"].is_null());
    let status = json!({"status": {"replicas": 3}, "spec": {"replicas": 7}});
    let patched = api
        .patch(&format!("{path}/status"), "merge", &status)
        .await
        .ok(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(patched["spec"]["replicas"], 5);
    assert_eq!(patched["status"]["replicas"], 3);
}
