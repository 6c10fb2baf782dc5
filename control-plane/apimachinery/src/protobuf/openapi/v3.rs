//! The protobuf form of an OpenAPI 3 document, which Go clients may ask of what is below
//! `/openapi/v3`.
//!
//! Field numbers are those of `OpenAPIv3.proto` of gnostic-models 0.7. As there, what stands beside
//! a reference and is no description is left out.

use serde_json::Value;

use super::super::wire::{put_bytes, put_fixed64, put_number};
use super::{any, extensions, flag, message, named, operations, text, texts};

/// The media type, as answers name it.
pub const OPENAPI_V3_MEDIA_TYPE: &str =
    "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// The media type as clients ask for it.
pub const OPENAPI_V3_MEDIA_TYPE_OLD: &str =
    "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// Encodes a document.
#[must_use]
pub fn openapi_v3(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, &document["openapi"]);
    message(&mut out, 2, |out| {
        text(out, 1, &document["info"]["title"]);
        text(out, 6, &document["info"]["version"]);
    });
    message(&mut out, 4, |out| {
        named(out, 1, &document["paths"], path_item);
    });
    let components = &document["components"];
    message(&mut out, 5, |out| {
        map(out, 1, &components["schemas"], schema_or_reference);
        map(out, 7, &components["securitySchemes"], security_scheme);
    });
    out
}

/// An object as a message that is a list of names with values.
fn map(out: &mut Vec<u8>, number: u32, object: &Value, write: fn(&mut Vec<u8>, &Value)) {
    if object.is_object() {
        message(out, number, |out| named(out, 1, object, write));
    }
}

/// A reference as one of two things, the other of which is what it leads to.
fn reference(out: &mut Vec<u8>, value: &Value) {
    message(out, 2, |out| {
        text(out, 1, &value["$ref"]);
        text(out, 3, &value["description"]);
    });
}

fn security_scheme(out: &mut Vec<u8>, scheme: &Value) {
    message(out, 1, |out| {
        text(out, 1, &scheme["type"]);
        text(out, 2, &scheme["description"]);
        text(out, 3, &scheme["name"]);
        text(out, 4, &scheme["in"]);
    });
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    operations(out, 4, item, operation);
    parameters(out, 13, &item["parameters"]);
    extensions(out, 14, item);
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    texts(out, 1, &operation["tags"]);
    text(out, 3, &operation["description"]);
    text(out, 5, &operation["operationId"]);
    parameters(out, 6, &operation["parameters"]);
    if let Some(body) = operation.get("requestBody") {
        message(out, 7, |out| {
            message(out, 1, |out| {
                text(out, 1, &body["description"]);
                map(out, 2, &body["content"], media_type);
                flag(out, 3, &body["required"]);
            });
        });
    }
    message(out, 8, |out| {
        named(out, 2, &operation["responses"], |out, response| {
            message(out, 1, |out| {
                text(out, 1, &response["description"]);
                map(out, 3, &response["content"], media_type);
            });
        });
    });
    flag(out, 10, &operation["deprecated"]);
    extensions(out, 13, operation);
}

fn media_type(out: &mut Vec<u8>, form: &Value) {
    if let Some(schema) = form.get("schema") {
        message(out, 1, |out| schema_or_reference(out, schema));
    }
}

fn parameters(out: &mut Vec<u8>, number: u32, parameters: &Value) {
    for parameter in parameters.as_array().into_iter().flatten() {
        message(out, number, |out| {
            message(out, 1, |out| {
                text(out, 1, &parameter["name"]);
                text(out, 2, &parameter["in"]);
                text(out, 3, &parameter["description"]);
                flag(out, 4, &parameter["required"]);
                if let Some(schema) = parameter.get("schema") {
                    message(out, 10, |out| schema_or_reference(out, schema));
                }
            });
        });
    }
}

fn schema_or_reference(out: &mut Vec<u8>, value: &Value) {
    if value.get("$ref").is_some() {
        reference(out, value);
    } else {
        message(out, 1, |out| schema(out, value));
    }
}

fn schemas(out: &mut Vec<u8>, number: u32, all: &Value) {
    for one in all.as_array().into_iter().flatten() {
        message(out, number, |out| schema_or_reference(out, one));
    }
}

fn schema(out: &mut Vec<u8>, value: &Value) {
    flag(out, 1, &value["nullable"]);
    flag(out, 3, &value["readOnly"]);
    flag(out, 4, &value["writeOnly"]);
    flag(out, 8, &value["deprecated"]);
    text(out, 9, &value["title"]);
    double(out, 10, &value["multipleOf"]);
    double(out, 11, &value["maximum"]);
    flag(out, 12, &value["exclusiveMaximum"]);
    double(out, 13, &value["minimum"]);
    flag(out, 14, &value["exclusiveMinimum"]);
    count(out, 15, &value["maxLength"]);
    count(out, 16, &value["minLength"]);
    text(out, 17, &value["pattern"]);
    count(out, 18, &value["maxItems"]);
    count(out, 19, &value["minItems"]);
    flag(out, 20, &value["uniqueItems"]);
    count(out, 21, &value["maxProperties"]);
    count(out, 22, &value["minProperties"]);
    texts(out, 23, &value["required"]);
    for one in value["enum"].as_array().into_iter().flatten() {
        message(out, 24, |out| any(out, one));
    }
    text(out, 25, &value["type"]);
    schemas(out, 26, &value["allOf"]);
    schemas(out, 27, &value["oneOf"]);
    schemas(out, 28, &value["anyOf"]);
    if let Some(not) = value.get("not") {
        message(out, 29, |out| schema(out, not));
    }
    if let Some(items) = value.get("items") {
        message(out, 30, |out| {
            message(out, 1, |out| schema_or_reference(out, items));
        });
    }
    map(out, 31, &value["properties"], schema_or_reference);
    match value.get("additionalProperties") {
        None => {}
        Some(Value::Bool(allowed)) => {
            message(out, 32, |out| put_number(out, 2, u64::from(*allowed)));
        }
        Some(values) => message(out, 32, |out| {
            message(out, 1, |out| schema_or_reference(out, values));
        }),
    }
    if let Some(default) = value.get("default") {
        message(out, 33, |out| default_value(out, default));
    }
    text(out, 34, &value["description"]);
    text(out, 35, &value["format"]);
    extensions(out, 36, value);
}

/// A default; there is no form for those that are lists or objects. One of several things is
/// written also where it is zero or empty.
fn default_value(out: &mut Vec<u8>, default: &Value) {
    match default {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            put_fixed64(out, 1, number.to_bits());
        }
        Value::Bool(default) => put_number(out, 2, u64::from(*default)),
        Value::String(default) => put_bytes(out, 3, default.as_bytes()),
        _ => {}
    }
}

fn double(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(value) = value.as_f64().filter(|value| *value != 0.0) {
        put_fixed64(out, number, value.to_bits());
    }
}

fn count(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(value) = value.as_u64().filter(|value| *value != 0) {
        put_number(out, number, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A field that has a length.
    fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, number, |out| out.extend(parts.concat()));
        out
    }

    #[test]
    fn documents_have_the_numbers_of_gnostic() {
        let document = json!({
            "openapi": "3.0.0", "info": {"title": "t", "version": "v"},
            "paths": {"/p": {
                "get": {
                    "tags": ["a"], "description": "d", "operationId": "o",
                    "parameters": [{"name": "n", "in": "query", "schema": {"type": "string"}}],
                    "requestBody": {"content": {"*/*": {"schema": {"$ref": "r"}}}, "required": true},
                    "responses": {"200": {"description": "OK"}},
                    "x-k": "v",
                },
            }},
            "components": {
                "schemas": {"D": {"type": "object"}},
                "securitySchemes": {"K": {"type": "apiKey", "name": "n", "in": "header"}},
            },
        });
        let parameter = [
            b"\x0a\x01n\x12\x05query".as_slice(),
            b"\x52\x0b\x0a\x09\xca\x01\x06string",
        ];
        let body =
            [b"\x12\x10\x0a\x0e\x0a\x03*/*\x12\x07\x0a\x05\x12\x03\x0a\x01r\x18\x01".as_slice()];
        let get = [
            b"\x0a\x01a\x1a\x01d\x2a\x01o".to_vec(),
            field(6, &[&field(1, &parameter)]),
            field(7, &[&field(1, &body)]),
            b"\x42\x0f\x12\x0d\x0a\x03200\x12\x06\x0a\x04\x0a\x02OK".to_vec(),
            b"\x6a\x0c\x0a\x03x-k\x12\x05\x12\x03\"v\"".to_vec(),
        ];
        let item = field(4, &[&get.concat()]);
        let path = field(1, &[b"\x0a\x02/p", &field(2, &[&item])]);
        let scheme = b"\x0a\x06apiKey\x1a\x01n\x22\x06header";
        let scheme = field(2, &[&field(1, &[scheme])]);
        let want = [
            b"\x0a\x053.0.0\x12\x06\x0a\x01t\x32\x01v".to_vec(),
            field(4, &[&path]),
            field(
                5,
                &[
                    b"\x0a\x12\x0a\x10\x0a\x01D\x12\x0b\x0a\x09\xca\x01\x06object",
                    &field(7, &[&field(1, &[b"\x0a\x01K", &scheme])]),
                ],
            ),
        ];
        assert_eq!(openapi_v3(&document), want.concat());
    }

    #[test]
    fn schemas_have_the_numbers_of_gnostic() {
        type Case = (Value, &'static [u8]);
        let cases: [Case; 16] = [
            (
                json!({"$ref": "r", "description": "d"}),
                b"\x12\x06\x0a\x01r\x1a\x01d",
            ),
            (json!({"nullable": true}), b"\x0a\x02\x08\x01"),
            (json!({"maximum": 2}), b"\x0a\x09\x59\0\0\0\0\0\0\0\x40"),
            (
                json!({"minLength": 3, "uniqueItems": true}),
                b"\x0a\x06\x80\x01\x03\xa0\x01\x01",
            ),
            (json!({"required": ["a"]}), b"\x0a\x04\xba\x01\x01a"),
            (json!({"enum": ["a"]}), b"\x0a\x08\xc2\x01\x05\x12\x03\"a\""),
            (
                json!({"allOf": [{"$ref": "r"}]}),
                b"\x0a\x08\xd2\x01\x05\x12\x03\x0a\x01r",
            ),
            (json!({"oneOf": [{}]}), b"\x0a\x05\xda\x01\x02\x0a\x00"),
            (
                json!({"items": {"$ref": "r"}}),
                b"\x0a\x0a\xf2\x01\x07\x0a\x05\x12\x03\x0a\x01r",
            ),
            (
                json!({"properties": {"a": {}}}),
                b"\x0a\x0c\xfa\x01\x09\x0a\x07\x0a\x01a\x12\x02\x0a\x00",
            ),
            (
                json!({"additionalProperties": true}),
                b"\x0a\x05\x82\x02\x02\x10\x01",
            ),
            (
                json!({"additionalProperties": {}}),
                b"\x0a\x07\x82\x02\x04\x0a\x02\x0a\x00",
            ),
            (json!({"default": ""}), b"\x0a\x05\x8a\x02\x02\x1a\x00"),
            (json!({"default": {}}), b"\x0a\x03\x8a\x02\x00"),
            (
                json!({"description": "d", "format": "f"}),
                b"\x0a\x08\x92\x02\x01d\x9a\x02\x01f",
            ),
            (
                json!({"x-a": [1]}),
                b"\x0a\x0f\xa2\x02\x0c\x0a\x03x-a\x12\x05\x12\x03[1]",
            ),
        ];
        for (schema, want) in cases {
            let mut out = Vec::new();
            schema_or_reference(&mut out, &schema);
            assert_eq!(out, want, "{schema}");
        }
    }
}
