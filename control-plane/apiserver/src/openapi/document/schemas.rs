//! What Kubernetes says of its types beyond their fields: kinds, lists and maps, and what must be there.

use std::collections::BTreeSet;
use std::sync::Arc;

use coracle_apimachinery::schema::{ListType, Node, Schema as Structures, Shape};
use serde_json::{Map, Value, json};

use super::{enums, gvk};
use crate::registry::erased::Kind;

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const MAP_TYPE: &str = "x-kubernetes-map-type";

/// References whose name may be left out: it is empty then.
const NAMED_OR_NOT: [&str; 8] = [
    "core.v1.ConfigMapEnvSource",
    "core.v1.ConfigMapKeySelector",
    "core.v1.ConfigMapProjection",
    "core.v1.ConfigMapVolumeSource",
    "core.v1.LocalObjectReference",
    "core.v1.SecretEnvSource",
    "core.v1.SecretKeySelector",
    "core.v1.SecretProjection",
];

/// Says what there is to say of the schemas of a document. Those of kinds can be in the documents of
/// other group-versions too.
pub(super) fn complete(schemas: &mut Map<String, Value>, kinds: &[Arc<dyn Kind>]) {
    define_unions(schemas);
    schemas.iter_mut().for_each(demand);
    enums::add(schemas);
    let mut seen = BTreeSet::new();
    for kind in kinds {
        let name = kind.schema_name();
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind.descriptor())]);
            extend(schemas, &name, kind.structure(), &mut seen);
        }
    }
    // And of options and answers, to which no kind leads.
    let names: Vec<String> = schemas.keys().cloned().collect();
    for name in names {
        if let Some(node) = Structures::built_in().named(&name) {
            extend(schemas, &name, node, &mut seen);
        }
    }
}

/// Corrects which fields must be there: the types of this program have some always that clients need
/// not send, and the other way about.
fn demand((name, schema): (&String, &mut Value)) {
    let name = name.strip_prefix("io.k8s.api.").unwrap_or(name);
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    let Some(Value::Array(required)) = schema.get_mut("required") else {
        return;
    };
    required.retain(|field| match field.as_str() {
        Some("metadata") => name == "core.v1.Event",
        Some("name") => !NAMED_OR_NOT.contains(&name),
        _ => true,
    });
    if name == "events.v1.Event" {
        required.push(json!("eventTime"));
    }
    if required.is_empty() {
        schema.remove("required");
    }
}

/// Says of every list and map how strategic merge patch and apply treat it.
fn extend(
    schemas: &mut Map<String, Value>,
    name: &str,
    node: Node<'_>,
    seen: &mut BTreeSet<String>,
) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    if is_atomic(node.anywhere())
        && let Some(schema) = schemas.get_mut(name)
    {
        schema[MAP_TYPE] = json!("atomic");
    }
    for (field, rule) in node.named_fields() {
        let Some(property) = schemas
            .get_mut(name)
            .and_then(|schema| schema["properties"].get_mut(field))
        else {
            continue;
        };
        describe(property, rule.node);
        let keys = keys_with_defaults(rule.node);
        let mut strategies = Vec::new();
        if rule.patch.merge {
            strategies.push("merge");
            if let Some(key) = &rule.patch.merge_key {
                property["x-kubernetes-patch-merge-key"] = json!(key);
            }
        }
        if rule.patch.retain_keys {
            strategies.push("retainKeys");
        }
        if rule.patch.replace {
            strategies.push("replace");
        }
        if !strategies.is_empty() {
            property["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
        }
        for (of, key, default) in keys {
            if let Some(schema) = schemas.get_mut(of) {
                schema["properties"][key]["default"] = default;
            }
        }
        let mut inner = rule.node;
        loop {
            match inner.shape(None) {
                Shape::List { items, .. } => inner = items,
                Shape::Map { values, .. } => inner = values,
                Shape::Struct { .. } => break extend(schemas, inner.name(), inner, seen),
                Shape::Scalar => break,
            }
        }
    }
}

/// The keys of a list whose items may lack them, by the type of these: who reads the document could
/// not tell the items apart without knowing what they are then.
fn keys_with_defaults(node: Node<'_>) -> Vec<(&str, &str, Value)> {
    let Shape::List {
        items,
        list: ListType::Map(keys),
    } = node.shape(None)
    else {
        return Vec::new();
    };
    keys.iter()
        .filter_map(|key| Some((items.name(), &*key.name, key.default.clone()?)))
        .collect()
}

/// Scalars that are more than one, in the words of Kubernetes.
fn define_unions(schemas: &mut Map<String, Value>) {
    for (name, format, types) in [
        (QUANTITY, None, ["string", "number"]),
        (INT_OR_STRING, Some("int-or-string"), ["integer", "string"]),
    ] {
        let Some(Value::Object(schema)) = schemas.get_mut(name) else {
            continue;
        };
        schema.remove("x-kubernetes-int-or-string");
        schema.extend(format.map(|format| ("format".to_owned(), json!(format))));
        let types = types.map(|of| json!({ "type": of }));
        schema.insert("oneOf".to_owned(), json!(types));
    }
}

/// Says of a property what its list or map is.
fn describe(property: &mut Value, node: Node<'_>) {
    match node.shape(None) {
        Shape::List { list, .. } => {
            property["x-kubernetes-list-type"] = json!(match list {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map(_) => "map",
            });
            if let ListType::Map(keys) = list {
                let keys: Vec<&str> = keys.iter().map(|key| &*key.name).collect();
                property["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
        Shape::Map { atomic: true, .. } => property[MAP_TYPE] = json!("atomic"),
        // What is so everywhere is said of the type.
        Shape::Struct { atomic } if atomic != is_atomic(node.anywhere()) => {
            property[MAP_TYPE] = json!(if atomic { "atomic" } else { "granular" });
        }
        Shape::Map { .. } | Shape::Struct { .. } | Shape::Scalar => {}
    }
}

/// Whether it is an object that is one value.
fn is_atomic(node: Node<'_>) -> bool {
    matches!(node.shape(None), Shape::Struct { atomic: true })
}
