//! The images of the node, as the kubelet sees them, and when they are pulled.
//!
//! [`Images`] is the seam to the images crate. [`ImageKeeper`] holds what
//! `imagePullPolicy` means: it decides whether to pull, bounds how many pulls run at once and
//! lets Pods that want the same image share one; [`progress`] tells of those that take long. Who may
//! use what is here, [`access`] says purely, by what a Pod has to show ([`claim`]). The back-off is
//! the worker's. What is not used any more goes: [`plan`] says purely what and when, [`collector`]
//! does it, and [`uses`] keeps it from what somebody is about to use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use coracle_images::{PullSecret, RegistryAuth};
use coracle_runtime::{Image, ImageSource};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub(crate) mod access;
mod claim;
pub(crate) mod collector;
mod plan;
pub(crate) mod progress;
pub(crate) mod uses;

use access::Judgement;
pub use access::{AccessPolicy, Origin, Verification};
pub(crate) use claim::Claim;
pub use plan::ImageGcPolicy;
pub use progress::{Fetched, PullProgress};
use uses::{Held, Uses};

/// Pulls that run at once.
const PULLS: usize = 5;
/// How often an image is pulled again that was removed while it was pulled.
const PULLED_AGAIN: usize = 3;

/// What an image holds, which decides the runtime that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WebAssembly.
    Wasm,
    /// A container's root file system.
    Container,
}

/// What an image is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To be run by whichever runtime is for it.
    Run,
    /// To have its files read, which are fetched also where nobody would run it.
    Files,
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
    /// How it came to be here.
    pub origin: Origin,
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
    /// The image of that reference, if the node has what that use takes of it.
    async fn local(&self, reference: &str, of: Use) -> Result<Option<LocalImage>, ImageError>;

    /// Fetches it from where the reference says, and says how far it is.
    async fn pull(
        &self,
        reference: &str,
        of: Use,
        auths: &[RegistryAuth],
        progress: &PullProgress,
    ) -> Result<LocalImage, ImageError>;

    /// Notes that a Secret too gives access to an image, from where its reference leads.
    async fn admit(&self, image: &LocalImage, secret: PullSecret) -> std::io::Result<()>;

    /// Where a runtime that pulls for itself may have an image from, with the credentials that fit.
    fn sources(&self, image: &LocalImage, auths: &[RegistryAuth]) -> Vec<ImageSource>;

    /// All images.
    fn list(&self) -> Vec<ListedImage>;

    /// The folder in which they are.
    fn folder(&self) -> PathBuf;

    /// Forgets an image, which no runtime has made anything of any more: the bytes freed. Blobs
    /// that a pull under way needs stay. What is not there is removed.
    async fn remove(&self, digest: &str) -> std::io::Result<u64>;

    /// Removes what pulls that were cut off that long ago have left: the bytes freed.
    async fn remove_left_over(&self, age: Duration) -> std::io::Result<u64>;
}

/// An image among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedImage {
    /// Digest of its manifest.
    pub digest: String,
    /// References that lead to it.
    pub references: Vec<String>,
    /// Bytes in the store.
    pub size_bytes: u64,
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

/// An image that is here, and how it came to be.
#[derive(Debug)]
pub(crate) struct Obtained {
    pub(crate) image: LocalImage,
    /// How long the pull took, alone and with the wait for it; none if the image was here.
    pub(crate) pulled: Option<(Duration, Duration)>,
    /// Keeps the image here until a runtime has a container of it.
    pub(crate) held: Held,
}

/// Gets images for containers.
pub(crate) struct ImageKeeper {
    images: Arc<dyn Images>,
    access: AccessPolicy,
    slots: Semaphore,
    uses: Uses,
    /// One lock per reference that is being pulled.
    pulling: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl ImageKeeper {
    pub(crate) fn new(images: Arc<dyn Images>, access: AccessPolicy) -> Self {
        Self {
            images,
            access,
            slots: Semaphore::new(PULLS),
            uses: Uses::default(),
            pulling: Mutex::default(),
        }
    }

    /// See [`Images::sources`].
    pub(crate) fn sources(&self, image: &LocalImage, auths: &[RegistryAuth]) -> Vec<ImageSource> {
        self.images.sources(image, auths)
    }

    /// Who is about to use which image.
    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// What an image holds, if it is here.
    pub(crate) async fn kind(&self, reference: &str) -> Option<Kind> {
        let local = self.images.local(reference, Use::Run).await;
        local.ok().flatten().map(|image| image.kind)
    }

    /// Whether everybody may use an image of that reference that the node has not pulled.
    pub(crate) fn is_open(&self, reference: &str) -> bool {
        access::judge(&self.access, reference, &Origin::Preloaded) == Judgement::Allowed
    }

    /// Whether everybody may use what a runtime has by that digest: by another name, or by its ID, it may
    /// be what the node has pulled for some alone.
    pub(crate) async fn is_open_as(&self, reference: &str, digest: &str) -> bool {
        let known = self.images.local(digest, Use::Run).await;
        known.ok().flatten().is_none_or(|image| {
            access::judge(&self.access, reference, &image.origin) == Judgement::Allowed
        })
    }

    /// Makes sure of the image for a Pod. When a pull begins `on_pull` is called; from then on
    /// `progress` has how far it is.
    pub(crate) async fn obtain(
        &self,
        (reference, of): (&str, Use),
        policy: PullPolicy,
        mut claim: Claim<impl Future<Output = Vec<RegistryAuth>> + Send>,
        progress: &PullProgress,
        on_pull: impl FnOnce() + Send,
    ) -> Result<Obtained, ImageError> {
        if policy != PullPolicy::Always
            && let Some(present) = self.present((reference, of), &mut claim).await?
        {
            return Ok(present);
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
            && let Some(present) = self.present((reference, of), &mut claim).await?
        {
            return Ok(present);
        }
        let failed = |message: &str| ImageError {
            reason: "ErrImagePull",
            message: message.to_owned(),
        };
        let closed = |_| failed("the node is stopping");
        let _slot = self.slots.acquire().await.map_err(closed)?;
        on_pull();
        progress.set(Fetched::default());
        let pulled_from = Instant::now();
        let auths = claim.credentials().await;
        for _ in 0..PULLED_AGAIN {
            let image = self.images.pull(reference, of, auths, progress).await?;
            if let Some(held) = self.hold(&image, of).await? {
                return Ok(Obtained {
                    image,
                    pulled: Some((pulled_from.elapsed(), began.elapsed())),
                    held,
                });
            }
        }
        Err(failed("the image was removed while it was pulled"))
    }

    /// The image if it is here and the Pod may use it.
    async fn present(
        &self,
        (reference, of): (&str, Use),
        claim: &mut Claim<impl Future<Output = Vec<RegistryAuth>> + Send>,
    ) -> Result<Option<Obtained>, ImageError> {
        let Some(image) = self.images.local(reference, of).await? else {
            return Ok(None);
        };
        let mut as_good = None;
        match access::judge(&self.access, reference, &image.origin) {
            Judgement::Allowed => {}
            _ if claim.has(&image.image.digest) => {}
            Judgement::Refused => return Ok(None),
            Judgement::OfSecrets(known) => {
                let own = claim.secrets(reference).await;
                let Some(secret) = access::fitting(known, &own) else {
                    return Ok(None);
                };
                // What a known one holds by now has not been shown to a registry.
                let is_known = known.iter().any(|of| of.secret == secret.secret);
                if !is_known && known.len() < access::NOTED {
                    as_good = Some(secret.clone());
                }
            }
        }
        let Some(held) = self.hold(&image, of).await? else {
            return Ok(None);
        };
        if let Some(secret) = as_good
            && let Err(error) = self.images.admit(&image, secret).await
        {
            tracing::warn!(%error, reference, "cannot note who may use an image");
        }
        Ok(Some(Obtained {
            image,
            pulled: None,
            held,
        }))
    }

    /// Holds an image; none if it is going or has gone since it was seen.
    async fn hold(&self, image: &LocalImage, of: Use) -> Result<Option<Held>, ImageError> {
        let Some(held) = self.uses.hold(&image.image.digest) else {
            return Ok(None);
        };
        let still = self.images.local(&image.image.digest, of).await?;
        Ok(still.map(|_| held))
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
