//! A cluster whose registry has an image of busybox, which takes root and what makes images.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Cluster, Kubectl, is_root, kubectl_available, succeeded, tool_available};

/// A program without libraries that is many, each under a name of its own.
const BUSYBOX: &str = "/bin/busybox";

/// Whether images of containers can be made and run here.
fn containers_available() -> bool {
    if !is_root() {
        eprintln!("SKIPPED: containers take root");
        return false;
    }
    let skopeo = Command::new("skopeo").arg("--version").output().is_ok();
    let available = skopeo && Path::new(BUSYBOX).exists();
    let in_ci = std::env::var_os("CI").is_some();
    assert!(
        available || !in_ci,
        "skopeo or busybox-static is not installed"
    );
    if !available {
        eprintln!("SKIPPED: images of containers are made of skopeo and busybox-static");
    }
    available
}

/// Whether images can be made here of whatever is in a folder, and asked for, by anybody.
pub(crate) fn images_can_be_made() -> bool {
    let skopeo = Path::new("skopeo");
    kubectl_available() && tool_available("skopeo", skopeo, &["--version"], |_| true)
}

/// Writes a blob of an image layout: its descriptor.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    std::fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
}

/// A cluster of these options whose registry has an image of busybox as `busybox:v1`, where there
/// can be one.
pub(crate) fn cluster_with_busybox(more: &[&str]) -> Option<(Cluster, Kubectl)> {
    cluster_with_busybox_as("v1", more)
}

/// The same with a tag of one's own.
pub(crate) fn cluster_with_busybox_as(tag: &str, more: &[&str]) -> Option<(Cluster, Kubectl)> {
    if !containers_available() || !kubectl_available() {
        return None;
    }
    let cluster = Cluster::up(more);
    push_busybox(&cluster, tag);
    let kubectl = cluster.kubectl();
    kubectl.wait_value(&["serviceaccount", "default"], ".metadata.name", "default");
    Some((cluster, kubectl))
}

/// Makes an image of busybox and pushes it into the cluster's registry as `busybox` with a tag.
fn push_busybox(cluster: &Cluster, tag: &str) {
    let root = cluster.folder().join("busybox");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    let names = succeeded(&Command::new(BUSYBOX).arg("--list").output().unwrap());
    for name in names.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    // One that makes root of whoever runs it, where that is allowed.
    let setuid = root.join("bin/setuid/busybox");
    std::fs::create_dir_all(root.join("bin/setuid")).unwrap();
    std::fs::copy(BUSYBOX, &setuid).unwrap();
    std::fs::set_permissions(
        &setuid,
        std::os::unix::fs::PermissionsExt::from_mode(0o4755),
    )
    .unwrap();
    let config = json!({"Cmd": ["sh"], "Env": ["FROM=image"]});
    push_image(cluster, &root, &format!("busybox:{tag}"), &config);
}

/// Makes an image of busybox that says what it is given, where nothing else is asked of it.
pub(crate) fn push_speaker(cluster: &Cluster, name: &str) {
    let root = cluster.folder().join("busybox");
    let config = json!({"Entrypoint": ["echo", "entrypoint"], "Cmd": ["default", "arguments"]});
    push_image(cluster, &root, name, &config);
}

/// Makes an image of what is in a folder, and pushes it under a name with a tag.
pub(crate) fn push_image(cluster: &Cluster, root: &Path, name: &str, config: &Value) {
    let layout = image_layout(cluster.folder(), root, config);
    let certificates = cluster.folder().join("certificates");
    std::fs::create_dir_all(&certificates).unwrap();
    std::fs::copy(
        cluster.data().join("pki/ca.crt"),
        certificates.join("ca.crt"),
    )
    .unwrap();
    let address = std::fs::read_to_string(cluster.data().join("registry-address")).unwrap();
    let credentials = cluster.coracle(&["registry", "credentials"]);
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy"])
        .arg(format!("--dest-cert-dir={}", certificates.display()))
        .arg(format!("--dest-creds={}", credentials.trim()))
        .arg(format!("oci:{}:v1", layout.display()))
        .arg(format!("docker://{}/{name}", address.trim()))
        .env("HOME", cluster.folder())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    succeeded(&copied);
}

/// Writes an image of what is in a folder, as a layout of the OCI with the tag `v1`: where that is.
pub(crate) fn image_layout(folder: &Path, root: &Path, config: &Value) -> PathBuf {
    let archive = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .arg(root)
        .args(["-cf", "-", "."])
        .output()
        .unwrap();
    succeeded(&archive);
    let layout = folder.join("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let layer = blob(
        &layout,
        "application/vnd.oci.image.layer.v1.tar",
        &archive.stdout,
    );
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", _ => "arm64" },
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config_type = "application/vnd.oci.image.config.v1+json";
    let config = blob(&layout, config_type, config.to_string().as_bytes());
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer],
    });
    let mut manifest = blob(&layout, manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    layout
}
