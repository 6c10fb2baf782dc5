//! Removes images that nothing uses: when their disk is used beyond a threshold, when they were
//! not used for too long, and when the node must make room.
//!
//! An image goes from the runtimes first, with what they have made of it (compiled guests,
//! unpacked layers), then from the content store. Those of containers that the runtimes have, run
//! they or not, and of containers that are being made ([`Uses`]) stay. Looks every five minutes,
//! which costs one question about the disk.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::plan::Records;
use super::uses::Uses;
use super::{ImageGcPolicy, Images};
use crate::events::{Recorder, Severity};
use crate::node::machine;
use crate::router::Router;
use crate::runtime_cache::RuntimeCache;

/// How often images are looked at (the kubelet's `ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);
/// Blobs that no image needs are of a pull under way until they have this age.
const LEFT_OVER: Duration = Duration::from_secs(600);

/// Why images could not be collected, as the node's events say it.
#[derive(Debug, thiserror::Error)]
enum GcError {
    #[error("cannot read how much room there is in {0}")]
    NoDisk(String),
    #[error(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
    )]
    TooLittle { wanted: u64, freed: u64 },
    #[error(
        "wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}"
    )]
    Deletion {
        wanted: u64,
        freed: u64,
        errors: String,
    },
}

/// The garbage collection of a node's images.
pub(crate) struct Collector {
    policy: ImageGcPolicy,
    images: Arc<dyn Images>,
    uses: Uses,
    router: Router,
    cache: RuntimeCache,
    recorder: Recorder,
    node_name: String,
    /// One collection at a time.
    records: tokio::sync::Mutex<Records>,
}

/// What a round has done.
#[derive(Default)]
struct Freed {
    bytes: u64,
    errors: Vec<String>,
}

impl Collector {
    pub(crate) fn new(
        policy: ImageGcPolicy,
        images: (Arc<dyn Images>, Uses),
        runtimes: (Router, RuntimeCache),
        recorder: Recorder,
        node_name: &str,
    ) -> Self {
        Self {
            policy,
            images: images.0,
            uses: images.1,
            router: runtimes.0,
            cache: runtimes.1,
            recorder,
            node_name: node_name.to_owned(),
            records: tokio::sync::Mutex::default(),
        }
    }

    /// Looks again and again until cancelled; what is being removed then is removed whole.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let mut failed_before = false;
        loop {
            match self.collect(Instant::now()).await {
                Ok(()) => failed_before = false,
                Err(error) => {
                    tracing::warn!(%error, "image garbage collection failed");
                    // Once is no event, as in Kubernetes: room may come by itself.
                    if failed_before {
                        self.event("ImageGCFailed", error.to_string());
                    }
                    failed_before = true;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn collect(&self, now: Instant) -> Result<(), GcError> {
        let mut records = self.records.lock().await;
        self.observe(&mut records, now);
        for digest in records.old(self.policy.maximum_age, now) {
            let mut freed = Freed::default();
            self.remove(&digest, &mut freed).await;
        }
        let folder = self.folder();
        let no_disk = || GcError::NoDisk(folder.display().to_string());
        let disk = machine::disk(&folder).ok_or_else(no_disk)?;
        let Some(wanted) = self.policy.excess(&disk) else {
            return Ok(());
        };
        tracing::info!(wanted, "the images' disk is used beyond the high threshold");
        let enough = || {
            let disk = machine::disk(&folder);
            disk.is_some_and(|disk| self.policy.above_low(&disk) == 0)
        };
        let freed = self.free(&records, enough, now).await;
        if !freed.errors.is_empty() {
            return Err(GcError::Deletion {
                wanted,
                freed: freed.bytes,
                errors: freed.errors.join("; "),
            });
        }
        if freed.bytes >= wanted || enough() {
            return Ok(());
        }
        let error = GcError::TooLittle {
            wanted,
            freed: freed.bytes,
        };
        self.event("FreeDiskSpaceFailed", error.to_string());
        Err(error)
    }

    /// Where the images are.
    pub(crate) fn folder(&self) -> PathBuf {
        let own = self.router.images_folder();
        own.unwrap_or_else(|| self.images.folder())
    }

    /// Removes all images that may go.
    pub(crate) async fn collect_all(&self) {
        let now = Instant::now();
        let mut records = self.records.lock().await;
        self.observe(&mut records, now);
        let freed = self.free(&records, || false, now).await;
        for error in freed.errors {
            tracing::warn!(error, "cannot remove an image");
        }
    }

    fn observe(&self, records: &mut Records, now: Instant) {
        let mut used: HashSet<String> = self.cache.image_digests();
        used.extend(self.uses.held());
        records.observe(&self.images.list(), &used, now);
    }

    /// Removes what may go until that is enough. Disks tell of what was removed at once, so sizes,
    /// which count shared layers often and unpacked ones never, decide nothing.
    async fn free(&self, records: &Records, enough: impl Fn() -> bool, now: Instant) -> Freed {
        let mut freed = Freed::default();
        match self.images.remove_left_over(LEFT_OVER).await {
            Ok(bytes) => freed.bytes += bytes,
            Err(error) => freed.errors.push(error.to_string()),
        }
        for digest in records.unused(self.policy.minimum_age, now) {
            if enough() {
                break;
            }
            self.remove(&digest, &mut freed).await;
        }
        freed
    }

    async fn remove(&self, digest: &str, freed: &mut Freed) {
        // From here on nobody begins to use it; who has begun since the look is seen here.
        let Some(_removing) = self.uses.remove(digest) else {
            return;
        };
        if self.cache.image_digests().contains(digest) {
            return;
        }
        for runtime in self.router.all() {
            if let Err(error) = runtime.remove_image(digest).await {
                freed.errors.push(error.to_string());
                return;
            }
        }
        match self.images.remove(digest).await {
            Ok(bytes) => {
                tracing::info!(digest, bytes, "removed an image that nothing uses");
                freed.bytes += bytes;
            }
            Err(error) => freed
                .errors
                .push(format!("removing image {digest}: {error}")),
        }
    }

    fn event(&self, reason: &str, message: String) {
        let recorder = &self.recorder;
        recorder.node(&self.node_name, Severity::Warning, reason, message);
    }
}
