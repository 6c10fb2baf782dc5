//! `/openapi/v2`: the same definitions in the older form, all group-versions in one document,
//! for clients older than 1.27 and controllers that read nothing else.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::document::{document, listings, security_schemes};
use crate::registry::lookup::Kinds;

const V3: &str = "#/components/schemas/";
const V2: &str = "#/definitions/";

/// What a schema of this form may say; the rest is left out, as Kubernetes does.
const SCHEMA: &[&str] = &[
    "$ref",
    "additionalProperties",
    "description",
    "enum",
    "format",
    "items",
    "properties",
    "required",
    "title",
    "type",
];

/// The document.
pub(super) fn whole(kinds: &Kinds) -> Value {
    let (mut definitions, mut paths) = (Map::new(), Map::new());
    let mut add = |mut part: Value| {
        if let Value::Object(schemas) = part["components"]["schemas"].take() {
            for (name, schema) in schemas {
                merge(&mut definitions, name, convert(schema));
            }
        }
        if let Value::Object(of_part) = part["paths"].take() {
            paths.extend(of_part.into_iter().map(|(path, item)| {
                let item = path_item(item);
                (path, item)
            }));
        }
    };
    for (group, versions) in kinds.groups() {
        for version in versions.keys() {
            add(document(kinds, group, version));
        }
    }
    for name in listings::names(kinds) {
        if let Some(part) = listings::document(kinds, &name) {
            add(part);
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": crate::health::version().git_version},
        "paths": paths,
        "definitions": definitions,
        "security": [{"BearerToken": []}],
        "securityDefinitions": security_schemes(),
    })
}

/// Adds a definition. Those that several group-versions share say of which kinds they are in
/// only one of them.
fn merge(definitions: &mut Map<String, Value>, name: String, schema: Value) {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    match definitions.get(&name) {
        Some(known) if known.get(KINDS).is_some() => {}
        _ => {
            definitions.insert(name, schema);
        }
    }
}

/// A schema in the older form.
fn convert(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else {
        // `true` as a schema: anything.
        return json!({});
    };
    if schema.contains_key("oneOf") {
        // The older form has no word for what is of several types.
        schema
            .entry("type")
            .or_insert_with(|| Value::from("string"));
    }
    // A reference beside which something is said stands alone in a list.
    if let Some(Value::Array(all)) = schema.remove("allOf")
        && let Some(Value::Object(only)) = all.into_iter().next()
    {
        schema.extend(only);
    }
    let mut converted = Map::new();
    for (name, value) in schema {
        let value = match name.as_str() {
            "$ref" => value
                .as_str()
                .map_or(Value::Null, |reference| reference.replace(V3, V2).into()),
            "properties" => match value {
                Value::Object(properties) => properties
                    .into_iter()
                    .map(|(name, schema)| (name, convert(schema)))
                    .collect(),
                other => other,
            },
            "items" => convert(value),
            "additionalProperties" if value.is_object() => convert(value),
            extension if extension.starts_with("x-kubernetes-") => value,
            known if SCHEMA.contains(&known) => value,
            _ => continue,
        };
        converted.insert(name, value);
    }
    converted.into()
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else {
        return item;
    };
    item.into_iter()
        .map(|(name, value)| {
            let value = match value {
                Value::Array(all) => all.into_iter().map(parameter).collect(),
                value => operation(value),
            };
            (name, value)
        })
        .collect()
}

fn parameter(mut parameter: Value) -> Value {
    if let Value::Object(schema) = parameter["schema"].take()
        && let Some(fields) = parameter.as_object_mut()
    {
        fields.remove("schema");
        fields.extend(schema);
    }
    parameter
}

fn operation(operation: Value) -> Value {
    let Value::Object(mut operation) = operation else {
        return operation;
    };
    let mut parameters: Vec<Value> = match operation.remove("parameters") {
        Some(Value::Array(all)) => all.into_iter().map(parameter).collect(),
        _ => Vec::new(),
    };
    let mut consumes: BTreeSet<String> = BTreeSet::from(["*/*".to_owned()]);
    if let Some(mut body) = operation.remove("requestBody") {
        let content = body["content"].as_object().cloned().unwrap_or_default();
        let schema = content.values().next().map(|body| body["schema"].clone());
        consumes = content
            .into_iter()
            .map(|(media_type, _)| media_type)
            .collect();
        let mut parameter = json!({
            "name": "body", "in": "body", "schema": convert(schema.unwrap_or_default()),
        });
        if body["required"] == true {
            parameter["required"] = body["required"].take();
        }
        parameters.push(parameter);
    }
    let mut produces: Vec<String> = Vec::new();
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for response in responses.values_mut() {
            let description = response["description"].take();
            let content = response["content"].take();
            *response = json!({ "description": description });
            // All forms have the same schema.
            if let Value::Object(forms) = content
                && let Some(mut schema) = forms.values().next().cloned()
            {
                response["schema"] = convert(schema["schema"].take());
                produces = forms.into_iter().map(|(form, _)| form).collect();
            }
        }
    }
    operation.insert("parameters".to_owned(), parameters.into());
    operation.insert("consumes".to_owned(), json!(consumes));
    operation.insert("produces".to_owned(), produces.into());
    operation.insert("schemes".to_owned(), json!(["https"]));
    operation.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_lose_what_the_older_form_does_not_know() {
        let cases = [
            (
                json!({"allOf": [{"$ref": "#/components/schemas/a.B"}], "description": "d", "nullable": true}),
                json!({"$ref": "#/definitions/a.B", "description": "d"}),
            ),
            (
                json!({"type": "object", "additionalProperties": {"$ref": "#/components/schemas/a.B"}}),
                json!({"type": "object", "additionalProperties": {"$ref": "#/definitions/a.B"}}),
            ),
            (
                json!({"properties": {"nullable": {"type": "array", "items": {"type": "string", "oneOf": []}}},
                    "x-kubernetes-list-type": "set"}),
                json!({"properties": {"nullable": {"type": "array", "items": {"type": "string"}}},
                    "x-kubernetes-list-type": "set"}),
            ),
            (
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}], "default": 0}),
                json!({"type": "string", "format": "int-or-string"}),
            ),
            (json!(true), json!({})),
        ];
        for (v3, want) in cases {
            assert_eq!(convert(v3), want);
        }
    }
}
