//! The images of a container: its own, and those that are its volumes.

use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::duration;
use coracle_images::RegistryAuth;
use coracle_runtime::{Image, RuntimeService};

use super::start::{StartError, Starter};
use crate::events::Severity;
use crate::images::progress::{self, PullProgress};
use crate::images::uses::Held;
use crate::images::{Claim, ImageError, Kind, LocalImage, Origin, PullPolicy, Use};
use crate::objects;
use crate::pod;
use crate::volumes::mounts::{self, VolumeImages};

/// What a container is made of.
pub(crate) struct Parts {
    pub(crate) runtime: Arc<dyn RuntimeService>,
    pub(crate) image: LocalImage,
    pub(crate) volumes: VolumeImages,
    /// Images stay until the runtime is known to have a container of them.
    _held: Vec<Held>,
}

/// What an image is of a container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Own,
    Volume,
}

impl Starter<'_> {
    /// Gets the image, the runtime for it, and the images that are volumes. May take long, and may be
    /// dropped at any time.
    pub(crate) async fn parts(&self) -> Result<Parts, StartError> {
        let reference = self.container.image.as_deref().unwrap_or_default();
        let policy = self.container.image_pull_policy.as_deref();
        let (image, own, message) = self.obtain((reference, Use::Run), policy).await?;
        let mut held = vec![own];
        let handler = self.prepared.handler.as_deref();
        let routed = self.node.router.route(image.kind, handler);
        let runtime = routed.map_err(|error| self.not_pulled(reference, error))?;
        let runtime = runtime.clone();
        let part = (reference, Part::Own);
        self.ensure(&runtime, part, &image, message).await?;
        let mut volumes = VolumeImages::new();
        // Those of guests are unpacked also where no container would be.
        let of = match image.kind {
            Kind::Wasm => Use::Files,
            Kind::Container => Use::Run,
        };
        for (volume, source) in mounts::volumes_of_images(self.pod, self.container) {
            let reference = source.reference.as_deref().unwrap_or_default();
            let policy = source.pull_policy.as_deref();
            let (image, of_volume, message) = self.obtain((reference, of), policy).await?;
            held.push(of_volume);
            let part = (reference, Part::Volume);
            self.ensure(&runtime, part, &image, message).await?;
            volumes.insert(volume.name.clone(), image.image.digest);
        }
        Ok(Parts {
            runtime,
            image,
            volumes,
            _held: held,
        })
    }

    /// Makes an image ready, and says how it came to be there.
    async fn ensure(
        &self,
        runtime: &Arc<dyn RuntimeService>,
        (reference, part): (&str, Part),
        image: &LocalImage,
        message: String,
    ) -> Result<(), StartError> {
        let ensured = async {
            if runtime.must_pull(&image.image.digest).await? {
                let auths = self.credentials(reference).await;
                let sources = self.node.images.sources(image, &auths);
                runtime.pull_image(&image.image, &sources).await?;
            }
            match part {
                Part::Own => runtime.ensure_image(&image.image).await,
                Part::Volume => runtime.ensure_volume(&image.image).await,
            }
        };
        let ensured = ensured.await;
        ensured.map_err(|error| self.not_pulled(reference, error))?;
        self.own_event(Severity::Normal, "Pulled", message);
        Ok(())
    }

    /// Gets an image, which stays while it is held, and what is to be said of that.
    async fn obtain(
        &self,
        (reference, of): (&str, Use),
        policy: Option<&str>,
    ) -> Result<(LocalImage, Held, String), StartError> {
        let policy = PullPolicy::of(policy, reference);
        let present = format!(
            "Container image \"{reference}\" already present on machine and can be accessed by the \
             pod"
        );
        if of == Use::Run
            && policy != PullPolicy::Always
            && self.node.images.is_open(reference)
            && let Some((image, held)) = self.of_runtime(reference).await
        {
            return Ok((image, held, present));
        }
        let known = self.node.cache.pod(pod::uid(self.pod));
        let digests = known.image_digests().map(str::to_owned).collect();
        let claim = Claim::new(digests, self.credentials(reference));
        let begins = format!("Pulling image \"{reference}\"");
        let pulling = || self.own_event(Severity::Normal, "Pulling", begins.clone());
        let progress = PullProgress::default();
        let images = &self.node.images;
        let obtained = images.obtain((reference, of), policy, claim, &progress, pulling);
        let goes_on = |fetched| {
            let message = progress::text(reference, fetched);
            self.amend_event(Severity::Normal, "Pulling", &begins, message);
        };
        let obtained = progress::telling(obtained, &progress, tokio::time::sleep, goes_on).await;
        let (image, took, held) = match obtained {
            Ok(obtained) => (obtained.image, obtained.pulled, obtained.held),
            Err(error) => return Err(self.no_image(reference, error)),
        };
        let message = match took {
            None => present,
            Some((took, waited)) => format!(
                "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image \
                 size: {} bytes.",
                duration_text(took),
                duration_text(waited),
                image.size_bytes
            ),
        };
        Ok((image, held, message))
    }

    /// An image that a runtime has and the node's store knows nothing of: it was put there by others.
    async fn of_runtime(&self, reference: &str) -> Option<(LocalImage, Held)> {
        let node = self.node;
        if node.images.kind(reference).await.is_some() {
            return None;
        }
        for runtime in node.router.all() {
            match runtime.own_image(reference).await {
                Ok(None) => {}
                Ok(Some(own)) => {
                    if !node.images.is_open_as(reference, &own.digest).await {
                        return None;
                    }
                    let held = node.images.uses().hold(&own.digest)?;
                    let image = LocalImage {
                        image: Image {
                            reference: reference.to_owned(),
                            digest: own.digest,
                        },
                        resolved: own.resolved,
                        kind: Kind::Container,
                        size_bytes: own.size_bytes,
                        origin: Origin::Preloaded,
                    };
                    return Some((image, held));
                }
                Err(error) => {
                    let runtime = runtime.name();
                    tracing::warn!(%error, runtime, reference, "cannot ask for an image");
                }
            }
        }
        None
    }

    /// Says more of what an event of the container has said.
    fn amend_event(&self, severity: Severity, reason: &str, amends: &str, message: String) {
        let of = Some(&*self.container.name);
        let recorder = &self.node.recorder;
        recorder.amend(self.pod, of, severity, reason, amends, message);
    }

    /// What the Pod may pull an image with.
    async fn credentials(&self, reference: &str) -> Vec<RegistryAuth> {
        let warn = |message: String| {
            let reason = "FailedToRetrieveImagePullSecret";
            self.event(None, Severity::Warning, reason, message);
        };
        objects::pull_credentials(self.node, self.pod, reference, warn).await
    }

    fn not_pulled(&self, reference: &str, error: impl std::fmt::Display) -> StartError {
        let error = ImageError {
            reason: "ErrImagePull",
            message: error.to_string(),
        };
        self.no_image(reference, error)
    }

    fn no_image(&self, reference: &str, error: ImageError) -> StartError {
        let ImageError { reason, message } = error;
        let text = match reason {
            "InvalidImageName" | "ErrImageNeverPull" => message.clone(),
            _ => format!("Failed to pull image \"{reference}\": {message}"),
        };
        let event = match reason {
            "InvalidImageName" => "InspectFailed",
            "ErrImageNeverPull" => "ErrImageNeverPull",
            _ => "Failed",
        };
        self.own_event(Severity::Warning, event, text);
        self.own_event(Severity::Warning, "Failed", format!("Error: {reason}"));
        StartError::Image { reason, message }
    }
}

/// As Go prints a duration, to the millisecond.
fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_millis().saturating_mul(1_000_000);
    duration::format(i64::try_from(nanos).unwrap_or(i64::MAX))
}
