//! Fetches the blobs of an image.
//!
//! How large an image of a container may be the disk says: its missing layers must fit beside what
//! stays free there, and the store looks again while they are written. What holds WebAssembly has a
//! bound of its own, for a module is compiled whole. A blob that comes slower than a lowest rate, or an
//! image that as a whole takes longer than that rate allows, is given up ([`super::Limits::time_for`]).

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use oci_client::manifest::OciImageManifest;
use tokio::time::Instant;

use super::manifest::image_layers;
use super::sources::Place;
use super::{Failure, Job, Progress, Puller};
use crate::classify::{self, Layer, Plan};
use crate::client::{ClientError, Manifest, Repository};
use crate::extract::extract;
use crate::layer::LayerError;
use crate::{Digest, ImageKind, Lease, StoredImage};

/// Layers of an image: no kernel lays more over each other. A manifest has room for ten thousands, which
/// would be as many files and as many requests before anybody found out.
const MOST_LAYERS: usize = 500;

/// What of an image's layers is not here.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    /// Bytes.
    bytes: u64,
    /// Those of them that no other pull fetches now, which has made sure that they fit.
    own: u64,
}

impl Puller {
    /// Fetches what is missing of an image, and records it.
    pub(super) async fn fetch_image(
        &self,
        place: &Place,
        (manifest, parsed): (&Manifest, &OciImageManifest),
        references: Vec<String>,
        lease: &mut Lease,
        job: &Job<'_>,
    ) -> Result<StoredImage, Failure> {
        let repository = &place.repository;
        let limits = &self.config.limits;
        let count = parsed.layers.len();
        if count > MOST_LAYERS {
            return Err(Failure::Image(format!(
                "the image has {count} layers where at most {MOST_LAYERS} are allowed"
            )));
        }
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
        if job.with_layers || !matches!(plan, Plan::Container { .. }) {
            if !matches!(plan, Plan::Container { .. }) {
                check_size("image", total, limits.wasm_image_bytes)?;
            }
            if let Plan::WasmLayer { module } = plan {
                check_size("module", layers[module].size, limits.module_bytes)?;
            }
            let missing = self.missing(&layers);
            if missing.own > 0 {
                self.store.check_room(missing.own)?;
            }
            job.missing.fetch_max(missing.bytes, Ordering::Relaxed);
            let mut done = config_layer.size;
            for layer in &layers {
                lease.add(&layer.digest);
                let report = |bytes| {
                    (job.progress)(Progress {
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
                layers: job.with_layers.then(|| image_layers(&layers, diff_ids)),
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
            .map_err(io::Error::other)??;
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

    /// What of an image's layers is not here.
    fn missing(&self, layers: &[Layer]) -> Missing {
        let mut seen = HashSet::new();
        let mut missing = Missing::default();
        for layer in layers {
            if !seen.insert(&layer.digest) || self.store.has(&layer.digest) {
                continue;
            }
            missing.bytes = missing.bytes.saturating_add(layer.size);
            if !self.store.is_coming(&layer.digest) {
                missing.own = missing.own.saturating_add(layer.size);
            }
        }
        missing
    }

    async fn fetch(
        &self,
        repository: &Repository,
        layer: &Layer,
        report: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failure> {
        let (limits, digest, size) = (&self.config.limits, &layer.digest, layer.size);
        let open = move || async move {
            let started = Instant::now();
            let mut bytes = 0;
            let stream = repository.blob(digest, size, limits.pause).await?;
            Ok::<_, ClientError>(stream.map(move |chunk| {
                let chunk = chunk?;
                bytes += chunk.len() as u64;
                report(bytes);
                let elapsed = started.elapsed();
                if elapsed > limits.time_for(bytes) {
                    return Err(ClientError::Invalid(format!(
                        "the registry is too slow: {bytes} of {size} bytes in {} seconds",
                        elapsed.as_secs()
                    )));
                }
                Ok(chunk)
            }))
        };
        let fetched = self.store.fetch(&layer.digest, layer.size, open).await;
        fetched.map_err(|error| match error {
            // No other place would do better.
            ClientError::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                Failure::Io(error)
            }
            error => Failure::Client(error),
        })
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
                limits.wasm_image_bytes,
            )
        });
        match extracted.await.map_err(io::Error::other)? {
            Ok(module) => Ok(module),
            Err(LayerError::Image(cause)) => Err(Failure::Image(cause)),
            Err(LayerError::Io(error)) => Err(Failure::Io(error)),
        }
    }
}

fn check_size(what: &str, size: u64, limit: u64) -> Result<(), Failure> {
    if size > limit {
        return Err(Failure::Image(format!(
            "the {what} has {size} bytes where at most {limit} are allowed"
        )));
    }
    Ok(())
}
