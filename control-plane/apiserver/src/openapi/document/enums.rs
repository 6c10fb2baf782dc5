//! Fields that have one of few values, and which: who shows a type to people shows them too.

use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("enums.txt");

/// The types, their fields, and the values.
fn lines() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let (field, values) = rest.split_once(' ')?;
        Some((name, field, values))
    })
}

/// Says it of the schemas that there are.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    for (name, field, values) in lines() {
        let schema = schemas.get_mut(&format!("io.k8s.api.{name}"));
        let Some(property) = schema.and_then(|schema| schema["properties"].get_mut(field)) else {
            continue;
        };
        let values: Vec<&str> = values.split(',').collect();
        inner(property)["enum"] = json!(values);
    }
}

/// Of a list the items, of a map the values.
fn inner(schema: &mut Value) -> &mut Value {
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            return &mut schema[part];
        }
    }
    schema
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::document;
    use super::*;
    use crate::registry::kinds;
    use crate::registry::lookup::Kinds;

    #[test]
    fn each_field_of_the_table_is_one_of_a_type_that_is_served() {
        let kinds = Kinds::new(kinds::all());
        let mut found = BTreeSet::new();
        for (group, versions) in kinds.groups() {
            for version in versions.keys() {
                let mut document = document(&kinds, group, version);
                let schemas = document["components"]["schemas"].as_object_mut().unwrap();
                for (name, schema) in schemas {
                    let fields = schema.get_mut("properties");
                    for (field, property) in
                        fields.and_then(Value::as_object_mut).into_iter().flatten()
                    {
                        if inner(property).get("enum").is_some() {
                            let name = name.strip_prefix("io.k8s.api.").unwrap();
                            found.insert(format!("{name} {field}"));
                        }
                    }
                }
            }
        }
        let table: BTreeSet<String> = lines()
            .map(|(name, field, _)| format!("{name} {field}"))
            .collect();
        assert_eq!(found, table);
    }
}
