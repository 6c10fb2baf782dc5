//! The protobuf form of an OpenAPI 2 document, which Go clients ask of `/openapi/v2`.
//!
//! Field numbers are those of `OpenAPIv2.proto` of gnostic-models 0.7.

use serde_json::Value;

use super::super::wire::put_number;
use super::{any, extensions, flag, message, named, operations, text, texts};

/// The media type, as answers name it.
pub const OPENAPI_V2_MEDIA_TYPE: &str =
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The media type as clients ask for it.
pub const OPENAPI_V2_MEDIA_TYPE_OLD: &str =
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Encodes a document.
#[must_use]
pub fn openapi_v2(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, &document["swagger"]);
    message(&mut out, 2, |out| {
        text(out, 1, &document["info"]["title"]);
        text(out, 2, &document["info"]["version"]);
    });
    message(&mut out, 8, |out| {
        named(out, 2, &document["paths"], path_item);
    });
    message(&mut out, 9, |out| {
        named(out, 1, &document["definitions"], schema);
    });
    for one_of in document["security"].as_array().into_iter().flatten() {
        message(&mut out, 12, |out| {
            named(out, 1, one_of, |out, scopes| texts(out, 1, scopes));
        });
    }
    if document["securityDefinitions"].is_object() {
        message(&mut out, 13, |out| {
            named(out, 1, &document["securityDefinitions"], api_key);
        });
    }
    out
}

fn api_key(out: &mut Vec<u8>, definition: &Value) {
    message(out, 2, |out| {
        text(out, 1, &definition["type"]);
        text(out, 2, &definition["name"]);
        text(out, 3, &definition["in"]);
        text(out, 4, &definition["description"]);
    });
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    operations(out, 2, item, operation);
    parameters(out, 9, &item["parameters"]);
    extensions(out, 10, item);
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    texts(out, 1, &operation["tags"]);
    text(out, 3, &operation["description"]);
    text(out, 5, &operation["operationId"]);
    texts(out, 6, &operation["produces"]);
    texts(out, 7, &operation["consumes"]);
    parameters(out, 8, &operation["parameters"]);
    message(out, 9, |out| {
        named(out, 1, &operation["responses"], |out, response| {
            message(out, 1, |out| {
                text(out, 1, &response["description"]);
                if let Some(found) = response.get("schema") {
                    message(out, 2, |out| message(out, 1, |out| schema(out, found)));
                }
            });
        });
    });
    texts(out, 10, &operation["schemes"]);
    extensions(out, 13, operation);
}

fn parameters(out: &mut Vec<u8>, number: u32, parameters: &Value) {
    for found in parameters.as_array().into_iter().flatten() {
        message(out, number, |out| {
            message(out, 1, |out| parameter(out, found));
        });
    }
}

fn parameter(out: &mut Vec<u8>, parameter: &Value) {
    let place = parameter["in"].as_str().unwrap_or_default();
    if place == "body" {
        return message(out, 1, |out| {
            text(out, 1, &parameter["description"]);
            text(out, 2, &parameter["name"]);
            text(out, 3, &parameter["in"]);
            flag(out, 4, &parameter["required"]);
            message(out, 5, |out| schema(out, &parameter["schema"]));
        });
    }
    // In a query one more field stands before the type.
    let (number, shift) = if place == "path" { (4, 0) } else { (3, 1) };
    message(out, 2, |out| {
        message(out, number, |out| {
            flag(out, 1, &parameter["required"]);
            text(out, 2, &parameter["in"]);
            text(out, 3, &parameter["description"]);
            text(out, 4, &parameter["name"]);
            text(out, 5 + shift, &parameter["type"]);
            text(out, 6 + shift, &parameter["format"]);
            flag(out, 19 + shift, &parameter["uniqueItems"]);
        });
    });
}

fn schema(out: &mut Vec<u8>, value: &Value) {
    text(out, 1, &value["$ref"]);
    text(out, 2, &value["format"]);
    text(out, 3, &value["title"]);
    text(out, 4, &value["description"]);
    if let Some(default) = value.get("default") {
        message(out, 5, |out| any(out, default));
    }
    texts(out, 19, &value["required"]);
    for one in value["enum"].as_array().into_iter().flatten() {
        message(out, 20, |out| any(out, one));
    }
    match value.get("additionalProperties") {
        None => {}
        Some(Value::Bool(allowed)) => {
            message(out, 21, |out| put_number(out, 2, u64::from(*allowed)));
        }
        Some(values) => message(out, 21, |out| message(out, 1, |out| schema(out, values))),
    }
    if value["type"].is_string() {
        message(out, 22, |out| text(out, 1, &value["type"]));
    }
    if let Some(items) = value.get("items") {
        message(out, 23, |out| message(out, 1, |out| schema(out, items)));
    }
    if value["properties"].is_object() {
        message(out, 25, |out| named(out, 1, &value["properties"], schema));
    }
    extensions(out, 31, value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_those_of_gnostic() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "t", "version": "v"},
            "paths": {"/p": {"get": {"parameters": [{"name": "n", "in": "query", "type": "string"}]}}},
            "definitions": {"D": {"type": "array", "items": {"$ref": "r"}, "x-a": [1]}},
        });
        let query = b"\x12\x14\x1a\x12\x12\x05query\x22\x01n\x32\x06string".as_slice();
        let parameter = [b"\x42\x18\x0a\x16", query].concat();
        let mut get = parameter;
        get.extend_from_slice(b"\x4a\x00");
        let item = [&[0x12, get.len() as u8][..], &get].concat();
        let mut path = b"\x0a\x02/p\x12".to_vec();
        path.push(item.len() as u8);
        path.extend(item);
        let schema = b"\xb2\x01\x07\x0a\x05array\xba\x01\x05\x0a\x03\x0a\x01r\xfa\x01\x0c\x0a\x03x-a\x12\x05\x12\x03[1]";
        let mut definition = b"\x0a\x01D\x12".to_vec();
        definition.push(schema.len() as u8);
        definition.extend_from_slice(schema);
        let mut want = b"\x0a\x032.0\x12\x06\x0a\x01t\x12\x01v\x42".to_vec();
        want.extend([path.len() as u8 + 2, 0x12, path.len() as u8]);
        want.extend(path);
        want.extend([
            0x4a,
            definition.len() as u8 + 2,
            0x0a,
            definition.len() as u8,
        ]);
        want.extend(definition);
        assert_eq!(openapi_v2(&document), want);
    }

    #[test]
    fn keys_are_those_of_gnostic_too() {
        let key = json!({"type": "apiKey", "name": "n", "in": "header", "description": "d"});
        let document = json!({
            "security": [{"K": []}], "securityDefinitions": {"K": key},
        });
        let want = [
            b"\x12\x00\x42\x00\x4a\x00".as_slice(),
            b"\x62\x07\x0a\x05\x0a\x01K\x12\x00",
            b"\x6a\x1f\x0a\x1d\x0a\x01K\x12\x18\x12\x16",
            b"\x0a\x06apiKey\x12\x01n\x1a\x06header\x22\x01d",
        ];
        assert_eq!(openapi_v2(&document), want.concat());
    }
}
