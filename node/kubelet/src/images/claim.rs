//! What a Pod has to show for an image.

use coracle_images::{PullSecret, RegistryAuth};

/// Containers that a Pod has of images, and what it pulls with, which is asked for when it is needed
/// first: a container starts again also while nobody can say what its Secrets hold.
pub(crate) struct Claim<F> {
    digests: Vec<String>,
    asked: Option<F>,
    known: Vec<RegistryAuth>,
}

impl<F: Future<Output = Vec<RegistryAuth>>> Claim<F> {
    /// `digests` are those of the images of containers that the Pod has.
    pub(crate) fn new(digests: Vec<String>, asked: F) -> Self {
        Self {
            digests,
            asked: Some(asked),
            known: Vec::new(),
        }
    }

    /// Whether the Pod has been given an image already.
    pub(super) fn has(&self, digest: &str) -> bool {
        self.digests.iter().any(|known| known == digest)
    }

    /// What the Pod pulls with.
    pub(super) async fn credentials(&mut self) -> &[RegistryAuth] {
        if let Some(asked) = self.asked.take() {
            self.known = asked.await;
        }
        &self.known
    }

    /// The Secrets of that which fit an image.
    pub(super) async fn secrets(&mut self, reference: &str) -> Vec<PullSecret> {
        let Ok(image) = RegistryAuth::repository(reference) else {
            return Vec::new();
        };
        let auths = self.credentials().await.iter();
        let fitting = auths.filter(|auth| RegistryAuth::covers(&auth.pattern, &image));
        fitting.filter_map(RegistryAuth::pull_secret).collect()
    }
}
