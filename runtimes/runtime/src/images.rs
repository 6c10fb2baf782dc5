//! Images as the kubelet and a runtime speak of them.

use serde::{Deserialize, Serialize};

/// An image that the content store holds, see [`crate::RuntimeService::ensure_image`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Image {
    /// The reference that was asked for.
    pub reference: String,
    /// Digest of the manifest for this platform.
    pub digest: String,
}

/// An image that a runtime has which pulls for itself, whoever has put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnImage {
    /// By what the runtime finds it again: a manifest's digest, or else its own ID.
    pub digest: String,
    /// The full reference, for reports.
    pub resolved: String,
    /// Bytes.
    pub size_bytes: u64,
}

/// As whom an image runs where the Pod does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// The user of that number; root where the image names none.
    Id(i64),
    /// The user of that name, whose number is known by the image's own files alone.
    Name(String),
}

/// Where a runtime that pulls for itself may have an image from.
#[derive(Clone, PartialEq, Eq)]
pub struct ImageSource {
    /// Registry, repository and the digest of the manifest.
    pub reference: String,
    /// User and password, if the registry is to be told any.
    pub credential: Option<(String, String)>,
}
