//! `/openapi/v3`: an index, and a document for each group-version, made from the types when it
//! is asked for. Clients cache a document by the hash of its content, which its URL carries.
//! `/openapi/v2` is all of it in the older form. It is made when it is asked for first, and kept.
//! Both are in JSON or, as Go clients may ask for them, protobuf.

mod document;
mod ids;
mod kept;
mod v2;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::protobuf::{
    OPENAPI_V2_MEDIA_TYPE, OPENAPI_V2_MEDIA_TYPE_OLD, OPENAPI_V3_MEDIA_TYPE,
    OPENAPI_V3_MEDIA_TYPE_OLD, openapi_v2, openapi_v3,
};
use coracle_apimachinery::status::Status;
use http::header::{CACHE_CONTROL, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::document::listings;
use self::kept::Kept;
use crate::discovery::{hex, tagged, with_etag};
use crate::handlers::encode::response;
use crate::registry::errors::internal;
use crate::registry::lookup::Kinds;
use crate::request::media::accept_clauses;
use crate::request::options::Query;

const JSON: &str = "application/json";
/// Protobuf: as answers name it, and as clients ask for it.
const V2_PROTOBUF: [&str; 2] = [OPENAPI_V2_MEDIA_TYPE, OPENAPI_V2_MEDIA_TYPE_OLD];
const V3_PROTOBUF: [&str; 2] = [OPENAPI_V3_MEDIA_TYPE, OPENAPI_V3_MEDIA_TYPE_OLD];

/// The documents.
#[derive(Default)]
pub(crate) struct OpenApi {
    /// Hashes of the documents by their names. The types are part of the program: they are
    /// computed once.
    hashes: OnceLock<BTreeMap<String, String>>,
    v2_json: Kept,
    v2_protobuf: Kept,
}

impl OpenApi {
    /// Answers `/openapi/v2`, and `/openapi/v3` and what lies below.
    pub(crate) fn answer(
        &self,
        headers: &HeaderMap,
        kinds: &Kinds,
        path: &str,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        if path == "/openapi/v2" {
            return self.v2(headers, kinds);
        }
        let name = path
            .trim_start_matches("/openapi/v3")
            .trim_start_matches('/');
        let hashes = self.hashes(kinds)?;
        // The index is JSON whatever is asked for: clients ask for it as for objects.
        if name.is_empty() {
            let index = encode(&index(hashes))?;
            return Ok(with_etag(headers, JSON, index));
        }
        let hash = hashes.get(name).ok_or_else(Status::unknown_path)?;
        let media_type = wanted(headers, V3_PROTOBUF)?;
        let asked = query.get("hash").filter(|asked| !asked.is_empty());
        if asked.is_some_and(|asked| asked != hash) {
            // What is here must not be kept under the hash of something else.
            return Ok(moved(&url(name, hash)));
        }
        let make = || {
            let document = named(kinds, name)?;
            if media_type == JSON {
                encode(&document)
            } else {
                Ok(Bytes::from(openapi_v3(&document)))
            }
        };
        let mut response = tagged(headers, media_type, &format!("\"{hash}\""), make)?;
        if asked.is_some() {
            let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(CACHE_CONTROL, forever);
        }
        Ok(response)
    }

    fn hashes(&self, kinds: &Kinds) -> Result<&BTreeMap<String, String>, Status> {
        if let Some(hashes) = self.hashes.get() {
            return Ok(hashes);
        }
        let mut hashes = BTreeMap::new();
        let listings = listings::names(kinds);
        for name in names(kinds).into_keys().chain(listings) {
            let document = encode(&named(kinds, &name)?)?;
            hashes.insert(name, hex(&Sha256::digest(&document)));
        }
        Ok(self.hashes.get_or_init(|| hashes))
    }

    /// The older form, in the encoding that the client wants most.
    fn v2(&self, headers: &HeaderMap, kinds: &Kinds) -> Result<Response<Body>, Status> {
        let media_type = wanted(headers, V2_PROTOBUF)?;
        if media_type == JSON {
            let make = || encode(&v2::whole(kinds));
            return self.v2_json.answer(headers, media_type, make);
        }
        let make = || Ok(Bytes::from(openapi_v2(&v2::whole(kinds))));
        self.v2_protobuf.answer(headers, media_type, make)
    }
}

/// JSON, or protobuf by the name that answers give it: what the client wants most.
fn wanted(headers: &HeaderMap, protobuf: [&'static str; 2]) -> Result<&'static str, Status> {
    let [named, asked] = protobuf;
    let clauses = accept_clauses(headers);
    let wanted = clauses.iter().find_map(|clause| match clause.essence {
        JSON | "application/*" | "*/*" => Some(JSON),
        essence if protobuf.contains(&essence) => Some(named),
        _ => None,
    });
    match wanted {
        None if !clauses.is_empty() => Err(Status::not_acceptable(&[JSON, asked])),
        wanted => Ok(wanted.unwrap_or(JSON)),
    }
}

fn moved(url: &str) -> Response<Body> {
    let mut response = response(StatusCode::MOVED_PERMANENTLY, JSON, Body::empty());
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
}

fn url(name: &str, hash: &str) -> String {
    format!("/openapi/v3/{name}?hash={hash}")
}

/// The document of this name.
fn named(kinds: &Kinds, name: &str) -> Result<Value, Status> {
    match names(kinds).remove(name) {
        Some((group, version)) => Ok(document::document(kinds, &group, &version)),
        None => listings::document(kinds, name).ok_or_else(Status::unknown_path),
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

fn index(hashes: &BTreeMap<String, String>) -> Value {
    let paths: serde_json::Map<String, Value> = hashes
        .iter()
        .map(|(name, hash)| {
            let entry = json!({ "serverRelativeURL": url(name, hash) });
            (name.clone(), entry)
        })
        .collect();
    json!({ "paths": paths })
}
