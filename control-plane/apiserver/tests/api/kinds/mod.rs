//! The built-in kinds as clients use them: every verb, and what is a kind's own. The behaviours of
//! Kubernetes' conformance have tests of their own ([`crate::conformance`]).

mod admission_registration;
mod api_services;
mod autoscaling;
mod batch;
mod certificates;
mod core;
mod created_by_update;
mod disruption;
mod dynamic_resources;
mod emptying;
mod flow_control;
mod limits;
mod mirror_pods;
mod networking;
mod quotas;
mod rbac;
mod reviews;
mod secret_tokens;
mod storage;
mod storage_migration;
pub(crate) mod tokens;
mod workloads;

use serde_json::{Value, json};

use crate::harness::Api;

const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// Kinds whose status is written without their metadata.
const STATUS_ALONE: [&str; 10] = [
    "apiservices",
    "csinodes",
    "devicetaintrules",
    "flowschemas",
    "prioritylevelconfigurations",
    "resourceclaims",
    "servicecidrs",
    "storageversionmigrations",
    "validatingadmissionpolicies",
    "volumeattachments",
];
const SELECTOR: &str = "labelSelector=lifecycle%3Dyes";

/// A kind and an object of it.
pub(crate) struct Subject<'a> {
    /// `/api/v1`, `/apis/apps/v1`.
    pub(crate) group_version: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) namespaced: bool,
    pub(crate) body: Value,
    /// A status that a controller could write, where there is the subresource.
    pub(crate) status: Option<Value>,
}

impl Subject<'_> {
    pub(crate) fn collection(&self) -> String {
        let Self {
            group_version,
            plural,
            ..
        } = self;
        if self.namespaced {
            format!("{group_version}/namespaces/default/{plural}")
        } else {
            format!("{group_version}/{plural}")
        }
    }

    pub(crate) fn named(&self, name: &str) -> Value {
        let mut body = self.body.clone();
        body["metadata"]["name"] = json!(name);
        body["metadata"]["labels"]["lifecycle"] = json!("yes");
        body
    }

    pub(crate) async fn create(&self, api: &Api, name: &str) -> Value {
        api.post(&self.collection(), &self.named(name))
            .await
            .ok(201)
    }
}

/// Takes away the finalizers of an object, as its controller would, where it has some.
async fn release(api: &Api, path: &str) {
    let answer = api.get(path).await;
    if answer.code == 200 && answer.json()["metadata"].get("finalizers").is_some() {
        let none = json!({"metadata": {"finalizers": null}});
        api.patch(path, "merge", &none).await.ok(200);
    }
}

fn version(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"].as_str();
    text.unwrap().parse().unwrap()
}

/// Every verb, on one object after another, with what a watch sees of it, after discovery of the
/// group, of the version in it and of the resources in that.
pub(crate) async fn lifecycle(api: &Api, subject: &Subject<'_>) {
    let name = subject.body["metadata"]["name"].as_str().unwrap_or("first");
    let collection = subject.collection();
    let path = format!("{collection}/{name}");
    discovered(api, subject).await;
    let everywhere = format!("{}/{}?{SELECTOR}", subject.group_version, subject.plural);
    let mut watch = api
        .watch(&format!("{collection}?watch=true&{SELECTOR}"))
        .await;
    let mut wider = api.watch(&format!("{everywhere}&watch=true")).await;

    let created = subject.create(api, name).await;
    assert_eq!(watch.line().await, format!("ADDED {name}"));
    assert_eq!(wider.line().await, format!("ADDED {name}"));
    api.post(&collection, &subject.named(name))
        .await
        .fails(409, "AlreadyExists");
    let read = api.get(&path).await.ok(200);
    assert_eq!(read, created);
    for list in [format!("{collection}?{SELECTOR}"), everywhere] {
        let list = api.get(&list).await.ok(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        assert_eq!(list["items"][0]["metadata"], created["metadata"]);
    }

    let patch =
        json!({"metadata": {"annotations": {"patched": "true"}, "labels": {"patched": "true"}}});
    let patched = api.patch(&path, "merge", &patch).await.ok(200);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    assert!(version(&patched) > version(&created));
    assert_eq!(watch.line().await, format!("MODIFIED {name}"));
    let mut updated = patched.clone();
    updated["metadata"]["annotations"]["updated"] = json!("true");
    let updated = api.put(&path, &updated).await.ok(200);
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    assert_eq!(watch.line().await, format!("MODIFIED {name}"));
    let mut stale = patched.clone();
    stale["metadata"]["annotations"]["late"] = json!("true");
    api.put(&path, &stale).await.fails(409, "Conflict");

    if let Some(status) = &subject.status {
        write_status(api, subject, &path, status).await;
        // One of which nothing is kept yet is no change.
        let changes = if *status == json!({}) { 0 } else { 2 };
        for _ in 0..changes {
            assert_eq!(watch.line().await, format!("MODIFIED {name}"));
        }
    }
    shown_as_table(api, &path, name).await;

    let held = updated["metadata"].get("finalizers").is_some();
    let background = json!({"propagationPolicy": "Background"});
    api.delete_with(&path, &background).await.ok(200);
    if held {
        assert_eq!(watch.line().await, format!("MODIFIED {name}"));
        release(api, &path).await;
    }
    assert_eq!(watch.line().await, format!("DELETED {name}"));
    api.get(&path).await.fails(404, "NotFound");
    let selected = format!("{collection}?{SELECTOR}");
    subject.create(api, name).await;
    api.delete_with(&selected, &background).await.ok(200);
    if held {
        release(api, &path).await;
    }
    let left = api.get(&selected).await.ok(200);
    assert_eq!(left["items"], json!([]));
}

/// The kind is in the discovery of its group and version, with all verbs.
async fn discovered(api: &Api, subject: &Subject<'_>) {
    let resources = api.get(subject.group_version).await.ok(200);
    let resources = resources["resources"].as_array().unwrap().clone();
    let find = |name: &str| resources.iter().find(|resource| resource["name"] == name);
    let resource = find(subject.plural).expect("the kind is discovered");
    assert_eq!(resource["verbs"], json!(VERBS));
    assert_eq!(resource["namespaced"], subject.namespaced);
    let status = find(&format!("{}/status", subject.plural));
    assert_eq!(status.is_some(), subject.status.is_some());
    if let Some((group, version)) = subject
        .group_version
        .strip_prefix("/apis/")
        .and_then(|path| path.split_once('/'))
    {
        let has_version = |group: &Value| {
            let versions = group["versions"].as_array().unwrap();
            versions.iter().any(|known| known["version"] == version)
        };
        let groups = api.get("/apis").await.ok(200);
        let groups = groups["groups"].as_array().unwrap();
        let known = groups.iter().find(|known| known["name"] == group);
        assert!(has_version(known.expect("the group is discovered")));
        assert!(has_version(
            &api.get(&format!("/apis/{group}")).await.ok(200)
        ));
    }
}

/// The status is written by patch and by update, and nothing but the subresource writes it.
async fn write_status(api: &Api, subject: &Subject<'_>, path: &str, status: &Value) {
    let of_status = format!("{path}/status");
    let before = api.get(&of_status).await.ok(200);
    let main = json!({ "status": status });
    let kept = api.patch(path, "merge", &main).await.ok(200);
    assert_eq!(kept["status"], before["status"]);
    let patched = api.patch(&of_status, "merge", &main).await.ok(200);
    for (field, value) in status.as_object().unwrap() {
        assert_eq!(&patched["status"][field], value, "{field}");
    }
    let mut updated = patched.clone();
    updated["metadata"]["annotations"]["status"] = json!("updated");
    let alone = STATUS_ALONE.contains(&subject.plural);
    if alone {
        updated["status"] = json!({});
    }
    let updated = api.put(&of_status, &updated).await.ok(200);
    let annotation = if alone { json!(null) } else { json!("updated") };
    assert_eq!(updated["metadata"]["annotations"]["status"], annotation);
    assert_eq!(api.get(path).await.ok(200), updated);
}

async fn shown_as_table(api: &Api, path: &str, name: &str) {
    let table = api.get_as(path, TABLE).await.ok(200);
    assert_eq!(table["kind"], "Table");
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    assert_eq!(cells.len(), columns.len());
    assert!(cells[0].as_str().unwrap().starts_with(name), "{cells:?}");
}

/// The template of Pods that do nothing in particular.
fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "app:v1"}]}})
}

/// Each kind that lives in namespaces can be deleted by whoever empties one, and each that is
/// stored can be listed by whoever collects garbage.
#[tokio::test]
async fn namespaces_can_be_emptied_of_every_kind() {
    let api = Api::new().await;
    for kind in api.server.registry().kinds().all() {
        let descriptor = kind.descriptor();
        let can = |verb: &str| descriptor.verbs.iter().any(|known| known == verb);
        if descriptor.is_namespaced() && !descriptor.computed {
            assert!(
                can("list") && can("delete") && can("deletecollection"),
                "{}",
                descriptor.kind
            );
        }
        assert_eq!(can("watch"), !descriptor.computed, "{}", descriptor.kind);
    }
}
