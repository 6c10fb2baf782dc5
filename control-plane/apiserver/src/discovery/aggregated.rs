//! The aggregated documents (KEP-3352).

use serde::Serialize;
use serde_json::{Value, json};

use super::subresources;
use crate::registry::kinds::api_service::by_preference;
use crate::registry::lookup::{Kinds, by_priority};
use crate::registry::strategy::Descriptor;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Value,
    scope: &'static str,
    singular_resource: String,
    verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    short_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<Value>,
}

/// `/api` (the core group) or `/apis` (all others).
pub(super) fn list(kinds: &Kinds, core: bool) -> Value {
    let groups = by_preference(kinds);
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = by_priority(versions)
                .into_iter()
                .map(|(version, kinds)| {
                    let mut resources: Vec<Resource> = kinds
                        .iter()
                        .map(|kind| resource(kind.descriptor()))
                        .collect();
                    resources.sort_by(|a, b| a.resource.cmp(&b.resource));
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn resource(d: &Descriptor) -> Resource {
    let subresources = subresources(d).into_iter().map(|shown| {
        let version = shown.other_version(d);
        json!({
            "subresource": shown.name,
            "responseKind": response_kind(version, &shown.kind),
            "verbs": shown.verbs,
        })
    });
    Resource {
        resource: d.plural.clone(),
        response_kind: response_kind(None, &d.kind),
        scope: if d.is_namespaced() {
            "Namespaced"
        } else {
            "Cluster"
        },
        singular_resource: d.singular.clone(),
        verbs: d.verbs.clone(),
        short_names: d.short_names.clone(),
        categories: d.categories.clone(),
        subresources: subresources.collect(),
    }
}

/// A kind of the version that lists it, if no other is given.
fn response_kind(other_version: Option<(&str, &str)>, kind: &str) -> Value {
    let (group, version) = other_version.unwrap_or_default();
    json!({"group": group, "version": version, "kind": kind})
}
