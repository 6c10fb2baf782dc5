//! Pushes a WebAssembly file to a registry as an artifact in the CNCF's format: configuration
//! `application/vnd.wasm.config.v0+json`, one layer `application/wasm`.
//!
//! The artifact is a function of the file alone, without times, so that pushing the same file
//! twice gives the same digest.

use bytes::Bytes;
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use serde_json::json;
use wasmparser::{Parser, Payload};

use crate::client::{Basic, ClientError, HttpClients, Repository, Timeouts, Trust};
use crate::media_types::{OCI_MANIFEST, TITLE, WASM_CONFIG, WASM_LAYER};
use crate::pull::is_loopback;
use crate::reference::DOCKER_HUB;
use crate::{Digest, EmbeddedRegistry, Limits, Reference};

/// What to push and where.
#[derive(Clone, Debug, Default)]
pub struct PushRequest {
    /// The reference; an unqualified one goes to the embedded registry.
    pub reference: String,
    /// The bytes of a module or component.
    pub wasm: Bytes,
    /// Name of the file, kept as the layer's title; may be empty.
    pub title: String,
    /// The cluster's registry, with a credential that may push.
    pub embedded: Option<EmbeddedRegistry>,
    /// User and password for other registries.
    pub credential: Option<(String, String)>,
}

/// What was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Registry, repository and tag.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
    /// Bytes of the module.
    pub size_bytes: u64,
}

/// Why a file was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The reference is not valid.
    #[error("{0}")]
    Reference(String),
    /// The file is no WebAssembly.
    #[error("not a WebAssembly module or component: {0}")]
    NotWasm(String),
    /// The registry said no, or could not be reached.
    #[error("failed to push {reference}: {cause}")]
    Registry {
        /// What was being pushed.
        reference: String,
        /// What went wrong.
        cause: String,
    },
}

/// Pushes a file.
pub async fn push(request: PushRequest) -> Result<Pushed, PushError> {
    let reference =
        Reference::parse(&request.reference).map_err(|e| PushError::Reference(e.to_string()))?;
    if reference.digest().is_some() {
        let message = format!("{reference}: push to a tag, the digest follows from the content");
        return Err(PushError::Reference(message));
    }
    let artifact = artifact(&request.wasm, &request.title)?;
    let embedded = request.embedded.unwrap_or_default();
    let reference = if embedded.endpoints.is_empty() {
        reference.qualified(DOCKER_HUB)
    } else {
        reference.qualified(&embedded.name)
    };
    let registry = reference.registry().unwrap_or(DOCKER_HUB);
    let is_ours = embedded.is_named(registry);
    let (endpoint, trust, credential) = match embedded.endpoints.first() {
        Some(endpoint) if is_ours => (endpoint.clone(), Trust::Cluster, embedded.credential),
        _ if registry == DOCKER_HUB => (
            "https://registry-1.docker.io".into(),
            Trust::Machine,
            request.credential,
        ),
        _ if is_loopback(registry) => (
            format!("http://{registry}"),
            Trust::Cluster,
            request.credential,
        ),
        _ => (
            format!("https://{registry}"),
            Trust::Machine,
            request.credential,
        ),
    };
    let failed = |error: ClientError| PushError::Registry {
        reference: reference.to_string(),
        cause: error.to_string(),
    };
    let limits = Limits::default();
    let timeouts = Timeouts {
        connect: limits.connect_timeout,
        // It is over when the answer begins, which is after the whole file has been sent.
        read: limits.read_timeout + limits.at_lowest_rate(request.wasm.len() as u64),
    };
    let http = HttpClients::new(&embedded.ca_pem, timeouts).map_err(failed)?;
    let http = http.get(trust).await.map_err(failed)?;
    let basic = credential.map(|(username, password)| Basic { username, password });
    let name = reference.repository();
    let repository = Repository::new(http, &endpoint, name, basic, "pull,push");
    let upload = async {
        repository.push_blob(request.wasm.clone()).await?;
        repository.push_blob(artifact.config).await?;
        repository
            .push_manifest(&reference.version(), OCI_MANIFEST, artifact.manifest)
            .await
    };
    let digest = upload.await.map_err(failed)?;
    Ok(Pushed {
        reference: reference.to_string(),
        digest: digest.to_string(),
        size_bytes: request.wasm.len() as u64,
    })
}

struct Artifact {
    config: Bytes,
    manifest: Bytes,
}

fn artifact(wasm: &[u8], title: &str) -> Result<Artifact, PushError> {
    let layer = Digest::of(wasm);
    let mut config = json!({
        "architecture": "wasm",
        "os": "wasip1",
        "layerDigests": [layer.to_string()],
    });
    if let Some(component) = component(wasm)? {
        config["os"] = "wasip2".into();
        config["component"] = json!({
            "imports": component.imports,
            "exports": component.exports,
        });
    }
    let config = config.to_string();
    let descriptor = |media_type: &str, bytes: &[u8]| OciDescriptor {
        media_type: media_type.into(),
        digest: Digest::of(bytes).to_string(),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    };
    let mut layer = descriptor(WASM_LAYER, wasm);
    if !title.is_empty() {
        layer.annotations = Some([(TITLE.into(), title.into())].into());
    }
    let manifest = OciImageManifest {
        media_type: Some(OCI_MANIFEST.into()),
        config: descriptor(WASM_CONFIG, config.as_bytes()),
        layers: vec![layer],
        ..OciImageManifest::default()
    };
    let manifest =
        serde_json::to_vec(&manifest).map_err(|error| PushError::NotWasm(error.to_string()))?;
    Ok(Artifact {
        config: config.into(),
        manifest: manifest.into(),
    })
}

#[derive(Default)]
struct Component {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Names that a component imports and exports; none for a core module.
fn component(wasm: &[u8]) -> Result<Option<Component>, PushError> {
    let not_wasm = |error: wasmparser::BinaryReaderError| PushError::NotWasm(error.to_string());
    if !Parser::is_component(wasm) {
        // Reads the sections' frames, so that a truncated file is noticed here.
        for payload in Parser::new(0).parse_all(wasm) {
            payload.map_err(not_wasm)?;
        }
        return Ok(None);
    }
    let mut names = Component::default();
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(not_wasm)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names
                        .imports
                        .push(import.map_err(not_wasm)?.name.name.into());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    names
                        .exports
                        .push(export.map_err(not_wasm)?.name.name.into());
                }
            }
            _ => {}
        }
    }
    Ok(Some(names))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn configuration_of_a_component_and_a_module() {
        let module = b"\0asm\x01\0\0\0";
        let made = artifact(module, "app.wasm").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
        assert_eq!(config["os"], "wasip1");
        assert_eq!(config["layerDigests"][0], Digest::of(module).to_string());
        let again = artifact(module, "app.wasm").unwrap();
        assert_eq!(made.manifest, again.manifest);

        let text = r#"(component
            (import "host" (instance (export "nested" (func))))
            (component (import "inner" (func)))
            (core module)
            (export "handler" (instance 0)))"#;
        let made = artifact(&wat::parse_str(text).unwrap(), "").unwrap();
        let config: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
        assert_eq!(config["os"], "wasip2");
        let expected = json!({"imports": ["host"], "exports": ["handler"]});
        assert_eq!(config["component"], expected);
    }

    #[test]
    fn what_is_no_wasm_is_refused() {
        for bytes in [
            &b""[..],
            b"text",
            b"\0asm\x01\0\0\0\x01\xff",
            b"\0asm\x0d\0\x01\0\x07\x05",
        ] {
            assert!(
                matches!(artifact(bytes, ""), Err(PushError::NotWasm(_))),
                "{bytes:?}"
            );
        }
    }
}
