//! An object as the graph sees it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::DynamicResourceScope;
use kube::core::discovery::ApiResource;
use serde::{Deserialize, Deserializer};

/// Of an object of any kind, the metadata by which objects are found and own each other. Every
/// write of the cluster comes by here: what lies beside that, which is most of an object, is
/// passed over and not read.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Sighting {
    #[serde(default, deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<Time>,
}

fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let meta = Metadata::deserialize(from)?;
    Ok(ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        owner_references: meta.owner_references,
        finalizers: meta.finalizers,
        deletion_timestamp: meta.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

impl Resource for Sighting {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube::core::WatchEvent;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_owns_and_is_owned_is_seen_and_nothing_else() {
        let seen = json!({
            "name": "a", "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "finalizers": ["f"], "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "o",
                "blockOwnerDeletion": true,
            }],
        });
        let mut metadata = seen.clone();
        metadata["labels"] = json!({"a": "b"});
        metadata["managedFields"] = json!([{"fieldsV1": {"f:data": {}}}]);
        let object = json!({"kind": "ConfigMap", "metadata": metadata, "data": {"metadata": "x"}});
        let event = json!({"type": "MODIFIED", "object": object}).to_string();
        let WatchEvent::Modified(sighting) =
            serde_json::from_str::<WatchEvent<Sighting>>(&event).unwrap()
        else {
            panic!("another event");
        };
        assert_eq!(serde_json::to_value(sighting.metadata).unwrap(), seen);
    }
}
