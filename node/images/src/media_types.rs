//! Media types of manifests, configurations and layers that this crate knows by name.

pub use oci_client::manifest::{
    IMAGE_DOCKER_LAYER_GZIP_MEDIA_TYPE as DOCKER_LAYER_GZIP,
    IMAGE_DOCKER_LAYER_TAR_MEDIA_TYPE as DOCKER_LAYER,
    IMAGE_LAYER_GZIP_MEDIA_TYPE as OCI_LAYER_GZIP, IMAGE_LAYER_MEDIA_TYPE as OCI_LAYER,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE as DOCKER_MANIFEST_LIST,
    IMAGE_MANIFEST_MEDIA_TYPE as DOCKER_MANIFEST, OCI_IMAGE_INDEX_MEDIA_TYPE as OCI_INDEX,
    OCI_IMAGE_MEDIA_TYPE as OCI_MANIFEST,
};

/// Configuration of a wasm artifact, as the CNCF's wasm working group defines it.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// The one layer of such an artifact.
pub const WASM_LAYER: &str = "application/wasm";

/// Layers of bare WebAssembly that tools before that format wrote.
pub const OLDER_WASM_LAYERS: [&str; 2] = [
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

/// What a client of a registry accepts as a manifest.
pub const MANIFESTS: [&str; 4] = [
    OCI_MANIFEST,
    OCI_INDEX,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
];

/// Layers of zstd, which came after the formats that the client knows.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// The same in the words of an older format.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// Layers that their makers do not let others distribute; they may be used all the same.
const RESTRICTED: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Whether a layer of this type is an archive of a root file system.
pub fn is_archive(media_type: &str) -> bool {
    [
        OCI_LAYER,
        OCI_LAYER_GZIP,
        OCI_LAYER_ZSTD,
        DOCKER_LAYER,
        DOCKER_LAYER_GZIP,
        DOCKER_LAYER_ZSTD,
    ]
    .contains(&media_type)
        || RESTRICTED.contains(&media_type)
}

/// Annotation that names the file that a layer holds.
pub const TITLE: &str = "org.opencontainers.image.title";

/// Whether a layer of this type holds WebAssembly itself.
pub fn is_wasm_layer(media_type: &str) -> bool {
    media_type == WASM_LAYER || OLDER_WASM_LAYERS.contains(&media_type)
}
