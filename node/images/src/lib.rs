//! Images: the content store of a node, the client that fills it from registries, and the
//! registry that every server carries.
//!
//! - [`ContentStore`] keeps blobs by digest and the images made of them. It owns its folder.
//! - [`Puller`] speaks the OCI distribution protocol and puts what it reads into the store.
//! - [`unpack`] makes a tree of files of layers, for the runtimes, which know what becomes of it.
//! - [`registry`] answers the same protocol; [`push`] sends a WebAssembly file to it.
//!
//! Deliberately absent: running anything. Compiling a module, and keeping and mounting root file
//! systems, belong to the runtimes, which find the blobs here. Whether to pull at all
//! (`imagePullPolicy`, back-off) is the kubelet's decision.

mod access;
mod classify;
mod client;
mod credentials;
mod digest;
mod extract;
mod image;
mod pull;
mod reference;
mod room;
mod store;

pub mod layer;
pub mod media_types;
pub mod push;
pub mod registry;
pub mod unpack;

pub use access::{Access, PullSecret, SecretId};
pub use credentials::{CredentialsError, RegistryAuth};
pub use digest::{Digest, DigestError, Hasher};
pub use image::{ImageConfig, ImageKind, ImageLayer, StoredImage};
pub use pull::{
    EmbeddedRegistry, Image, Limits, Progress, PullError, PullErrorKind, PullRequest, Puller,
    PullerConfig,
};
pub use reference::{Reference, ReferenceError};
pub use room::Reserve;
pub use store::{BlobWriter, ContentStore, Lease};
