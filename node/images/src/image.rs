//! What the content store knows of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// An image that the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Digest of the manifest for this platform (`sha256:…`); the image's identity.
    pub digest: String,
    /// What runs it.
    pub kind: ImageKind,
    /// What the image says of how it is to be run; empty for artifacts without such a
    /// configuration.
    pub config: ImageConfig,
    /// Sum of the sizes of its blobs, bytes, as the manifest states them.
    pub size_bytes: u64,
    /// References that lead to it: `registry/repository:tag` and `registry/repository@digest`.
    pub references: Vec<String>,
    /// All blobs that the image needs: manifest, configuration, layers, extracted module.
    pub blobs: Vec<Digest>,
}

/// Which runtime an image is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageKind {
    /// A WebAssembly module or component.
    Wasm {
        /// The blob to run: bytes of a module or component.
        module: Digest,
        /// Layers by their title (`org.opencontainers.image.title`), where they have one; for
        /// instance several modules in one artifact, or files beside the module.
        layers: BTreeMap<String, Digest>,
    },
    /// Layers of a root file system for a container.
    Container,
}

impl ImageKind {
    /// Whether the wasm runtime runs it.
    pub fn is_wasm(&self) -> bool {
        matches!(self, Self::Wasm { .. })
    }
}

/// How an image wants to be run (`config` of the OCI image configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageConfig {
    /// Command, unless the container names one.
    pub entrypoint: Vec<String>,
    /// Arguments, unless the container names some.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// User, as `user`, `uid`, `user:group` or `uid:gid`; empty if none is named.
    pub user: String,
    /// Working directory; empty if none is named.
    pub working_dir: String,
}
