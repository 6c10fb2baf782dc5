//! One operation, as a document has it.

use serde_json::{Map, Value, json};

use super::reference;
use crate::handlers::patch::ACCEPTED;

pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// Media types of answers.
pub(super) const TYPES: &[&str] = &[
    "application/cbor",
    "application/json",
    "application/vnd.kubernetes.protobuf",
    "application/yaml",
];
/// Those of watches, which have the path of lists.
const STREAMS: &[&str] = &[
    "application/cbor-seq",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const OK: (&str, &str) = ("200", "OK");
const CREATED: (&str, &str) = ("201", "Created");
const ACCEPTED_LATER: (&str, &str) = ("202", "Accepted");

/// An operation on a kind.
pub(super) struct Operation<'a> {
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    pub(super) action: &'a str,
    pub(super) gvk: Value,
    /// Schema of the request's body.
    pub(super) body: Option<&'a str>,
    /// Schema of the response's.
    pub(super) response: &'a str,
    pub(super) parameters: Vec<Value>,
}

impl Operation<'_> {
    pub(super) fn json(self) -> Value {
        let codes: &[(&str, &str)] = match self.action {
            "post" => &[OK, CREATED, ACCEPTED_LATER],
            "put" | "patch" => &[OK, CREATED],
            "delete" => &[OK, ACCEPTED_LATER],
            _ => &[OK],
        };
        let streams = STREAMS.iter().filter(|_| self.action == "list");
        let types: Vec<&str> = TYPES.iter().chain(streams).copied().collect();
        let answer = content(&types, &reference(self.response));
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "description": self.description,
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.gvk,
            "parameters": self.parameters,
            "responses": responses(codes, &answer),
        });
        if let Some(schema) = self.body {
            let types: &[&str] = if schema == PATCH { ACCEPTED } else { &["*/*"] };
            operation["requestBody"] = json!({ "content": content(types, &reference(schema)) });
            // Who deletes need not say how.
            if !self.action.starts_with("delete") {
                operation["requestBody"]["required"] = json!(true);
            }
        }
        operation
    }
}

/// A body in any of these forms.
pub(super) fn content(types: &[&str], schema: &Value) -> Value {
    let forms = types.iter();
    let forms = forms.map(|of| ((*of).to_owned(), json!({ "schema": schema })));
    forms.collect::<Map<_, _>>().into()
}

/// The same answer with each of these codes; or that nobody is known who asks.
pub(super) fn responses(codes: &[(&str, &str)], answer: &Value) -> Value {
    let mut responses = Map::new();
    for (code, description) in codes {
        let response = json!({"description": description, "content": answer});
        responses.insert((*code).to_owned(), response);
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    responses.into()
}

/// The one answer of what only reads.
pub(super) fn answers(types: &[&str], schema: &Value) -> Value {
    responses(&[OK], &content(types, schema))
}
