//! Pulls images into the content store.
//!
//! A pull is: find what the reference means ([`Puller`] knows the embedded registry), get the
//! manifest, decide what the image is (`classify`), fetch the blobs that are missing, record
//! the image. Everything that a registry sends is bounded and verified; what a pull wrote
//! before it failed stays until the next removal of unused blobs, so that a retry goes on
//! from there.
//!
//! Deliberately absent: `imagePullPolicy`, back-off and the choice of Secrets (the kubelet);
//! compiling (the runtimes).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use oci_client::manifest::OciImageManifest;
use tokio::sync::Semaphore;

use crate::classify::{self, Layer, Plan};
use crate::client::{ClientError, HttpClients, Manifest, Repository, Timeouts};
use crate::extract::extract;
use crate::layer::LayerError;
use crate::reference::DOCKER_HUB;
use crate::{Access, ContentStore, Digest, ImageKind, Lease, PullSecret, Reference, StoredImage};

mod manifest;
mod sources;
mod types;

use manifest::{as_index, image_layers, parse_manifest};
use sources::Place;
pub use types::{
    EmbeddedRegistry, Image, Limits, Progress, PullError, PullErrorKind, PullRequest, PullerConfig,
};

/// Pulls images from registries.
pub struct Puller {
    store: Arc<ContentStore>,
    config: PullerConfig,
    http: HttpClients,
    running: Semaphore,
}

/// What went wrong inside; it becomes a [`PullError`] with the reference.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Image(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("not done within {0:?}")]
    Deadline(Duration),
}

type ProgressFn<'a> = &'a (dyn Fn(Progress) + Send + Sync);

impl Puller {
    /// A puller into a store. Fails if the certificate of the embedded registry's authority
    /// cannot be read.
    pub fn new(store: Arc<ContentStore>, config: PullerConfig) -> Result<Self, PullError> {
        let ca = config.embedded.as_ref().map(|e| e.ca_pem.as_slice());
        let timeouts = Timeouts {
            connect: config.limits.connect_timeout,
            read: config.limits.read_timeout,
        };
        let http =
            HttpClients::new(ca.unwrap_or_default(), timeouts).map_err(|error| PullError {
                kind: PullErrorKind::ErrImagePull,
                message: error.to_string(),
            })?;
        Ok(Self {
            store,
            running: Semaphore::new(config.limits.concurrent.max(1)),
            config,
            http,
        })
    }

    /// The store that it fills.
    pub fn store(&self) -> &Arc<ContentStore> {
        &self.store
    }

    /// The image of a reference, if it is here already. Asks no registry.
    pub fn resolve_local(&self, reference: &str) -> Option<Image> {
        self.resolve(reference, self.config.containers)
    }

    /// The same of an image whose files are to be read, see [`PullRequest::files`].
    pub fn resolve_files(&self, reference: &str) -> Option<Image> {
        self.resolve(reference, true)
    }

    fn resolve(&self, reference: &str, with_layers: bool) -> Option<Image> {
        let image = self.find_local(reference)?;
        let stored = self.store.image(&image.digest)?;
        (!lacks(&stored, with_layers)).then_some(image)
    }

    fn find_local(&self, reference: &str) -> Option<Image> {
        if let Ok(digest) = reference.parse::<Digest>() {
            let image = self.store.image(&digest.to_string())?;
            let first = image.references.first();
            return Some(Image {
                reference: reference.to_owned(),
                resolved_reference: first.cloned().unwrap_or_else(|| image.digest.clone()),
                digest: image.digest,
            });
        }
        let parsed = Reference::parse(reference).ok()?;
        self.meanings(&parsed).into_iter().find_map(|meaning| {
            let image = self.store.image_by_reference(&key(&meaning))?;
            Some(Image {
                reference: reference.to_owned(),
                resolved_reference: meaning.to_string(),
                digest: image.digest,
            })
        })
    }

    /// Pulls an image, or makes sure that what is here is what the registry has.
    pub async fn pull(
        &self,
        request: &PullRequest,
        progress: ProgressFn<'_>,
    ) -> Result<Image, PullError> {
        let asked = Reference::parse(&request.reference)?;
        let deadline = self.config.limits.deadline;
        let pull = async {
            let _turn = self
                .running
                .acquire()
                .await
                .map_err(std::io::Error::other)?;
            let meaning = self.meaning(&asked).await?;
            let image = self.pull_qualified(&meaning, request, progress).await?;
            Ok((meaning, image))
        };
        let result = tokio::time::timeout(deadline, pull).await;
        match result.unwrap_or(Err(Failure::Deadline(deadline))) {
            Ok((meaning, image)) => Ok(Image {
                reference: request.reference.clone(),
                resolved_reference: meaning.to_string(),
                digest: image.digest,
            }),
            Err(failure) => Err(self.explain(&asked, failure)),
        }
    }

    fn explain(&self, asked: &Reference, failure: Failure) -> PullError {
        let kind = match &failure {
            Failure::Client(ClientError::Connect(_)) => PullErrorKind::RegistryUnavailable,
            _ => PullErrorKind::ErrImagePull,
        };
        let hint = match &failure {
            Failure::Client(ClientError::Denied(_) | ClientError::NotFound(_)) => {
                ": the repository or tag does not exist, or may require authorization \
                 (imagePullSecrets)"
            }
            _ => "",
        };
        let meant: Vec<String> = self.meanings(asked).iter().map(|m| m.to_string()).collect();
        let message = format!(
            "failed to pull image {}: {failure}{hint}",
            meant.join(" or ")
        );
        PullError { kind, message }
    }

    /// What a reference may mean, the embedded registry first.
    fn meanings(&self, reference: &Reference) -> Vec<Reference> {
        let embedded = self.config.embedded.as_ref();
        match (reference.registry(), embedded) {
            (None, Some(embedded)) => {
                vec![
                    reference.qualified(&embedded.name),
                    reference.qualified(DOCKER_HUB),
                ]
            }
            (None, None) => vec![reference.qualified(DOCKER_HUB)],
            (Some(_), _) => vec![reference.clone()],
        }
    }

    /// What a reference means now. A registry of ours that cannot be asked is an error: going
    /// on to Docker Hub would run somebody else's image of the same name.
    async fn meaning(&self, reference: &Reference) -> Result<Reference, ClientError> {
        let (None, Some(embedded)) = (reference.registry(), &self.config.embedded) else {
            return Ok(reference.qualified(DOCKER_HUB));
        };
        let ours = reference.qualified(&embedded.name);
        let mut places = self.places(&ours, &[]).await?.into_iter();
        let mut last = None;
        let holds = loop {
            let Some(place) = places.next() else {
                return Err(last.unwrap_or_else(|| {
                    ClientError::Connect("the embedded registry has no endpoint".into())
                }));
            };
            match place.repository.exists().await {
                Ok(holds) => break holds,
                Err(error) => last = Some(error),
            }
        };
        Ok(if holds {
            ours
        } else {
            reference.qualified(DOCKER_HUB)
        })
    }

    async fn pull_qualified(
        &self,
        reference: &Reference,
        request: &PullRequest,
        progress: ProgressFn<'_>,
    ) -> Result<StoredImage, Failure> {
        let mut last = None;
        let with_layers = self.config.containers || request.files;
        for place in self.places(reference, &request.auths).await? {
            let mut attempt = self.attempt(&place, reference, with_layers, progress).await;
            if matches!(&attempt, Err(Failure::Client(error)) if error.is_transient()) {
                tokio::time::sleep(Duration::from_millis(200)).await;
                attempt = self.attempt(&place, reference, with_layers, progress).await;
            }
            match attempt {
                // Another endpoint or credential may do better; the rest is final.
                Err(Failure::Client(error)) => last = Some(error),
                done => return done,
            }
        }
        Err(last
            .unwrap_or_else(|| ClientError::Connect("the registry has no endpoint".into()))
            .into())
    }

    async fn attempt(
        &self,
        place: &Place,
        reference: &Reference,
        with_layers: bool,
        progress: ProgressFn<'_>,
    ) -> Result<StoredImage, Failure> {
        let repository = &place.repository;
        let limits = &self.config.limits;
        let mut lease = self.store.lease();
        let mut manifest = repository
            .manifest(&reference.version(), limits.manifest_bytes)
            .await?;
        let mut references = vec![key(reference)];
        references.push(format!("{}@{}", reference.name(), manifest.digest));
        if let Some(index) = as_index(&manifest)? {
            let chosen = classify::choose(&index.manifests, classify::architecture())
                .map_err(Failure::Image)?;
            let digest = &index.manifests[chosen].digest;
            let digest: Digest = digest.parse().map_err(image_error)?;
            manifest = repository
                .manifest(&digest.to_string(), limits.manifest_bytes)
                .await?;
            if as_index(&manifest)?.is_some() {
                let nested = "an index within an index is not supported";
                return Err(Failure::Image(nested.into()));
            }
            references.push(format!("{}@{}", reference.name(), manifest.digest));
        }
        let known = self.store.image(&manifest.digest.to_string());
        if let Some(known) = known.filter(|known| !lacks(known, with_layers)) {
            known.blobs.iter().for_each(|blob| lease.add(blob));
            let image = StoredImage {
                references,
                pulled: place.pulled(),
                ..known
            };
            return self.record(image).await;
        }
        let parsed = parse_manifest(&manifest)?;
        self.fetch_image(
            place,
            &manifest,
            &parsed,
            references,
            lease,
            with_layers,
            progress,
        )
        .await
    }

    async fn fetch_image(
        &self,
        place: &Place,
        manifest: &Manifest,
        parsed: &OciImageManifest,
        references: Vec<String>,
        mut lease: Lease,
        with_layers: bool,
        progress: ProgressFn<'_>,
    ) -> Result<StoredImage, Failure> {
        let repository = &place.repository;
        let limits = &self.config.limits;
        let config_layer = classify::layer(&parsed.config).map_err(Failure::Image)?;
        let layers: Vec<Layer> = parsed
            .layers
            .iter()
            .map(classify::layer)
            .collect::<Result<_, _>>()
            .map_err(Failure::Image)?;
        let total = layers
            .iter()
            .try_fold(config_layer.size, |sum, layer| sum.checked_add(layer.size))
            .unwrap_or(u64::MAX);
        lease.add(&manifest.digest);
        lease.add(&config_layer.digest);
        check_size("configuration", config_layer.size, limits.config_bytes)?;
        self.fetch(repository, &config_layer, &|_| {}).await?;
        let config = tokio::fs::read(self.store.blob_path(&config_layer.digest)).await?;
        let (plan, run_config) =
            classify::classify(parsed, &layers, &config).map_err(Failure::Image)?;
        let mut blobs = vec![manifest.digest.clone(), config_layer.digest.clone()];
        if with_layers || !matches!(plan, Plan::Container { .. }) {
            check_size("image", total, limits.image_bytes)?;
            if let Plan::WasmLayer { module } = plan {
                check_size("module", layers[module].size, limits.module_bytes)?;
            }
            let mut done = config_layer.size;
            for layer in &layers {
                lease.add(&layer.digest);
                let report = |bytes| {
                    progress(Progress {
                        done_bytes: done + bytes,
                        total_bytes: total,
                    });
                };
                self.fetch(repository, layer, &report).await?;
                report(layer.size);
                done += layer.size;
                blobs.push(layer.digest.clone());
            }
        }
        let kind = match plan {
            Plan::Container { diff_ids } => ImageKind::Container {
                layers: with_layers.then(|| image_layers(&layers, diff_ids)),
            },
            Plan::WasmLayer { module } => ImageKind::Wasm {
                module: layers[module].digest.clone(),
                layers: classify::titles(&layers),
            },
            Plan::WasmFile { path } => {
                let module = self.extract(layers, path).await?;
                blobs.push(module.clone());
                ImageKind::Wasm {
                    module,
                    layers: Default::default(),
                }
            }
        };
        blobs.sort();
        blobs.dedup();
        let store = Arc::clone(&self.store);
        let bytes = manifest.bytes.clone();
        tokio::task::spawn_blocking(move || store.put(&bytes))
            .await
            .map_err(std::io::Error::other)??;
        let size_bytes = total.saturating_add(manifest.bytes.len() as u64);
        self.record(StoredImage {
            digest: manifest.digest.to_string(),
            kind,
            config: run_config,
            size_bytes,
            references,
            blobs,
            pulled: place.pulled(),
        })
        .await
    }

    async fn fetch(
        &self,
        repository: &Repository,
        layer: &Layer,
        report: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failure> {
        use futures::StreamExt;
        let open = || async {
            let mut bytes = 0;
            let stream = repository.blob(&layer.digest).await?;
            Ok::<_, ClientError>(stream.inspect(move |chunk| {
                bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                report(bytes);
            }))
        };
        Ok(self.store.fetch(&layer.digest, layer.size, open).await?)
    }

    async fn extract(&self, layers: Vec<Layer>, path: String) -> Result<Digest, Failure> {
        let store = Arc::clone(&self.store);
        let limits = self.config.limits;
        let extracted = tokio::task::spawn_blocking(move || {
            extract(
                &store,
                &layers,
                &path,
                limits.module_bytes,
                limits.image_bytes,
            )
        });
        match extracted.await.map_err(std::io::Error::other)? {
            Ok(module) => Ok(module),
            Err(LayerError::Image(cause)) => Err(Failure::Image(cause)),
            Err(LayerError::Io(error)) => Err(Failure::Io(error)),
        }
    }

    /// Notes that a Secret too gives access to an image that is here, from that repository.
    pub async fn admit(
        &self,
        digest: &str,
        repository: &str,
        secret: PullSecret,
    ) -> std::io::Result<()> {
        let Some(known) = self.store.image(digest) else {
            return Ok(());
        };
        let access = Access::Secrets(vec![secret]);
        let image = StoredImage {
            // It keeps those that it has by then: one may have moved to another image.
            references: Vec::new(),
            pulled: BTreeMap::from([(repository.to_owned(), access)]),
            ..known
        };
        let store = Arc::clone(&self.store);
        let recorded = tokio::task::spawn_blocking(move || store.record(image));
        recorded.await.map_err(std::io::Error::other)?.map(drop)
    }

    async fn record(&self, image: StoredImage) -> Result<StoredImage, Failure> {
        let store = Arc::clone(&self.store);
        let recorded = tokio::task::spawn_blocking(move || store.record(image));
        Ok(recorded.await.map_err(std::io::Error::other)??)
    }
}

/// Whether an image was fetched when there was no use for its layers, and there is now.
fn lacks(image: &StoredImage, with_layers: bool) -> bool {
    with_layers && matches!(image.kind, ImageKind::Container { layers: None })
}

/// A qualified reference as the store keeps it: by digest where it has one.
fn key(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    }
}

fn image_error(error: impl std::fmt::Display) -> Failure {
    Failure::Image(error.to_string())
}

fn check_size(what: &str, size: u64, limit: u64) -> Result<(), Failure> {
    if size > limit {
        return Err(Failure::Image(format!(
            "the {what} has {size} bytes where at most {limit} are allowed"
        )));
    }
    Ok(())
}

pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
