//! The document of one group-version.

mod connect;
mod enums;
pub(super) mod listings;
mod operation;
mod parameters;
mod schemas;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use self::operation::{Operation, PATCH, answers};
use self::parameters::{
    DELETE, FORCE, LIST, LOG, OF_WATCHES, PRETTY, Parameter, WRITE, in_path, query,
};
use super::ids::{description, list_all_id, operation_id, tag};
use crate::discovery::{Shown, shown};
use crate::registry::lookup::Kinds;
use crate::registry::strategy::{Descriptor, Subresource};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// The OpenAPI 3 document of a group-version.
pub(super) fn document(all: &Kinds, group: &str, version: &str) -> Value {
    let groups = all.groups();
    let kinds = groups.get(group).and_then(|versions| versions.get(version));
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<v1::ListMeta>();
    generator.subschema_for::<v1::DeleteOptions>();
    generator.subschema_for::<v1::Status>();
    for kind in kinds.into_iter().flatten() {
        kind.schema(&mut generator);
        let descriptor = kind.descriptor();
        for subresource in &descriptor.subresources {
            define(&mut generator, &shown(descriptor, *subresource));
        }
    }
    let mut paths = Map::new();
    let base = base(group, version);
    listings::add_resources(&mut paths, &base, (group, version), &mut generator);
    let mut schemas = generator.take_definitions(true);
    schemas::complete(&mut schemas, all.all());
    schemas.insert(
        PATCH.to_owned(),
        json!({"type": "object", "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body."}),
    );
    for kind in kinds.into_iter().flatten() {
        let descriptor = kind.descriptor();
        let name = kind.schema_name();
        if descriptor.verbs.iter().any(|verb| verb == "list") {
            schemas.insert(format!("{name}List"), list_schema(descriptor, &name));
        }
        add_paths(&mut paths, descriptor, &name);
        add_subresources(&mut paths, descriptor, &name, &mut schemas);
    }
    whole(paths, schemas)
}

/// A document with these paths and schemas.
fn whole(paths: Map<String, Value>, schemas: Map<String, Value>) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": crate::health::version().git_version},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": security_schemes()},
    })
}

/// How clients say who they are.
pub(super) fn security_schemes() -> Value {
    json!({
        "BearerToken": {
            "description": "Bearer Token authentication",
            "type": "apiKey",
            "name": "authorization",
            "in": "header",
        },
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
            "apiVersion": {
                "description": "The version of the API in which the list is written.",
                "type": "string",
            },
            "items": {
                "description": "The objects.",
                "type": "array",
                "items": reference(name),
            },
            "kind": {"description": "The kind of the list.", "type": "string"},
            "metadata": {
                "description": "How new the list is, and what is left out of it.",
                "allOf": [reference(LIST_META)],
            },
        },
        "x-kubernetes-group-version-kind": [{"group": d.group, "kind": kind, "version": d.version}],
    })
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

/// Where the objects of a kind are, and the parameters that all operations there have.
fn collection(d: &Descriptor) -> (String, Vec<Value>) {
    let base = base(&d.group, &d.version);
    let mut common = query(&[PRETTY]);
    if !d.is_namespaced() {
        return (format!("{base}/{}", d.plural), common);
    }
    let what = "object name and auth scope, such as for teams and projects";
    common.push(in_path("namespace", what));
    let path = format!("{base}/namespaces/{{namespace}}/{}", d.plural);
    (path, common)
}

/// Where one of them is.
fn object(d: &Descriptor) -> (String, Vec<Value>) {
    let (collection, mut common) = collection(d);
    common.push(in_path("name", &format!("name of the {}", d.kind)));
    (format!("{collection}/{{name}}"), common)
}

fn base(group: &str, version: &str) -> String {
    match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}

fn add_paths(paths: &mut Map<String, Value>, d: &Descriptor, schema: &str) {
    let list = format!("{schema}List");
    let operation = |action, body, response: &str, parameters: &[Parameter]| {
        Operation {
            id: operation_id(d, action, ""),
            tag: tag(d),
            description: description(d, action, ""),
            action,
            gvk: gvk(d),
            body,
            response,
            parameters: query(parameters),
        }
        .json()
    };
    let (path, common) = collection(d);
    if d.is_namespaced() && d.verbs.iter().any(|verb| verb == "list") {
        let pretty = query(&[PRETTY]);
        let mut all = json!({"get": operation("list", None, &list, LIST), "parameters": pretty});
        all["get"]["operationId"] = list_all_id(d).into();
        let everywhere = format!("{}/{}", base(&d.group, &d.version), d.plural);
        paths.insert(everywhere, all);
    }
    // What is deleted is chosen as what is listed.
    let chosen = LIST.iter().filter(|(name, ..)| !OF_WATCHES.contains(name));
    let deletions: Vec<_> = chosen.chain(DELETE).copied().collect();
    let of_collection = json!({
        "get": operation("list", None, &list, LIST),
        "post": operation("post", Some(schema), schema, WRITE),
        "delete": operation("deletecollection", Some(DELETE_OPTIONS), STATUS, &deletions),
        "parameters": common,
    });
    paths.insert(path, only_served(of_collection, &d.verbs));
    let (path, common) = object(d);
    let deleted = if d.returns_deleted { schema } else { STATUS };
    let of_object = json!({
        "get": operation("get", None, schema, &[]),
        "put": operation("put", Some(schema), schema, WRITE),
        "patch": operation("patch", Some(PATCH), schema, &patch_query()),
        "delete": operation("delete", Some(DELETE_OPTIONS), deleted, DELETE),
        "parameters": common,
    });
    let of_object = only_served(of_object, &d.verbs);
    if of_object.get("get").is_some() {
        paths.insert(path, of_object);
    }
}

/// The paths of the subresources: of those that lead to somebody else, and of those whose schemas are
/// known.
fn add_subresources(
    paths: &mut Map<String, Value>,
    d: &Descriptor,
    own: &str,
    schemas: &mut Map<String, Value>,
) {
    let (object, common) = object(d);
    for subresource in &d.subresources {
        let shown = shown(d, *subresource);
        let path = format!("{object}/{}", shown.name);
        if subresource.is_connection() {
            connect::add(paths, &path, d, (*subresource, &shown), &common);
            continue;
        }
        let schema = schema_of(&shown, own);
        let Some(definition) = schemas.get_mut(&schema) else {
            continue;
        };
        if shown.foreign {
            definition["x-kubernetes-group-version-kind"] = json!([gvk_of(&shown)]);
        }
        let item = subresource_item(d, (*subresource, &shown), &schema, common.clone());
        paths.insert(path, item);
    }
}

/// The operations of a subresource, by the verbs that discovery lists.
fn subresource_item(
    d: &Descriptor,
    (subresource, shown): (Subresource, &Shown),
    schema: &str,
    common: Vec<Value>,
) -> Value {
    let is_log = subresource == Subresource::Log;
    let mut item = Map::new();
    for &verb in shown.verbs {
        let (method, action, body, query_of) = match verb {
            "create" => ("post", "post", Some(schema), WRITE.to_vec()),
            "update" => ("put", "put", Some(schema), WRITE.to_vec()),
            "patch" => ("patch", "patch", Some(PATCH), patch_query()),
            _ if is_log => ("get", "get", None, LOG.to_vec()),
            _ => ("get", "get", None, Vec::new()),
        };
        let operation = Operation {
            id: operation_id(d, action, shown.name),
            tag: tag(d),
            description: description(d, action, shown.name),
            action,
            gvk: gvk_of(shown),
            body,
            response: schema,
            parameters: query(&query_of),
        };
        let mut operation = operation.json();
        if is_log {
            operation["responses"] = answers(&["text/plain"], &json!({"type": "string"}));
        }
        item.insert(method.to_owned(), operation);
    }
    item.insert("parameters".to_owned(), common.into());
    item.into()
}

fn patch_query() -> Vec<Parameter> {
    [WRITE, &[FORCE]].concat()
}

fn gvk_of(shown: &Shown) -> Value {
    json!({"group": shown.group, "kind": shown.kind, "version": shown.version})
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
