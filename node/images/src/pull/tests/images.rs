//! Container images: those that carry WebAssembly, those that do not, and indexes.

use std::io::Write;

use serde_json::{Value, json};

use super::*;
use crate::media_types::{OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};

fn layer(path: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    gzip.finish().unwrap()
}

async fn push_image(
    registry: &TestRegistry,
    name: &str,
    version: Option<&str>,
    config: Value,
) -> String {
    let repository = registry.repository(name, "admin").await;
    let config = config.to_string().into_bytes();
    let layer = layer("srv/app.wasm", MODULE);
    let descriptor = |media_type: &str, bytes: &[u8]| {
        json!({
            "mediaType": media_type,
            "digest": Digest::of(bytes).to_string(),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor(OCI_LAYER_GZIP, &layer)],
    })
    .to_string();
    repository.push_blob(config.into()).await.unwrap();
    repository.push_blob(layer.into()).await.unwrap();
    let digest = Digest::of(manifest.as_bytes()).to_string();
    let version = version.unwrap_or(&digest);
    repository
        .push_manifest(version, OCI_MANIFEST, manifest.into())
        .await
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn an_image_with_a_wasm_entrypoint() {
    let registry = TestRegistry::start().await;
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "config": {"Entrypoint": ["/srv/app.wasm"], "Cmd": ["-v"], "Env": ["A=b"], "User": "7"},
    });
    push_image(&registry, "app", Some("v1"), config).await;
    let node = node_of(&registry);
    let image = node.pull("app:v1").await.unwrap();
    assert_eq!(node.module(&image), MODULE);
    let stored = node.puller.store().image(&image.digest).unwrap();
    assert_eq!(stored.config.cmd, ["-v"]);
    assert_eq!(stored.config.env, ["A=b"]);
    assert_eq!(stored.config.user, "7");
    assert_eq!(stored.blobs.len(), 4);
    node.puller.store().remove_image(&image.digest).unwrap();
    assert_eq!(node.puller.store().remove_unused_blobs().unwrap(), 0);
}

#[tokio::test]
async fn a_wasm_entrypoint_that_is_not_there() {
    let registry = TestRegistry::start().await;
    let config = json!({"config": {"Entrypoint": ["/other.wasm"]}});
    push_image(&registry, "app", Some("v1"), config).await;
    let error = node_of(&registry).pull("app:v1").await.unwrap_err();
    assert!(
        error.message.contains("/other.wasm is not in its layers"),
        "{error}"
    );
}

/// The configuration of a container image of one layer.
fn container() -> Value {
    json!({
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"], "StopSignal": "SIGQUIT", "Volumes": {"/data": {}}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"archive")]},
    })
}

#[tokio::test]
async fn layers_of_containers_come_where_they_are_of_use() {
    let registry = TestRegistry::start().await;
    push_image(&registry, "app", Some("v1"), container()).await;
    let node = node_of(&registry);
    let image = node.pull("app:v1").await.unwrap();
    let stored = node.puller.store().image(&image.digest).unwrap();
    assert_eq!(stored.kind, ImageKind::Container { layers: None });
    assert_eq!(stored.config.cmd, ["/bin/sh"]);
    assert_eq!(stored.config.stop_signal, "SIGQUIT");
    assert_eq!(stored.config.volumes, ["/data"]);
    assert_eq!(stored.blobs.len(), 2);

    // Somebody who only reads its files.
    let other = node_of(&registry);
    let request = PullRequest {
        reference: "app:v1".into(),
        files: true,
        ..PullRequest::default()
    };
    other.pull("app:v1").await.unwrap();
    assert_eq!(other.puller.resolve_files("app:v1"), None);
    other.puller.pull(&request, &|_| {}).await.unwrap();
    assert!(other.puller.resolve_files("app:v1").is_some());
    // Whoever then asks for less leaves them there.
    other.pull("app:v1").await.unwrap();
    assert!(other.puller.resolve_files("app:v1").is_some());

    // The same node, started anew with a runtime for containers.
    let config = PullerConfig {
        embedded: Some(registry.embedded("node")),
        containers: true,
        ..PullerConfig::default()
    };
    let puller = Puller::new(node.puller.store().clone(), config).unwrap();
    assert_eq!(puller.resolve_local("app:v1"), None, "it lacks its layers");
    let request = PullRequest {
        reference: "app:v1".into(),
        ..PullRequest::default()
    };
    puller.pull(&request, &|_| {}).await.unwrap();
    assert!(puller.resolve_local("app:v1").is_some());
    let stored = puller.store().image(&image.digest).unwrap();
    let ImageKind::Container {
        layers: Some(layers),
    } = stored.kind
    else {
        panic!("{stored:?}");
    };
    assert_eq!(layers[0].diff_id, Digest::of(b"archive"));
    assert!(puller.store().has(&layers[0].digest));
}

#[tokio::test]
async fn an_index_gives_the_wasm_image() {
    let registry = TestRegistry::start().await;
    let linux = push_image(&registry, "app", None, container()).await;
    let wasm = json!({"os": "wasip1", "config": {"Entrypoint": ["/srv/app.wasm"]}});
    let wasm = push_image(&registry, "app", None, wasm).await;
    let entry = |digest: &str, os: &str, architecture: &str| {
        json!({
            "mediaType": OCI_MANIFEST, "digest": digest, "size": 1,
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [entry(&linux, "linux", "amd64"), entry(&wasm, "wasi", "wasm")],
    });
    let repository = registry.repository("app", "admin").await;
    let index = repository
        .push_manifest("v1", OCI_INDEX, index.to_string().into())
        .await
        .unwrap();
    let node = node_of(&registry);
    let image = node.pull("app:v1").await.unwrap();
    assert_eq!(image.digest, wasm);
    let by_index = format!("app@{index}");
    assert_eq!(node.puller.resolve_local(&by_index).unwrap().digest, wasm);
    assert_eq!(node.pull(&by_index).await.unwrap().digest, wasm);

    let only_arm = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [entry(&linux, "linux", "s390x")],
    });
    repository
        .push_manifest("v2", OCI_INDEX, only_arm.to_string().into())
        .await
        .unwrap();
    let error = node.pull("app:v2").await.unwrap_err();
    assert!(error.message.contains("linux/s390x"), "{error}");
}
