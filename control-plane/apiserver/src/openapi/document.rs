//! The document of one group-version.

use std::collections::BTreeSet;

use coracle_apimachinery::schema::{ListType, Node, Shape};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::registry::lookup::Kinds;
use crate::registry::strategy::Descriptor;

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The OpenAPI 3 document of a group-version.
pub(super) fn document(kinds: &Kinds, group: &str, version: &str) -> Value {
    let groups = kinds.groups();
    let kinds = groups.get(group).and_then(|versions| versions.get(version));
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>();
    for kind in kinds.into_iter().flatten() {
        kind.schema(&mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert(
        PATCH.to_owned(),
        json!({"type": "object", "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body."}),
    );
    let mut paths = Map::new();
    let mut seen = BTreeSet::new();
    for kind in kinds.into_iter().flatten() {
        let descriptor = kind.descriptor();
        let name = kind.schema_name();
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(descriptor)]);
        }
        extend(&mut schemas, &name, kind.structure(), &mut seen);
        if descriptor.verbs.iter().any(|verb| verb == "list") {
            schemas.insert(format!("{name}List"), list_schema(descriptor, &name));
        }
        add_paths(&mut paths, descriptor, &name);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": crate::health::version().git_version},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn gvk(d: &Descriptor) -> Value {
    json!({"group": d.group, "kind": d.kind, "version": d.version})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn list_schema(d: &Descriptor, name: &str) -> Value {
    let kind = format!("{}List", d.kind);
    json!({
        "description": format!("{kind} is a list of {} objects.", d.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "items": {"type": "array", "items": reference(name)},
            "kind": {"type": "string"},
            "metadata": {"allOf": [reference(LIST_META)]},
        },
        "x-kubernetes-group-version-kind": [{"group": d.group, "kind": kind, "version": d.version}],
    })
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
    for (field, rule) in node.named_fields() {
        let Some(property) = schemas
            .get_mut(name)
            .and_then(|schema| schema["properties"].get_mut(field))
        else {
            continue;
        };
        describe(property, rule.node);
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
        if !strategies.is_empty() {
            property["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
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
        Shape::Map { atomic: true, .. } | Shape::Struct { atomic: true } => {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
        Shape::Map { .. } | Shape::Struct { .. } | Shape::Scalar => {}
    }
}

/// An operation on a kind.
struct Operation<'a> {
    action: &'a str,
    gvk: Value,
    /// Schema of the request's body.
    body: Option<&'a str>,
    /// Schema of the response's.
    response: String,
    parameters: Vec<Value>,
}

impl Operation<'_> {
    fn json(self) -> Value {
        let content = |schema: &str| json!({"application/json": {"schema": reference(schema)}});
        let mut operation = json!({
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.gvk,
            "parameters": self.parameters,
            "responses": {
                "200": {"description": "OK", "content": content(&self.response)},
                "401": {"description": "Unauthorized"},
            },
        });
        match self.body {
            Some(PATCH) => {
                let types = [
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                    "application/apply-patch+yaml",
                ];
                let content: Map<String, Value> = types
                    .into_iter()
                    .map(|media_type| (media_type.to_owned(), json!({"schema": reference(PATCH)})))
                    .collect();
                operation["requestBody"] = json!({"content": content, "required": true});
            }
            Some(schema) => {
                operation["requestBody"] =
                    json!({"content": {"*/*": {"schema": reference(schema)}}});
            }
            None => {}
        }
        operation
    }
}

/// The operations of a path without those whose verbs are not served.
fn only_served(mut path: Value, verbs: &[String]) -> Value {
    if let Some(members) = path.as_object_mut() {
        members.retain(|_, operation| {
            let action = &operation["x-kubernetes-action"];
            let verb = match action.as_str() {
                Some("post") => "create",
                Some("put") => "update",
                Some(other) => other,
                None => return true,
            };
            verbs.iter().any(|served| served == verb)
        });
    }
    path
}

fn parameter(name: &str, place: &str, kind: &str) -> Value {
    let mut parameter =
        json!({"name": name, "in": place, "schema": {"type": kind, "uniqueItems": true}});
    if place == "path" {
        parameter["required"] = json!(true);
    }
    parameter
}

fn query(names: &[(&str, &str)]) -> Vec<Value> {
    names
        .iter()
        .map(|(name, kind)| parameter(name, "query", kind))
        .collect()
}

const LIST_QUERY: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE_QUERY: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const DELETE_QUERY: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

fn add_paths(paths: &mut Map<String, Value>, d: &Descriptor, schema: &str) {
    let base = if d.group.is_empty() {
        format!("/api/{}", d.version)
    } else {
        format!("/apis/{}/{}", d.group, d.version)
    };
    let list = format!("{schema}List");
    let operation = |action, body, response: &str, names: &[(&str, &str)]| {
        Operation {
            action,
            gvk: gvk(d),
            body,
            response: response.to_owned(),
            parameters: query(names),
        }
        .json()
    };
    let collection = if d.is_namespaced() {
        if d.verbs.iter().any(|verb| verb == "list") {
            let all = json!({"get": operation("list", None, &list, LIST_QUERY), "parameters": []});
            paths.insert(format!("{base}/{}", d.plural), all);
        }
        format!("{base}/namespaces/{{namespace}}/{}", d.plural)
    } else {
        format!("{base}/{}", d.plural)
    };
    let mut common = query(&[("pretty", "string")]);
    if d.is_namespaced() {
        common.push(parameter("namespace", "path", "string"));
    }
    let of_collection = json!({
        "get": operation("list", None, &list, LIST_QUERY),
        "post": operation("post", Some(schema), schema, WRITE_QUERY),
        "delete": operation("deletecollection", Some(DELETE_OPTIONS), STATUS, DELETE_QUERY),
        "parameters": common,
    });
    let of_collection = only_served(of_collection, &d.verbs);
    paths.insert(collection.clone(), of_collection);
    common.push(parameter("name", "path", "string"));
    let mut patch_query = WRITE_QUERY.to_vec();
    patch_query.push(("force", "boolean"));
    let of_object = json!({
        "get": operation("get", None, schema, &[]),
        "put": operation("put", Some(schema), schema, WRITE_QUERY),
        "patch": operation("patch", Some(PATCH), schema, &patch_query),
        "delete": operation("delete", Some(DELETE_OPTIONS), STATUS, DELETE_QUERY),
        "parameters": common,
    });
    let of_object = only_served(of_object, &d.verbs);
    let object = format!("{collection}/{{name}}");
    if of_object.get("get").is_some() {
        paths.insert(object.clone(), of_object);
    }
    for part in d.subresources.iter().filter(|known| known.is_part()) {
        let of_part = json!({
            "get": operation("get", None, schema, &[]),
            "put": operation("put", Some(schema), schema, WRITE_QUERY),
            "patch": operation("patch", Some(PATCH), schema, &patch_query),
            "parameters": common,
        });
        paths.insert(format!("{object}/{}", part.name()), of_part);
    }
}
