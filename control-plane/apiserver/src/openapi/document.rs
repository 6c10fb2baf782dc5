//! The document of one group-version.

mod connect;

use std::collections::BTreeSet;

use coracle_apimachinery::schema::{ListType, Node, Shape};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::ids::{list_all_id, operation_id, tag};
use crate::discovery::{Shown, shown};
use crate::handlers::patch::ACCEPTED;
use crate::registry::lookup::Kinds;
use crate::registry::strategy::{Descriptor, Subresource};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

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
        let descriptor = kind.descriptor();
        for subresource in &descriptor.subresources {
            define(&mut generator, &shown(descriptor, *subresource));
        }
    }
    let mut schemas = generator.take_definitions(true);
    define_unions(&mut schemas);
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
        add_subresources(&mut paths, descriptor, &name, &mut schemas);
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
        Shape::Map { atomic: true, .. } | Shape::Struct { atomic: true } => {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
        Shape::Map { .. } | Shape::Struct { .. } | Shape::Scalar => {}
    }
}

/// An operation on a kind.
struct Operation<'a> {
    id: String,
    tag: String,
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
            "operationId": self.id,
            "tags": [self.tag],
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
                let content: Map<String, Value> = ACCEPTED
                    .iter()
                    .map(|media_type| {
                        (
                            (*media_type).to_owned(),
                            json!({"schema": reference(PATCH)}),
                        )
                    })
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
/// Those of them that only watches have.
const OF_WATCHES: [&str; 2] = ["allowWatchBookmarks", "watch"];
const WRITE_QUERY: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const LOG_QUERY: &[(&str, &str)] = &[
    ("container", "string"),
    ("follow", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];
const DELETE_QUERY: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// Where the objects of a kind are, and the parameters that all operations there have.
fn collection(d: &Descriptor) -> (String, Vec<Value>) {
    let base = base(d);
    let mut common = query(&[("pretty", "string")]);
    if !d.is_namespaced() {
        return (format!("{base}/{}", d.plural), common);
    }
    common.push(parameter("namespace", "path", "string"));
    let path = format!("{base}/namespaces/{{namespace}}/{}", d.plural);
    (path, common)
}

fn base(d: &Descriptor) -> String {
    let root = if d.group.is_empty() { "api" } else { "apis" };
    format!("/{root}/{}", d.api_version())
}

fn add_paths(paths: &mut Map<String, Value>, d: &Descriptor, schema: &str) {
    let list = format!("{schema}List");
    let operation = |action, body, response: &str, names: &[(&str, &str)]| {
        Operation {
            id: operation_id(d, action, ""),
            tag: tag(d),
            action,
            gvk: gvk(d),
            body,
            response: response.to_owned(),
            parameters: query(names),
        }
        .json()
    };
    let (collection, mut common) = collection(d);
    if d.is_namespaced() && d.verbs.iter().any(|verb| verb == "list") {
        let pretty = query(&[("pretty", "string")]);
        let mut all =
            json!({"get": operation("list", None, &list, LIST_QUERY), "parameters": pretty});
        all["get"]["operationId"] = list_all_id(d).into();
        paths.insert(format!("{}/{}", base(d), d.plural), all);
    }
    // What is deleted is chosen as what is listed.
    let chosen = LIST_QUERY
        .iter()
        .filter(|(name, _)| !OF_WATCHES.contains(name));
    let deletions: Vec<_> = chosen.chain(DELETE_QUERY).copied().collect();
    let of_collection = json!({
        "get": operation("list", None, &list, LIST_QUERY),
        "post": operation("post", Some(schema), schema, WRITE_QUERY),
        "delete": operation("deletecollection", Some(DELETE_OPTIONS), STATUS, &deletions),
        "parameters": common,
    });
    let of_collection = only_served(of_collection, &d.verbs);
    paths.insert(collection.clone(), of_collection);
    common.push(parameter("name", "path", "string"));
    let deleted = if d.returns_deleted { schema } else { STATUS };
    let of_object = json!({
        "get": operation("get", None, schema, &[]),
        "put": operation("put", Some(schema), schema, WRITE_QUERY),
        "patch": operation("patch", Some(PATCH), schema, &patch_query()),
        "delete": operation("delete", Some(DELETE_OPTIONS), deleted, DELETE_QUERY),
        "parameters": common,
    });
    let of_object = only_served(of_object, &d.verbs);
    if of_object.get("get").is_some() {
        paths.insert(format!("{collection}/{{name}}"), of_object);
    }
}

/// The paths of the subresources whose schemas are known.
fn add_subresources(
    paths: &mut Map<String, Value>,
    d: &Descriptor,
    own: &str,
    schemas: &mut Map<String, Value>,
) {
    let (collection, mut common) = collection(d);
    common.push(parameter("name", "path", "string"));
    for subresource in &d.subresources {
        let shown = shown(d, *subresource);
        if *subresource == Subresource::Proxy {
            let path = format!("{collection}/{{name}}/{}", shown.name);
            connect::add(paths, &path, &shown, &common);
            continue;
        }
        let schema = schema_of(&shown, own);
        let Some(definition) = schemas.get_mut(&schema) else {
            continue;
        };
        if shown.foreign {
            definition["x-kubernetes-group-version-kind"] = json!([gvk_of(&shown)]);
        }
        let item = subresource_item(d, &shown, &schema, &common);
        paths.insert(format!("{collection}/{{name}}/{}", shown.name), item);
    }
}

/// The operations of a subresource, by the verbs that discovery lists.
fn subresource_item(d: &Descriptor, shown: &Shown, schema: &str, common: &[Value]) -> Value {
    let mut item = Map::new();
    for &verb in shown.verbs {
        let (method, action, body, query_of) = match verb {
            "create" => ("post", "post", Some(schema), WRITE_QUERY.to_vec()),
            "update" => ("put", "put", Some(schema), WRITE_QUERY.to_vec()),
            "patch" => ("patch", "patch", Some(PATCH), patch_query()),
            _ if shown.name == "log" => ("get", "get", None, LOG_QUERY.to_vec()),
            _ => ("get", "get", None, Vec::new()),
        };
        let operation = Operation {
            id: operation_id(d, action, shown.name),
            tag: tag(d),
            action,
            gvk: gvk_of(shown),
            body,
            response: schema.to_owned(),
            parameters: query(&query_of),
        };
        let mut operation = operation.json();
        if shown.name == "log" {
            let text = json!({"text/plain": {"schema": {"type": "string"}}});
            operation["responses"]["200"]["content"] = text;
        }
        item.insert(method.to_owned(), operation);
    }
    item.insert("parameters".to_owned(), common.to_vec().into());
    item.into()
}

fn gvk_of(shown: &Shown) -> Value {
    json!({"group": shown.group, "kind": shown.kind, "version": shown.version})
}

fn patch_query() -> Vec<(&'static str, &'static str)> {
    [WRITE_QUERY, &[("force", "boolean")]].concat()
}

/// The name of the schema of a subresource: that of the resource, or of a kind of its own.
fn schema_of(shown: &Shown, own: &str) -> String {
    if !shown.foreign {
        return own.to_owned();
    }
    let group = shown
        .group
        .split('.')
        .next()
        .filter(|group| !group.is_empty());
    let (group, version, kind) = (group.unwrap_or("core"), &shown.version, &shown.kind);
    format!("io.k8s.api.{group}.{version}.{kind}")
}

/// Adds the schema of a subresource that has a kind of its own.
fn define(generator: &mut SchemaGenerator, shown: &Shown) {
    match shown.kind.as_str() {
        "Scale" => generator.subschema_for::<Scale>(),
        "Binding" => generator.subschema_for::<Binding>(),
        "Eviction" => generator.subschema_for::<Eviction>(),
        "TokenRequest" => generator.subschema_for::<TokenRequest>(),
        _ => return,
    };
}
