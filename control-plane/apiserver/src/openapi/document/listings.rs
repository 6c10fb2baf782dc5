//! What answers with what there is: each of these paths has a document of its own, but for the
//! resources of a group-version, which are in that one's.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResourceList, APIVersions,
};
use k8s_openapi::apimachinery::pkg::version::Info;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operation::{TYPES, answers};
use super::whole;
use crate::auth::tokens::discovery as issuer;
use crate::openapi::ids::{group_id, group_tag, resources_id};
use crate::registry::lookup::Kinds;

const JSON: &[&str] = &["application/json"];

/// A path that only reads.
struct Listing {
    /// Its document's name, which is the path without the slashes around it.
    name: String,
    id: String,
    tag: String,
    description: &'static str,
    types: &'static [&'static str],
    schema: fn(&mut SchemaGenerator) -> Value,
}

fn listing(
    name: &str,
    id: &str,
    tag: &str,
    description: &'static str,
    types: &'static [&'static str],
    schema: fn(&mut SchemaGenerator) -> Value,
) -> Listing {
    Listing {
        name: name.trim_matches('/').to_owned(),
        id: id.to_owned(),
        tag: tag.to_owned(),
        description,
        types,
        schema,
    }
}

fn all(kinds: &Kinds) -> Vec<Listing> {
    let versions = "get available API versions";
    let mut all = vec![
        listing(
            "api",
            "getCoreAPIVersions",
            "core",
            versions,
            TYPES,
            |schemas| schemas.subschema_for::<APIVersions>().to_value(),
        ),
        listing(
            "apis",
            "getAPIVersions",
            "apis",
            versions,
            TYPES,
            |schemas| schemas.subschema_for::<APIGroupList>().to_value(),
        ),
        listing(
            "version",
            "getCodeVersion",
            "version",
            "get the version information for this server",
            JSON,
            |schemas| schemas.subschema_for::<Info>().to_value(),
        ),
        listing(
            issuer::CONFIGURATION,
            "getServiceAccountIssuerOpenIDConfiguration",
            "WellKnown",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            JSON,
            text,
        ),
        listing(
            issuer::KEYS,
            "getServiceAccountIssuerOpenIDKeyset",
            "openid",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            &["application/jwk-set+json"],
            text,
        ),
    ];
    let groups = kinds.groups().into_keys().filter(|group| !group.is_empty());
    all.extend(groups.map(|group| {
        let (name, id) = (format!("apis/{group}"), group_id(group));
        let tag = group_tag(group);
        let description = "get information of a group";
        listing(&name, &id, &tag, description, TYPES, |schemas| {
            schemas.subschema_for::<APIGroup>().to_value()
        })
    }));
    all
}

fn text(_: &mut SchemaGenerator) -> Value {
    json!({"type": "string"})
}

/// The names of the documents.
pub(in crate::openapi) fn names(kinds: &Kinds) -> Vec<String> {
    all(kinds).into_iter().map(|listing| listing.name).collect()
}

/// The document of this name.
pub(in crate::openapi) fn document(kinds: &Kinds, name: &str) -> Option<Value> {
    let listing = all(kinds).into_iter().find(|known| known.name == name)?;
    let mut generator = SchemaSettings::openapi3().into_generator();
    let schema = (listing.schema)(&mut generator);
    let mut paths = Map::new();
    let path = format!("/{name}/");
    let (tag, description) = (&listing.tag, listing.description);
    paths.insert(
        path,
        get(&listing.id, tag, description, listing.types, &schema),
    );
    Some(whole(paths, generator.take_definitions(true)))
}

/// Adds what lists the resources of a group-version, at the path that all of them are below.
pub(super) fn add_resources(
    paths: &mut Map<String, Value>,
    base: &str,
    (group, version): (&str, &str),
    generator: &mut SchemaGenerator,
) {
    let schema = generator.subschema_for::<APIResourceList>().to_value();
    let (id, tag) = (resources_id(group, version), group_tag(group));
    let (tag, description) = (format!("{tag}_{version}"), "get available resources");
    let item = get(&id, &tag, description, TYPES, &schema);
    paths.insert(format!("{base}/"), item);
}

fn get(id: &str, tag: &str, description: &str, types: &[&str], schema: &Value) -> Value {
    json!({
        "get": {
            "operationId": id,
            "tags": [tag],
            "description": description,
            "responses": answers(types, schema),
        },
    })
}
