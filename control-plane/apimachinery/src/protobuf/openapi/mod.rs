//! The protobuf forms of OpenAPI documents, which Go clients ask for.
//!
//! Of the messages of gnostic-models, what a document of the Kubernetes API has is written;
//! values of any type are carried as YAML, and JSON is YAML.

mod v2;
mod v3;

use serde_json::{Map, Value};

use super::wire::{insert_length, put_bytes, put_number, put_tag};
pub use v2::{OPENAPI_V2_MEDIA_TYPE, OPENAPI_V2_MEDIA_TYPE_OLD, openapi_v2};
pub use v3::{OPENAPI_V3_MEDIA_TYPE, OPENAPI_V3_MEDIA_TYPE_OLD, openapi_v3};

fn message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, number);
    let start = out.len();
    write(out);
    insert_length(out, start);
}

fn text(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
        put_bytes(out, number, text.as_bytes());
    }
}

fn texts(out: &mut Vec<u8>, number: u32, values: &Value) {
    for value in values.as_array().into_iter().flatten() {
        if let Some(text) = value.as_str() {
            put_bytes(out, number, text.as_bytes());
        }
    }
}

fn flag(out: &mut Vec<u8>, number: u32, value: &Value) {
    if value.as_bool() == Some(true) {
        put_number(out, number, 1);
    }
}

/// An object as a list of names with values.
fn named(out: &mut Vec<u8>, number: u32, object: &Value, write: fn(&mut Vec<u8>, &Value)) {
    for (name, value) in object.as_object().into_iter().flatten() {
        message(out, number, |out| {
            put_bytes(out, 1, name.as_bytes());
            message(out, 2, |out| write(out, value));
        });
    }
}

/// The operations of a path, whose numbers follow each other in both versions.
fn operations(out: &mut Vec<u8>, first: u32, item: &Value, write: fn(&mut Vec<u8>, &Value)) {
    let names = ["get", "put", "post", "delete", "options", "head", "patch"];
    for (number, name) in (first..).zip(names) {
        if let Some(found) = item.get(name) {
            message(out, number, |out| write(out, found));
        }
    }
}

/// Any value, as YAML.
fn any(out: &mut Vec<u8>, value: &Value) {
    put_bytes(out, 2, value.to_string().as_bytes());
}

fn extensions(out: &mut Vec<u8>, number: u32, object: &Value) {
    let is_extension = |(name, _): &(&String, &Value)| name.starts_with("x-");
    let found: Map<String, Value> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(is_extension)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    named(out, number, &found.into(), any);
}
