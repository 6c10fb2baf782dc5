//! The kubeconfig of a client with a certificate.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::authority::KeyedCertificate;

/// A kubeconfig that names the cluster `coracle` and the user `user`, certificates embedded, so
/// that the file can be moved.
pub(crate) fn render(
    server: &str,
    authority_pem: &str,
    user: &str,
    identity: &KeyedCertificate,
) -> Result<String> {
    let name = "coracle";
    let context = json!({"cluster": name, "user": user});
    Ok(serde_yaml::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": name,
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(authority_pem),
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate),
                "client-key-data": STANDARD.encode(&identity.key),
            },
        }],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }))?)
}
