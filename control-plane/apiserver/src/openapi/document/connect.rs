//! Subresources that lead to somebody else: every method is an operation, and what is answered is
//! whatever that is.

use serde_json::{Map, Value, json};

use super::{gvk_of, parameter};
use crate::discovery::Shown;

const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// Adds the operations at a path, and at all paths below.
pub(super) fn add(paths: &mut Map<String, Value>, path: &str, shown: &Shown, common: &[Value]) {
    let path_in_query = parameter("path", "query", "string");
    // These take no options of the API's own.
    let placed = common.iter().filter(|parameter| parameter["in"] == "path");
    let placed: Vec<Value> = placed.cloned().collect();
    let below = [parameter("path", "path", "string")];
    for (path, more) in [
        (path.to_owned(), &below[..0]),
        (format!("{path}/{{path}}"), &below[..]),
    ] {
        let parameters = [&placed[..], more, std::slice::from_ref(&path_in_query)].concat();
        let mut item = Map::new();
        for method in METHODS {
            item.insert(method.to_owned(), operation(method, shown));
        }
        item.insert("parameters".to_owned(), parameters.into());
        paths.insert(path, item.into());
    }
}

fn operation(method: &str, shown: &Shown) -> Value {
    let kind = shown.kind.trim_end_matches("ProxyOptions");
    json!({
        "description": format!(
            "connect {} requests to {} of {kind}", method.to_uppercase(), shown.name
        ),
        "x-kubernetes-action": "connect",
        "x-kubernetes-group-version-kind": gvk_of(shown),
        "responses": {
            "200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}},
            "401": {"description": "Unauthorized"},
        },
    })
}
