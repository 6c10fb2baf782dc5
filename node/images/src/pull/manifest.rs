//! What a manifest says.

use oci_client::manifest::{OciImageIndex, OciImageManifest};
use serde::Deserialize;

use super::Failure;
use crate::classify::Layer;
use crate::client::Manifest;
use crate::media_types::{DOCKER_MANIFEST_LIST, OCI_INDEX};
use crate::{Digest, ImageLayer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    schema_version: u32,
    media_type: Option<String>,
}

/// The index that it is, if it is one.
pub(super) fn as_index(manifest: &Manifest) -> Result<Option<OciImageIndex>, Failure> {
    let not_valid = |error| Failure::Image(format!("the manifest is not valid: {error}"));
    let versioned: Versioned = serde_json::from_slice(&manifest.bytes).map_err(not_valid)?;
    if versioned.schema_version != 2 {
        return Err(Failure::Image(format!(
            "manifests of schema version {} are not supported",
            versioned.schema_version
        )));
    }
    let media_type = versioned
        .media_type
        .as_ref()
        .or(manifest.media_type.as_ref());
    match media_type.map(String::as_str) {
        Some(OCI_INDEX | DOCKER_MANIFEST_LIST) => serde_json::from_slice(&manifest.bytes)
            .map(Some)
            .map_err(not_valid),
        _ => Ok(None),
    }
}

/// The manifest of an image.
pub(super) fn parse_manifest(manifest: &Manifest) -> Result<OciImageManifest, Failure> {
    serde_json::from_slice(&manifest.bytes)
        .map_err(|error| Failure::Image(format!("the manifest is not valid: {error}")))
}

/// The layers of an image of a container, with what each is unpacked.
pub(super) fn image_layers(layers: &[Layer], diff_ids: Vec<Digest>) -> Vec<ImageLayer> {
    let layers = layers.iter().zip(diff_ids);
    layers
        .map(|(layer, diff_id)| ImageLayer {
            digest: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            diff_id,
        })
        .collect()
}
