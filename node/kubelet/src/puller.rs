//! The images crate behind the seam [`Images`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_images::{PullSecret, Puller, RegistryAuth};
use coracle_runtime::{Image, ImageSource};

use crate::images::{
    Fetched, ImageError, Images, Kind, ListedImage, LocalImage, Origin, PullProgress, Use,
};

fn found(puller: &Puller, image: coracle_images::Image) -> Option<LocalImage> {
    let stored = puller.store().image(&image.digest)?;
    let repository = image.repository().unwrap_or_default();
    Some(LocalImage {
        resolved: image.id(),
        kind: match stored.kind.is_wasm() {
            true => Kind::Wasm,
            false => Kind::Container,
        },
        size_bytes: stored.size_bytes,
        origin: match stored.pulled.is_empty() {
            true => Origin::Preloaded,
            false => Origin::Pulled(stored.pulled.get(&repository).cloned()),
        },
        image: Image {
            reference: image.reference,
            digest: image.digest,
        },
    })
}

#[async_trait]
impl Images for Arc<Puller> {
    async fn local(&self, reference: &str, of: Use) -> Result<Option<LocalImage>, ImageError> {
        if let Err(error) = coracle_images::Reference::parse(reference)
            && reference.parse::<coracle_images::Digest>().is_err()
        {
            return Err(ImageError {
                reason: "InvalidImageName",
                message: format!(
                    "Failed to apply default image tag \"{reference}\": couldn't parse image \
                     name \"{reference}\": {error}"
                ),
            });
        }
        let image = match of {
            Use::Run => self.resolve_local(reference),
            Use::Files => self.resolve_files(reference),
        };
        Ok(image.and_then(|image| found(self, image)))
    }

    async fn pull(
        &self,
        reference: &str,
        of: Use,
        auths: &[RegistryAuth],
        progress: &PullProgress,
    ) -> Result<LocalImage, ImageError> {
        let request = coracle_images::PullRequest {
            reference: reference.to_owned(),
            auths: auths.to_vec(),
            files: of == Use::Files,
        };
        let report = |of: coracle_images::Progress| {
            progress.set(Fetched {
                done_bytes: of.done_bytes,
                total_bytes: of.total_bytes,
            });
        };
        let pulled = Puller::pull(self, &request, &report).await;
        let image = pulled.map_err(|error| ImageError {
            reason: error.reason(),
            message: error.message,
        })?;
        found(self, image).ok_or_else(|| ImageError {
            reason: "ErrImagePull",
            message: "the image was removed while it was pulled".to_owned(),
        })
    }

    async fn admit(&self, image: &LocalImage, secret: PullSecret) -> std::io::Result<()> {
        let of = image.resolved.rsplit_once('@');
        let repository = of.map_or(&*image.resolved, |(repository, _)| repository);
        Puller::admit(self, &image.image.digest, repository, secret).await
    }

    fn sources(&self, image: &LocalImage, auths: &[RegistryAuth]) -> Vec<ImageSource> {
        let sources = Puller::sources(self, &image.resolved, auths).into_iter();
        let source = |(reference, credential)| ImageSource {
            reference,
            credential,
        };
        sources.map(source).collect()
    }

    fn list(&self) -> Vec<ListedImage> {
        let images = self.store().images().into_iter();
        let listed = images.map(|image| ListedImage {
            digest: image.digest,
            references: image.references,
            size_bytes: image.size_bytes,
        });
        listed.collect()
    }

    fn folder(&self) -> PathBuf {
        self.store().root().to_owned()
    }

    async fn remove(&self, digest: &str) -> std::io::Result<u64> {
        let (store, digest) = (self.store().clone(), digest.to_owned());
        let removed = tokio::task::spawn_blocking(move || store.remove_image(&digest));
        removed.await.map_err(std::io::Error::other)?
    }

    async fn remove_left_over(&self, age: Duration) -> std::io::Result<u64> {
        let store = self.store().clone();
        let removed = tokio::task::spawn_blocking(move || store.remove_left_over(age));
        removed.await.map_err(std::io::Error::other)?
    }
}
