//! The objects of one kind, as the steps of a behaviour use them.

use serde_json::{Value, json};

use crate::harness::{Answer, Api, Watch};

/// The collection of a kind, in the namespace `default` or of the cluster.
pub(crate) struct Objects<'a> {
    api: &'a Api,
    /// In all namespaces.
    everywhere: String,
    here: String,
}

impl<'a> Objects<'a> {
    /// Those of a kind that lives in namespaces. A group-version is `/api/v1`, `/apis/apps/v1`.
    pub(crate) fn namespaced(api: &'a Api, group_version: &str, plural: &str) -> Self {
        Self {
            api,
            everywhere: format!("{group_version}/{plural}"),
            here: format!("{group_version}/namespaces/default/{plural}"),
        }
    }

    /// Those of a kind of the cluster.
    pub(crate) fn of_cluster(api: &'a Api, group_version: &str, plural: &str) -> Self {
        let here = format!("{group_version}/{plural}");
        Self {
            api,
            everywhere: here.clone(),
            here,
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.here)
    }

    /// Creates one, which must succeed.
    pub(crate) async fn create(&self, body: &Value) -> Value {
        self.api.post(&self.here, body).await.ok(201)
    }

    /// Tries to create one.
    pub(crate) async fn try_create(&self, body: &Value) -> Answer {
        self.api.post(&self.here, body).await
    }

    pub(crate) async fn get(&self, name: &str) -> Value {
        self.api.get(&self.path(name)).await.ok(200)
    }

    /// There is none of this name.
    pub(crate) async fn gone(&self, name: &str) {
        self.api.get(&self.path(name)).await.fails(404, "NotFound");
    }

    /// Patches one (`merge`, `strategic-merge`), which must succeed and be what is read then.
    pub(crate) async fn patch(&self, name: &str, how: &str, patch: &Value) -> Value {
        let patched = self.api.patch(&self.path(name), how, patch).await.ok(200);
        assert_eq!(self.get(name).await, patched);
        patched
    }

    /// Gives one a label by a patch.
    pub(crate) async fn label(&self, name: &str, key: &str, value: &str) -> Value {
        let patch = json!({"metadata": {"labels": {key: value}}});
        let patched = self.patch(name, "strategic-merge", &patch).await;
        assert_eq!(patched["metadata"]["labels"][key], value);
        patched
    }

    /// Replaces one by its changed state, which must succeed and be what is read then.
    pub(crate) async fn update(&self, object: &Value) -> Value {
        let name = name(object);
        let updated = self.api.put(&self.path(name), object).await.ok(200);
        assert_eq!(self.get(name).await, updated);
        updated
    }

    /// Gives one a label by an update.
    pub(crate) async fn relabel(&self, name: &str, key: &str, value: &str) -> Value {
        let mut object = self.get(name).await;
        object["metadata"]["labels"][key] = json!(value);
        let updated = self.update(&object).await;
        assert_eq!(updated["metadata"]["labels"][key], value);
        updated
    }

    /// Those that a label selector chooses.
    pub(crate) async fn list(&self, selector: &str) -> Vec<Value> {
        items(self.api.get(&selecting(&self.here, selector)).await)
    }

    /// Those of all namespaces that a label selector chooses.
    pub(crate) async fn list_everywhere(&self, selector: &str) -> Vec<Value> {
        items(self.api.get(&selecting(&self.everywhere, selector)).await)
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.api.delete(&self.path(name)).await.ok(200);
    }

    /// Deletes the collection that a label selector chooses.
    pub(crate) async fn delete_all(&self, selector: &str) {
        self.api
            .delete(&selecting(&self.here, selector))
            .await
            .ok(200);
    }

    /// A watch of what a label selector chooses, from the state as it is.
    pub(crate) async fn watch(&self, selector: &str) -> Watch {
        let path = selecting(&self.here, selector);
        self.api.watch(&format!("{path}&watch=true")).await
    }

    /// Reads the status subresource.
    pub(crate) async fn status(&self, name: &str) -> Value {
        self.api
            .get(&self.path(&format!("{name}/status")))
            .await
            .ok(200)
    }

    /// Patches the status subresource, which must succeed and be what is read then.
    pub(crate) async fn patch_status(&self, name: &str, how: &str, patch: &Value) -> Value {
        let path = self.path(&format!("{name}/status"));
        let patched = self.api.patch(&path, how, patch).await.ok(200);
        assert_eq!(self.status(name).await, patched);
        assert_eq!(self.get(name).await, patched);
        patched
    }

    /// Replaces the status subresource, which must succeed and be what is read then.
    pub(crate) async fn update_status(&self, object: &Value) -> Value {
        let name = name(object);
        let path = self.path(&format!("{name}/status"));
        let updated = self.api.put(&path, object).await.ok(200);
        assert_eq!(self.status(name).await, updated);
        assert_eq!(self.get(name).await, updated);
        updated
    }

    /// Reads, updates and patches conditions in the status, and sees each in a watch.
    pub(crate) async fn write_conditions(&self, name: &str, selector: &str) {
        let mut watch = self.watch(selector).await;
        let mut object = self.status(name).await;
        let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set by a test"});
        let conditions = &mut object["status"]["conditions"];
        match conditions.as_array_mut() {
            Some(conditions) => conditions.push(condition.clone()),
            None => *conditions = json!([condition]),
        }
        let updated = self.update_status(&object).await;
        assert!(has_condition(&updated, &condition), "{updated}");
        watch
            .until(|event| has_condition(&event["object"], &condition))
            .await;
        let condition = json!({"type": "StatusPatched", "status": "True"});
        let patch = json!({"status": {"conditions": [condition]}});
        let patched = self.patch_status(name, "merge", &patch).await;
        assert!(has_condition(&patched, &condition), "{patched}");
        watch
            .until(|event| has_condition(&event["object"], &condition))
            .await;
    }

    /// Scales by an update and a patch of the scale subresource.
    pub(crate) async fn scale(&self, name: &str, replicas: i64) {
        let path = self.path(&format!("{name}/scale"));
        let mut scale = self.api.get(&path).await.ok(200);
        assert_eq!(scale["kind"], "Scale");
        assert_eq!(scale["spec"]["replicas"], replicas);
        assert_eq!(scale["status"]["replicas"], replicas);
        // Without a version it holds whatever happened meanwhile.
        scale["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        scale["spec"]["replicas"] = json!(2);
        let scaled = self.api.put(&path, &scale).await.ok(200);
        assert_eq!(scaled["spec"]["replicas"], 2);
        assert_eq!(self.get(name).await["spec"]["replicas"], 2);
        let patch = json!({"spec": {"replicas": 4}});
        let scaled = self
            .api
            .patch(&path, "strategic-merge", &patch)
            .await
            .ok(200);
        assert_eq!(scaled["spec"]["replicas"], 4);
        assert_eq!(self.get(name).await["spec"]["replicas"], 4);
    }

    /// Takes the finalizers away, as the controller that set them does when nothing is in use.
    pub(crate) async fn release(&self, name: &str) {
        let none = json!({"metadata": {"finalizers": null}});
        self.api
            .patch(&self.path(name), "merge", &none)
            .await
            .ok(200);
    }
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// Whether the status has a condition with at least these members.
fn has_condition(object: &Value, wanted: &Value) -> bool {
    let wanted = wanted.as_object().unwrap();
    let conditions = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    conditions.into_iter().any(|condition| {
        wanted
            .iter()
            .all(|(member, value)| &condition[member] == value)
    })
}

fn selecting(collection: &str, selector: &str) -> String {
    format!(
        "{collection}?labelSelector={}",
        selector.replace('=', "%3D")
    )
}

fn items(answer: Answer) -> Vec<Value> {
    answer.ok(200)["items"].as_array().unwrap().clone()
}
