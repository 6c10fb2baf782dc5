//! Subresources that lead to somebody else: what is answered is whatever that is.

use serde_json::{Map, Value, json};

use super::gvk_of;
use super::operation::answers;
use super::parameters::{ATTACH, EXEC, PORT_FORWARD, PROXY, in_path, query};
use crate::discovery::Shown;
use crate::openapi::ids::{connect_id, tag};
use crate::registry::strategy::{Descriptor, Subresource};

/// Adds the operations at a path: of a stream two, of a proxy those of every method, and the same at
/// all paths below.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    path: &str,
    d: &Descriptor,
    (subresource, shown): (Subresource, &Shown),
    common: &[Value],
) {
    let (methods, options): (&[&str], _) = match subresource {
        Subresource::Exec => (&["get", "post"], EXEC),
        Subresource::Attach => (&["get", "post"], ATTACH),
        Subresource::PortForward => (&["get", "post"], PORT_FORWARD),
        _ => (
            &["delete", "get", "head", "options", "patch", "post", "put"],
            PROXY,
        ),
    };
    // These take no options of the API's own.
    let placed = common.iter().filter(|parameter| parameter["in"] == "path");
    let mut parameters: Vec<Value> = placed.cloned().collect();
    parameters.extend(query(options));
    let mut item = |path: String, suffix: &str, parameters: Vec<Value>| {
        let mut item = Map::new();
        for method in methods {
            let id = connect_id(d, method, shown.name) + suffix;
            item.insert((*method).to_owned(), operation(id, method, d, shown));
        }
        item.insert("parameters".to_owned(), parameters.into());
        paths.insert(path, item.into());
    };
    item(path.to_owned(), "", parameters.clone());
    if subresource == Subresource::Proxy {
        parameters.push(in_path("path", "path to the resource"));
        item(format!("{path}/{{path}}"), "WithPath", parameters);
    }
}

fn operation(id: String, method: &str, d: &Descriptor, shown: &Shown) -> Value {
    json!({
        "operationId": id,
        "tags": [tag(d)],
        "description": format!(
            "connect {} requests to {} of {}", method.to_uppercase(), shown.name, d.kind
        ),
        "x-kubernetes-action": "connect",
        "x-kubernetes-group-version-kind": gvk_of(shown),
        "responses": answers(&["*/*"], &json!({"type": "string"})),
    })
}
