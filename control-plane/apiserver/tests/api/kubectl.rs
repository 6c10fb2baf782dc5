//! What kubectl makes of the answers to its questions about its user.

use std::path::Path;
use std::process::{Command, Output};

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::harness::Api;
use crate::tls::serve;

/// DER as PEM, as a kubeconfig holds it.
fn pem(label: &str, der: &[u8]) -> Value {
    let body = json!(ByteString(der.to_vec()));
    let body = body.as_str().unwrap();
    let pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    json!(ByteString(pem.into_bytes()))
}

fn program() -> std::ffi::OsString {
    std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into())
}

fn kubectl(home: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(program())
        .arg("--kubeconfig")
        .arg(home.join("config"))
        .args(arguments)
        .env("HOME", home)
        .output()
}

#[tokio::test]
async fn kubectl_auth() {
    if Command::new(program()).arg("help").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "kubectl is not installed");
        eprintln!("SKIPPED: kubectl is not installed");
        return;
    }
    let api = Api::new().await;
    let served = serve(&api).await;
    let (certificate, key) = served.ca.sign("admin", &["system:masters"], &[]);
    let cluster = json!({
        "server": format!("https://{}", served.address),
        "certificate-authority-data": pem("CERTIFICATE", &served.ca.certificate),
    });
    let user = json!({
        "client-certificate-data": pem("CERTIFICATE", &certificate),
        "client-key-data": pem("PRIVATE KEY", key.secret_der()),
    });
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config"), config.to_string()).unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["auth", "whoami"], "system:masters"),
        (&["auth", "can-i", "list", "pods"], "yes"),
        (&["auth", "can-i", "--list"], "*.*"),
        (&["get", "clusterroles,csr,flowschemas"], "catch-all"),
    ];
    for (arguments, want) in cases.iter().copied() {
        let home = home.path().to_owned();
        let arguments: Vec<&'static str> = arguments.to_vec();
        let what = arguments.join(" ");
        let output = tokio::task::spawn_blocking(move || kubectl(&home, &arguments));
        let output = output.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {text}{errors}");
        assert!(text.contains(want), "{what}: {text}{errors}");
    }
    served.cancel.cancel();
    served.task.await.unwrap().unwrap();
}
