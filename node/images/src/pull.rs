//! Pulls images into the content store.
//!
//! A pull is: find what the reference means ([`Puller`] knows the embedded registry), get the
//! manifest, decide what the image is (`classify`), fetch the blobs that are missing, record
//! the image. Everything that a registry sends is bounded and verified: layers by what fits on the
//! disk ([`crate::Reserve`]), and all of it by the time that it may take ([`Limits::deadline`]).
//! A blob whose transfer breaks off goes on where it was (`client/download`). The blobs that a pull
//! wrote before it failed stay until the next removal of unused ones, so that a retry goes on from
//! there; they go at once where the disk has no room for the rest.
//!
//! Deliberately absent: `imagePullPolicy`, back-off and the choice of Secrets (the kubelet);
//! compiling (the runtimes).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::classify;
use crate::client::{ClientError, HttpClients, Timeouts};
use crate::reference::DOCKER_HUB;
use crate::{Access, ContentStore, Digest, ImageKind, PullSecret, Reference, StoredImage};

mod fetch;
mod manifest;
mod sources;
mod types;

use manifest::{as_index, parse_manifest};
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
    Io(#[from] io::Error),
    #[error("not done within {0:?}")]
    Deadline(Duration),
}

impl Failure {
    /// Whether the disk has no room.
    fn is_no_room(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == ErrorKind::StorageFull)
    }
}

type ProgressFn<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// A pull under way.
struct Job<'a> {
    with_layers: bool,
    progress: ProgressFn<'a>,
    /// Bytes that are found to be missing: the time that it may take grows with them.
    missing: AtomicU64,
}

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
        let job = Job {
            with_layers: self.config.containers || request.files,
            progress,
            missing: AtomicU64::new(0),
        };
        let pull = async {
            let meaning = self.meaning(&asked).await?;
            let image = self.pull_qualified(&meaning, request, &job).await?;
            Ok((meaning, image))
        };
        let pulled = async {
            // Those before it end by deadlines of their own, which may be far away.
            let _turn = self.running.acquire().await.map_err(io::Error::other)?;
            self.in_time(&job, pull).await
        };
        match pulled.await {
            Ok((meaning, image)) => Ok(Image {
                reference: request.reference.clone(),
                resolved_reference: meaning.to_string(),
                digest: image.digest,
            }),
            Err(failure) => Err(self.explain(&asked, failure)),
        }
    }

    /// Runs a pull up to its deadline, which moves when it is found out how much there is to fetch.
    async fn in_time<T>(
        &self,
        job: &Job<'_>,
        pull: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut pull = std::pin::pin!(pull);
        let limits = &self.config.limits;
        let started = Instant::now();
        let mut allowed = limits.time_for(0);
        loop {
            let done = tokio::time::timeout_at(started + allowed, pull.as_mut()).await;
            if let Ok(done) = done {
                return done;
            }
            let before = allowed;
            allowed = limits.time_for(job.missing.load(Ordering::Relaxed));
            if allowed <= before {
                return Err(Failure::Deadline(before));
            }
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
        job: &Job<'_>,
    ) -> Result<StoredImage, Failure> {
        let mut last = None;
        for place in self.places(reference, &request.auths).await? {
            let mut attempt = self.attempt(&place, reference, job).await;
            if let Err(Failure::Client(error)) = &attempt
                && let Some(pause) = error.pause(self.config.limits.pause)
            {
                tokio::time::sleep(pause).await;
                attempt = self.attempt(&place, reference, job).await;
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
        job: &Job<'_>,
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
        if let Some(known) = known.filter(|known| !lacks(known, job.with_layers)) {
            known.blobs.iter().for_each(|blob| lease.add(blob));
            let image = StoredImage {
                references,
                pulled: place.pulled(),
                ..known
            };
            return self.record(image).await;
        }
        let parsed = parse_manifest(&manifest)?;
        let whole = (&manifest, &parsed);
        let fetched = self
            .fetch_image(place, whole, references, &mut lease, job)
            .await;
        if fetched.as_ref().is_err_and(Failure::is_no_room) {
            // What has come would keep the disk full.
            let discarded = tokio::task::spawn_blocking(move || lease.discard()).await;
            if let Err(error) = discarded.map_err(io::Error::other).flatten() {
                tracing::warn!(%error, "removing the blobs of an image that does not fit");
            }
        }
        fetched
    }

    /// Notes that a Secret too gives access to an image that is here, from that repository.
    pub async fn admit(
        &self,
        digest: &str,
        repository: &str,
        secret: PullSecret,
    ) -> io::Result<()> {
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
        recorded.await.map_err(io::Error::other)?.map(drop)
    }

    async fn record(&self, image: StoredImage) -> Result<StoredImage, Failure> {
        let store = Arc::clone(&self.store);
        let recorded = tokio::task::spawn_blocking(move || store.record(image));
        Ok(recorded.await.map_err(io::Error::other)??)
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

pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
