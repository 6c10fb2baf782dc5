//! What Go leaves out of JSON: the empty values of fields of whose types it says so.
//!
//! Who manages which field is told by objects as Go writes them. The types of this program keep an
//! empty map that somebody wrote, which in Kubernetes is gone once it was read.

use serde_json::Value;

use super::schema::{Field, Id, Omit, Shape, Step, TABLE, Type};

/// Drops from an object of a kind what Go would leave out of it; nothing from a custom resource.
pub fn drop_omitted(api_version: &str, kind: &str, object: &mut Value) {
    if let Some(id) = TABLE.kind(api_version, kind) {
        message(id, object);
    }
}

fn message(id: Id, value: &mut Value) {
    let Value::Object(members) = value else {
        return;
    };
    let message = TABLE.message(id);
    members.retain(|name, value| {
        // Most are single values that are not empty, and stay whatever field they are of.
        if !(value.is_array() || value.is_object() || is_empty(value)) {
            return true;
        }
        let step = message.step(name).map(usize::from);
        match step.and_then(|at| message.steps.get(at)) {
            Some(Step::Field(field)) => {
                inside(*field, value);
                !(is_empty(value) && is_omitted(*field, value))
            }
            _ => true,
        }
    });
}

fn inside(field: Field, value: &mut Value) {
    let Type::Message(id) = field.kind else {
        return;
    };
    match (field.shape, value) {
        (Shape::List, Value::Array(items)) => items.iter_mut().for_each(|item| message(id, item)),
        (Shape::Map, Value::Object(members)) => {
            members.values_mut().for_each(|member| message(id, member));
        }
        (Shape::One | Shape::Optional, value) => message(id, value),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Whether a field is left out that has this empty value.
fn is_omitted(field: Field, empty: &Value) -> bool {
    let omitted = match (field.shape, empty) {
        (Shape::List, Value::Array(_)) | (Shape::Map, Value::Object(_)) => true,
        // What is a struct in Go is never empty: a quantity, say, or a port that may have a name.
        (Shape::One, empty) => matches!(
            (field.kind, empty),
            (Type::String | Type::Bytes, Value::String(_))
                | (Type::Bool, Value::Bool(_))
                | (Type::Int, Value::Number(_))
                | (Type::Items, Value::Array(_))
        ),
        _ => false,
    };
    omitted && field.omit == Omit::Empty
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_values_are_left_out_where_go_does() {
        let mut class = json!({"kind": "PriorityClass", "metadata": {"name": "a", "annotations": {}, "labels": {"a": ""}}, "value": 0, "globalDefault": false, "description": ""});
        drop_omitted("scheduling.k8s.io/v1", "PriorityClass", &mut class);
        let want = json!({"kind": "PriorityClass", "metadata": {"name": "a", "labels": {"a": ""}}, "value": 0});
        assert_eq!(class, want);

        let mut policy = json!({"spec": {"podSelector": {"matchLabels": {}}, "ingress": [], "egress": [{"ports": []}]}});
        drop_omitted("networking.k8s.io/v1", "NetworkPolicy", &mut policy);
        assert_eq!(policy, json!({"spec": {"podSelector": {}, "egress": [{}]}}));

        // A pointer tells zero from nothing, and a port is a struct.
        let mut deployment = json!({"spec": {"replicas": 0, "paused": false}});
        drop_omitted("apps/v1", "Deployment", &mut deployment);
        assert_eq!(deployment, json!({"spec": {"replicas": 0}}));
        let mut service = json!({"spec": {"ports": [{"port": 80, "targetPort": 0}]}});
        drop_omitted("v1", "Service", &mut service);
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 0);
    }

    #[test]
    fn custom_resources_stay_as_they_are() {
        let object = json!({"metadata": {"labels": {}}, "spec": {"a": []}});
        let mut same = object.clone();
        drop_omitted("example.com/v1", "Widget", &mut same);
        assert_eq!(same, object);
    }
}
