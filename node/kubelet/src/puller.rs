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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::Ready;
    use std::path::Path;

    use coracle_images::push::{PushRequest, push};
    use coracle_images::registry::{self, Access, RegistryConfig};
    use coracle_images::{ContentStore, PullerConfig, SecretId};
    use http::request::Parts;

    use super::*;
    use crate::images::{AccessPolicy, Claim, ImageKeeper, PullPolicy};

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    /// `admin:admin` and `node:node`, as HTTP has them.
    const PUSHES: &str = "Basic YWRtaW46YWRtaW4=";
    const PULLS: &str = "Basic bm9kZTpub2Rl";

    /// Serves a registry that tells nobody anything without a credential; the reference of an image.
    async fn private_image(folder: &Path) -> String {
        let authenticator = Arc::new(|parts: &Parts| {
            let sent = parts.headers.get(http::header::AUTHORIZATION);
            match sent.and_then(|sent| sent.to_str().ok()) {
                Some(PUSHES) => Access::Push,
                Some(PULLS) => Access::Pull,
                _ => Access::None,
            }
        });
        let router = registry::router(RegistryConfig::new(folder, authenticator)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reference = format!("{}/team/app:v1", listener.local_addr().unwrap());
        // The test's runtime ends the task.
        tokio::spawn(async move { axum::serve(listener, router).await });
        let request = PushRequest {
            reference: reference.clone(),
            wasm: MODULE.to_vec().into(),
            title: "app.wasm".to_owned(),
            embedded: None,
            credential: Some(("admin".to_owned(), "admin".to_owned())),
        };
        push(request).await.unwrap();
        reference
    }

    fn keeper(content: &Path) -> ImageKeeper {
        let store = ContentStore::open(content).unwrap();
        let puller = Puller::new(store, PullerConfig::default()).unwrap();
        ImageKeeper::new(Arc::new(Arc::new(puller)), AccessPolicy::default())
    }

    /// What a Pod has to show that has a Secret of that name with that password, or none.
    fn claim(reference: &str, secret: Option<(&str, &str)>) -> Claim<Ready<Vec<RegistryAuth>>> {
        let host = reference.split('/').next().unwrap();
        let auth = secret.map(|(name, password)| RegistryAuth {
            pattern: host.to_owned(),
            username: "node".to_owned(),
            password: password.to_owned(),
            secret: Some(SecretId {
                name: name.to_owned(),
                ..SecretId::default()
            }),
        });
        Claim::new(Vec::new(), std::future::ready(Vec::from_iter(auth)))
    }

    /// Whether the image had to be pulled, or why there is none.
    async fn obtain(
        node: &ImageKeeper,
        reference: &str,
        policy: PullPolicy,
        secret: Option<(&str, &str)>,
    ) -> Result<bool, &'static str> {
        let (wanted, progress) = ((reference, Use::Run), PullProgress::default());
        let claim = claim(reference, secret);
        let obtained = node.obtain(wanted, policy, claim, &progress, || {}).await;
        let obtained = obtained.map(|of| of.pulled.is_some());
        obtained.map_err(|error| error.reason)
    }

    #[tokio::test]
    async fn an_image_is_for_those_whose_secret_its_registry_has_taken() {
        use PullPolicy::{IfNotPresent, Never};
        let folder = tempfile::tempdir().unwrap();
        let reference = private_image(&folder.path().join("registry")).await;
        let content = folder.path().join("content");
        let own = Some(("own", "node"));
        let node = keeper(&content);
        for (policy, secret, expected) in [
            (IfNotPresent, None, Err("ErrImagePull")),
            (IfNotPresent, own, Ok(true)),
            (IfNotPresent, own, Ok(false)),
            (IfNotPresent, None, Err("ErrImagePull")),
            (IfNotPresent, Some(("other", "wrong")), Err("ErrImagePull")),
            (Never, None, Err("ErrImageNeverPull")),
            (Never, Some(("same", "node")), Ok(false)),
        ] {
            let obtained = obtain(&node, &reference, policy, secret).await;
            assert_eq!(obtained, expected, "{policy:?} {secret:?}");
        }
        drop(node);
        // The next agent knows it too.
        let node = keeper(&content);
        for (secret, expected) in [
            (None, Err("ErrImageNeverPull")),
            (own, Ok(false)),
            (Some(("same", "changed")), Ok(false)),
            (Some(("other", "wrong")), Err("ErrImageNeverPull")),
        ] {
            let obtained = obtain(&node, &reference, Never, secret).await;
            assert_eq!(obtained, expected, "{secret:?}");
        }
    }
}
