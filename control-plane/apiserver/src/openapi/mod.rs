//! `/openapi/v3`: an index, and a document for each group-version, made from the types when it
//! is asked for. Clients cache a document by the hash in its URL, which stands for this
//! version of the program.
//!
//! Deliberately absent: `/openapi/v2`, which clients from 1.27 on use as a fallback only.

mod document;

use std::collections::BTreeMap;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::discovery::{hex, with_etag};
use crate::handlers::encode::response;
use crate::registry::errors::internal;
use crate::registry::lookup::Kinds;
use crate::request::options::Query;

const JSON: &str = "application/json";

/// The documents.
pub(crate) struct OpenApi;

impl OpenApi {
    /// Answers `/openapi/v3` and what lies below.
    pub(crate) fn answer(
        &self,
        headers: &HeaderMap,
        kinds: &Kinds,
        path: &str,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        let name = path
            .trim_start_matches("/openapi/v3")
            .trim_start_matches('/');
        if name.is_empty() {
            let index = encode(&index(kinds))?;
            return Ok(with_etag(headers, JSON, index));
        }
        let (group, version) = names(kinds)
            .into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, group_version)| group_version)
            .ok_or_else(Status::unknown_path)?;
        let etag = format!("\"{}\"", hash(name));
        if headers
            .get(IF_NONE_MATCH)
            .is_some_and(|given| given.as_bytes() == etag.as_bytes())
        {
            return Ok(response(StatusCode::NOT_MODIFIED, JSON, Body::empty()));
        }
        let document = encode(&document::document(kinds, &group, &version))?;
        let mut response = response(StatusCode::OK, JSON, Body::from(document));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            response.headers_mut().insert(ETAG, etag);
        }
        if query.get("hash").is_some() {
            let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
            response
                .headers_mut()
                .insert(http::header::CACHE_CONTROL, forever);
        }
        Ok(response)
    }
}

fn encode(document: &Value) -> Result<Bytes, Status> {
    serde_json::to_vec(document)
        .map(Bytes::from)
        .map_err(|error| internal("encode OpenAPI", &error))
}

/// `api/v1` and `apis/GROUP/VERSION`, with their groups and versions.
fn names(kinds: &Kinds) -> BTreeMap<String, (String, String)> {
    let mut names = BTreeMap::new();
    for (group, versions) in kinds.groups() {
        for version in versions.keys() {
            let name = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            names.insert(name, (group.to_owned(), (*version).to_owned()));
        }
    }
    names
}

fn index(kinds: &Kinds) -> Value {
    let paths: serde_json::Map<String, Value> = names(kinds)
        .into_keys()
        .map(|name| {
            let url = format!("/openapi/v3/{name}?hash={}", hash(&name));
            (name, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// The types are part of the program: its version and the document's name say all.
fn hash(name: &str) -> String {
    let digest = Sha256::digest(format!("{} {name}", env!("CARGO_PKG_VERSION")));
    hex(&digest)
}
