//! The images of the node, as the kubelet sees them, and when they are pulled.
//!
//! [`Images`] is the seam to the images crate. [`ImageKeeper`] holds what
//! `imagePullPolicy` means: it decides whether to pull, bounds how many pulls run at once and
//! lets Pods that want the same image share one. The back-off is the worker's.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use coracle_images::RegistryAuth;
use coracle_runtime::Image;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Pulls that run at once.
const PULLS: usize = 5;

/// What an image holds, which decides the runtime that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebAssembly.
    Wasm,
    /// A container's root file system.
    Container,
}

/// An image that the node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalImage {
    /// As runtimes know it.
    pub image: Image,
    /// The full reference, by digest, for `status.containerStatuses[].imageID`.
    pub resolved: String,
    /// What it holds.
    pub kind: Kind,
    /// Bytes in the store.
    pub size_bytes: u64,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// The reason as the API has it: `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The content store and the registries behind it.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image of that reference, if the node has it.
    async fn local(&self, reference: &str) -> Result<Option<LocalImage>, ImageError>;

    /// Fetches it from where the reference says.
    async fn pull(&self, reference: &str, auths: &[RegistryAuth])
    -> Result<LocalImage, ImageError>;

    /// All images, with their references, for the node's status.
    fn list(&self) -> Vec<(Vec<String>, u64)>;
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The policy of a container; the default follows the tag, as the API reference says.
    pub(crate) fn of(policy: Option<&str>, reference: &str) -> Self {
        match policy {
            Some("Always") => Self::Always,
            Some("IfNotPresent") => Self::IfNotPresent,
            Some("Never") => Self::Never,
            _ => {
                let name = reference.rsplit('/').next().unwrap_or(reference);
                let latest = match (name.contains('@'), name.split_once(':')) {
                    (true, _) => false,
                    (false, Some((_, tag))) => tag == "latest",
                    (false, None) => true,
                };
                match latest {
                    true => Self::Always,
                    false => Self::IfNotPresent,
                }
            }
        }
    }
}

/// How an image came to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obtained {
    Present(LocalImage),
    Pulled {
        image: LocalImage,
        took: Duration,
        waited: Duration,
    },
}

/// Gets images for containers.
pub(crate) struct ImageKeeper {
    images: Arc<dyn Images>,
    slots: Semaphore,
    /// One lock per reference that is being pulled.
    pulling: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl ImageKeeper {
    pub(crate) fn new(images: Arc<dyn Images>) -> Self {
        Self {
            images,
            slots: Semaphore::new(PULLS),
            pulling: Mutex::default(),
        }
    }

    /// What an image holds, if it is here.
    pub(crate) async fn kind(&self, reference: &str) -> Option<Kind> {
        let local = self.images.local(reference).await;
        local.ok().flatten().map(|image| image.kind)
    }

    /// Makes sure of the image. When a pull begins `on_pull` is called, and `auths` asked for.
    pub(crate) async fn obtain(
        &self,
        reference: &str,
        policy: PullPolicy,
        auths: impl Future<Output = Vec<RegistryAuth>> + Send,
        on_pull: impl FnOnce() + Send,
    ) -> Result<Obtained, ImageError> {
        if policy != PullPolicy::Always
            && let Some(image) = self.images.local(reference).await?
        {
            return Ok(Obtained::Present(image));
        }
        if policy == PullPolicy::Never {
            return Err(ImageError {
                reason: "ErrImageNeverPull",
                message: format!(
                    "Container image \"{reference}\" is not present with pull policy of Never"
                ),
            });
        }
        let began = Instant::now();
        let lock = self.lock(reference);
        let _alone = lock.lock().await;
        if policy == PullPolicy::IfNotPresent
            && let Some(image) = self.images.local(reference).await?
        {
            return Ok(Obtained::Present(image));
        }
        let closed = |_| ImageError {
            reason: "ErrImagePull",
            message: "the node is stopping".to_owned(),
        };
        let _slot = self.slots.acquire().await.map_err(closed)?;
        on_pull();
        let pulled_from = Instant::now();
        let image = self.images.pull(reference, &auths.await).await?;
        Ok(Obtained::Pulled {
            image,
            took: pulled_from.elapsed(),
            waited: began.elapsed(),
        })
    }

    fn lock(&self, reference: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut pulling = self.pulling.lock();
        if let Some(lock) = pulling.get(reference).and_then(Weak::upgrade) {
            return lock;
        }
        pulling.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        pulling.insert(reference.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_follows_the_tag() {
        let table = [
            (None, "app", PullPolicy::Always),
            (None, "app:latest", PullPolicy::Always),
            (None, "app:v1", PullPolicy::IfNotPresent),
            (None, "localhost:5000/app", PullPolicy::Always),
            (None, "localhost:5000/app:v1", PullPolicy::IfNotPresent),
            (None, "app@sha256:00", PullPolicy::IfNotPresent),
            (Some("Never"), "app", PullPolicy::Never),
            (Some("IfNotPresent"), "app", PullPolicy::IfNotPresent),
            (Some("Always"), "app:v1", PullPolicy::Always),
        ];
        for (policy, reference, expected) in table {
            assert_eq!(PullPolicy::of(policy, reference), expected, "{reference}");
        }
    }
}
