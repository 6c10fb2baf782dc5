//! Objects that fit the schemas of Kubernetes' types, over few names and values, so that two of
//! them have something in common.

use std::sync::LazyLock;

use coracle_apimachinery::apply::path;
use coracle_apimachinery::gvk::GroupVersionKind;
use coracle_apimachinery::schema::{ListType, Node, Schema, Shape};
use k8s_openapi::api::{
    apps, autoscaling, batch, coordination, core, discovery, networking, rbac, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::draw::Draw;

/// The types, by the names of their schemas, and the kinds with their roots.
struct Types {
    definitions: Map<String, Value>,
    kinds: Vec<(GroupVersionKind, Value)>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut kinds = Vec::new();
    macro_rules! kinds {
        ($($kind:ty),* $(,)?) => {
            $({
                let root = generator.subschema_for::<$kind>();
                kinds.push((GroupVersionKind::of::<$kind>(), root.to_value()));
            })*
        };
    }
    kinds!(
        core::v1::Pod,
        apps::v1::Deployment,
        core::v1::Service,
        core::v1::ConfigMap,
        core::v1::Secret,
        core::v1::Node,
        core::v1::PersistentVolume,
        core::v1::ServiceAccount,
        core::v1::Event,
        apps::v1::StatefulSet,
        batch::v1::Job,
        autoscaling::v2::HorizontalPodAutoscaler,
        coordination::v1::Lease,
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
        networking::v1::Ingress,
        rbac::v1::ClusterRole,
        storage::v1::StorageClass,
        CustomResourceDefinition,
    );
    Types {
        definitions: generator.take_definitions(true),
        kinds,
    }
});

/// A kind of which objects are drawn.
pub(crate) struct Kind {
    pub(crate) gvk: GroupVersionKind,
    root: &'static Value,
}

impl Kind {
    pub(crate) fn draw(draw: &mut Draw<'_>) -> Self {
        let (gvk, root) = draw.pick(&TYPES.kinds);
        Self {
            gvk: gvk.clone(),
            root,
        }
    }

    /// How its lists and maps are merged.
    pub(crate) fn structure(&self) -> Node<'static> {
        Schema::built_in().kind(&self.gvk).unwrap()
    }

    /// An object of the kind, with some of its fields.
    pub(crate) fn object(&self, draw: &mut Draw<'_>) -> Value {
        let mut object = value(draw, self.root, 0);
        object["apiVersion"] = json!(self.gvk.api_version());
        object["kind"] = json!(self.gvk.kind);
        object
    }

    /// The same, without items that cannot be told apart.
    pub(crate) fn tidy_object(&self, draw: &mut Draw<'_>) -> Value {
        let mut object = self.object(draw);
        tidy(&mut object, self.structure());
        object
    }
}

fn value(draw: &mut Draw<'_>, schema: &Value, depth: usize) -> Value {
    let reference = schema["$ref"]
        .as_str()
        .or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        let name = reference.rsplit('/').next().unwrap();
        return value(draw, &TYPES.definitions[name], depth);
    }
    match schema["type"].as_str() {
        Some("object") => object(draw, schema, depth),
        Some("array") if depth > 9 => json!([]),
        Some("array") => {
            let count = draw.below(4);
            (0..count)
                .map(|_| value(draw, &schema["items"], depth + 1))
                .collect()
        }
        Some("integer") => json!(draw.pick(&[1, 2, 80, 0, -1, i32::MAX])),
        Some("number") => json!(draw.pick(&[0.5, 0.0, -2.0, 1e300])),
        Some("boolean") => draw.once_in(2).into(),
        _ if schema["format"] == "date-time" => {
            json!(draw.pick(&[
                "2026-01-01T00:00:00Z",
                "1969-12-31T23:59:59Z",
                "2026-01-01T00:00:00.000001Z"
            ]))
        }
        _ if schema["format"] == "byte" => json!(draw.pick(&["YQ==", "", "/+8="])),
        _ if schema["format"] == "int-or-string" && draw.once_in(2) => {
            json!(draw.pick(&[1, 0, -1]))
        }
        Some("string") => {
            json!(draw.pick(&["a", "b", "TCP", "UDP", "x/y", "", "1Gi", "100m", "ü\n"]))
        }
        // What has no type takes anything.
        _ => json!(draw.pick(&["a", "b"])),
    }
}

fn object(draw: &mut Draw<'_>, schema: &Value, depth: usize) -> Value {
    let mut object = Map::new();
    if let Some(properties) = schema["properties"].as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            object.insert(name.to_owned(), value(draw, &properties[name], depth + 1));
        }
        let names: Vec<&String> = properties.keys().collect();
        let more = if depth > 9 { 0 } else { draw.below(5) };
        for _ in 0..more {
            let name = *draw.pick(&names);
            if !object.contains_key(name) {
                object.insert(name.clone(), value(draw, &properties[name], depth + 1));
            }
        }
    }
    let values = &schema["additionalProperties"];
    if values.is_object() && depth <= 9 {
        for _ in 0..draw.below(4) {
            let name = *draw.pick(&["a", "b", "x.y/z"]);
            object.insert(name.to_owned(), value(draw, values, depth + 1));
        }
    }
    object.into()
}

/// Drops items of lists that cannot be told from one before them.
fn tidy(value: &mut Value, of: Node<'_>) {
    match (of.shape(Some(value)), value) {
        (Shape::List { items, list }, Value::Array(values)) => {
            let mut seen: Vec<Value> = Vec::new();
            values.retain(|item| {
                let identity = match list {
                    ListType::Atomic => return true,
                    ListType::Set => item.clone(),
                    ListType::Map(keys) => keys
                        .iter()
                        .map(|key| {
                            item.get(&*key.name)
                                .or(key.default.as_ref())
                                .cloned()
                                .unwrap_or_default()
                        })
                        .collect(),
                };
                let new = !seen.iter().any(|known| path::equal(known, &identity));
                seen.push(identity);
                new
            });
            values.iter_mut().for_each(|item| tidy(item, items));
        }
        (Shape::Map { .. } | Shape::Struct { .. }, Value::Object(members)) => {
            for (name, member) in members {
                tidy(member, of.field(name).node);
            }
        }
        _ => {}
    }
}

/// The object without nulls, as a type decodes it.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                kept.map(|(name, value)| (name, without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}
