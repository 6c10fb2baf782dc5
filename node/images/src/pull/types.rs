//! What a puller is told and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Reference, ReferenceError, RegistryAuth};

/// How a node pulls.
#[derive(Clone, Debug, Default)]
pub struct PullerConfig {
    /// The cluster's own registry, if the node knows one.
    pub embedded: Option<EmbeddedRegistry>,
    /// Whether the node runs containers: fetches the layers of all their images.
    pub containers: bool,
    /// Where others on this machine reach the cluster's own registry without TLS, see
    /// [`crate::Puller::sources`].
    pub relay: Option<SocketAddr>,
    /// Bounds.
    pub limits: Limits,
}

/// Where the cluster's own registry is and how a node proves itself to it.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedRegistry {
    /// The registry as references name it, for instance `127.0.0.1:5000`.
    pub name: String,
    /// Other names that mean it, for instance `localhost:5000`.
    pub aliases: Vec<String>,
    /// Addresses, `https://host:port`, tried in this order.
    pub endpoints: Vec<String>,
    /// The authority that signed its certificate, PEM; empty for plain HTTP.
    pub ca_pem: Vec<u8>,
    /// User and password with which this node pulls.
    pub credential: Option<(String, String)>,
}

impl EmbeddedRegistry {
    /// Whether a reference to that registry means it.
    pub(crate) fn is_named(&self, registry: &str) -> bool {
        self.name == registry || self.aliases.iter().any(|alias| alias == registry)
    }
}

/// Bounds of a pull.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a manifest or an index.
    pub manifest_bytes: u64,
    /// Bytes of a configuration.
    pub config_bytes: u64,
    /// Bytes of a WebAssembly module.
    pub module_bytes: u64,
    /// Bytes of all layers together of an image that holds a WebAssembly module, and of what they hold
    /// unpacked where it is looked for there. Layers of containers are bounded by the disk, see
    /// [`crate::Reserve`].
    pub wasm_image_bytes: u64,
    /// Pulls at the same time; others wait.
    pub concurrent: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time without a byte.
    pub read_timeout: Duration,
    /// Time before something is tried again that a registry or the way to it has spoilt; where that
    /// goes on, a multiple of it.
    pub pause: Duration,
    /// Time for a whole pull, beside what its size takes at the lowest rate.
    pub deadline: Duration,
    /// Bytes per second that a pull must come to. Those who share a slow line still do, and a registry
    /// that trickles holds no pull for ever.
    pub lowest_rate: u64,
}

impl Limits {
    /// How long it may take to fetch so many bytes.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        self.deadline.saturating_add(self.at_lowest_rate(bytes))
    }

    /// How long so many bytes take at the lowest rate.
    pub(crate) fn at_lowest_rate(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.lowest_rate.max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            config_bytes: 4 << 20,
            module_bytes: 512 << 20,
            wasm_image_bytes: 2 << 30,
            concurrent: 16,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            pause: Duration::from_millis(200),
            deadline: Duration::from_secs(30 * 60),
            lowest_rate: 256 << 10,
        }
    }
}

/// What to pull. That it is to be pulled is decided.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// The reference as the Pod names it.
    pub reference: String,
    /// Credentials of the Pod; those that fit the registry are tried.
    pub auths: Vec<RegistryAuth>,
    /// Whether the files of its root file system are to be read: fetches its layers also where the
    /// node runs no containers.
    pub files: bool,
}

/// An image that was pulled or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The reference that was asked for.
    pub reference: String,
    /// What it means: registry, repository, and tag or digest.
    pub resolved_reference: String,
    /// Digest of the manifest for this platform; the key into the [`ContentStore`].
    pub digest: String,
}

impl Image {
    /// The image's ID as a container status shows it: `registry/repository@digest`.
    pub fn id(&self) -> String {
        match self.repository() {
            Some(repository) => format!("{repository}@{}", self.digest),
            None => self.digest.clone(),
        }
    }

    /// Where it is from, `registry/repository`, if that is known.
    pub fn repository(&self) -> Option<String> {
        let reference = Reference::parse(&self.resolved_reference).ok()?;
        Some(reference.name())
    }
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes that the image needs.
    pub total_bytes: u64,
}

/// Kinds of failure, in the kubelet's words for a waiting container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The reference is not valid; no retry helps.
    InvalidImageName,
    /// The pull failed; it is retried with back-off.
    ErrImagePull,
    /// The registry cannot be reached.
    RegistryUnavailable,
}

/// Why an image was not pulled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PullError {
    /// Its kind.
    pub kind: PullErrorKind,
    /// What a user should read.
    pub message: String,
}

impl PullError {
    /// The reason of a waiting container.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            PullErrorKind::InvalidImageName => "InvalidImageName",
            PullErrorKind::ErrImagePull => "ErrImagePull",
            PullErrorKind::RegistryUnavailable => "RegistryUnavailable",
        }
    }
}

impl From<ReferenceError> for PullError {
    fn from(error: ReferenceError) -> Self {
        Self {
            kind: PullErrorKind::InvalidImageName,
            message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_may_take_longer() {
        let limits = Limits {
            deadline: Duration::from_secs(10),
            lowest_rate: 1000,
            ..Limits::default()
        };
        for (bytes, milliseconds) in [
            (0, 10_000),
            (1, 10_001),
            (1000, 11_000),
            (3_600_000, 3_610_000),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(limits.time_for(bytes), expected, "{bytes}");
        }
        // Nothing that a manifest says makes it an error.
        let none = Limits {
            lowest_rate: 0,
            ..limits
        };
        let usual = Limits::default();
        for limits in [limits, none, usual] {
            assert!(limits.time_for(u64::MAX) > limits.time_for(0));
        }
        // An image of 20 GiB is not bound to half an hour, and does not take weeks.
        let large = usual.time_for(20 << 30).as_secs() / 3600;
        assert!((12..=48).contains(&large), "{large} hours");
    }
}
