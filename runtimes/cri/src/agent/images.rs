//! Images, which the runtime keeps: by the digest of the manifest that the node's content store has.

use std::time::Duration;

use coracle_runtime::grpc::UNAVAILABLE;
use coracle_runtime::{Error, Image, ImageSource, ImageUser, OwnImage, Result};

use super::{Inner, broken, gone};
use crate::wire::{
    self, AuthConfig, Empty, IMAGE_STATUS, ImageSpec, ImageStatusRequest, LIST_IMAGES, PULL_IMAGE,
    PullImageRequest, REMOVE_IMAGE, RemoveImageRequest,
};

/// How long a pull may take, as with the node's own.
const PULL: Duration = Duration::from_secs(30 * 60);

/// Where an image is from of which nothing more is known: its reference, without a tag.
pub(super) fn by_itself(image: &Image) -> ImageSource {
    let name = match image.reference.split_once('@') {
        Some((name, _)) => name,
        None => match image.reference.rsplit_once(':') {
            // A port has a path behind it.
            Some((name, tag)) if !tag.contains('/') => name,
            _ => &image.reference,
        },
    };
    ImageSource {
        reference: format!("{name}@{}", image.digest),
        credential: None,
    }
}

/// What is told of an image that somebody else has put there, which may have no digest of a
/// registry's.
fn own(image: wire::Image) -> OwnImage {
    let named = image.repo_digests.into_iter().next();
    let resolved = named.unwrap_or_else(|| image.id.clone());
    let digest = match resolved.rsplit_once('@') {
        Some((_, digest)) => digest.to_owned(),
        None => image.id,
    };
    OwnImage {
        digest,
        resolved,
        size_bytes: image.size,
    }
}

/// As whom an image runs, as the runtime tells it.
pub(super) fn user(image: wire::Image) -> ImageUser {
    match (image.uid, image.username) {
        (Some(uid), _) => ImageUser::Id(uid.value),
        (None, name) if name.is_empty() => ImageUser::Id(0),
        (None, name) => ImageUser::Name(name),
    }
}

impl Inner {
    /// The image that the runtime has under a reference.
    pub(super) async fn own_image(&self, reference: &str) -> Result<Option<OwnImage>> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: reference.to_owned(),
            }),
        };
        let told = self.client.call(IMAGE_STATUS, &request).await;
        let told = told.map_err(|status| broken("looking for an image", status))?;
        Ok(told.image.filter(|image| !image.id.is_empty()).map(own))
    }

    /// The image of a manifest's digest, or of that ID, if the runtime has it.
    pub(super) async fn find_image(&self, digest: &str) -> Result<Option<wire::Image>> {
        let listed = self.client.call(LIST_IMAGES, &Empty {}).await;
        let listed = listed.map_err(|status| broken("listing images", status))?;
        let is_it = |known: &String| known.rsplit_once('@').is_some_and(|(_, of)| of == digest);
        let mut images = listed.images.into_iter();
        Ok(images.find(|image| image.id == digest || image.repo_digests.iter().any(is_it)))
    }

    pub(super) async fn pull(&self, image: &Image, sources: &[ImageSource]) -> Result<()> {
        let mut last = None;
        for source in sources {
            let credential = source.credential.clone();
            let request = PullImageRequest {
                image: Some(ImageSpec {
                    image: source.reference.clone(),
                }),
                auth: credential.map(|(username, password)| AuthConfig { username, password }),
            };
            let pulled = self.client.call_within(PULL, PULL_IMAGE, &request).await;
            match pulled {
                Ok(_) => return Ok(()),
                // Another credential may do better.
                Err(status) => last = Some(status),
            }
        }
        Err(match last {
            Some(status) if status.code == UNAVAILABLE => broken("pulling an image", status),
            Some(status) => Error::InvalidImage(status.message),
            None => Error::InvalidImage(format!(
                "where image {} is to be pulled from is not known",
                image.reference
            )),
        })
    }

    pub(super) async fn remove_image(&self, digest: &str) -> Result<()> {
        let Some(image) = self.find_image(digest).await? else {
            return Ok(());
        };
        let request = RemoveImageRequest {
            image: Some(ImageSpec { image: image.id }),
        };
        gone(
            "removing an image",
            self.client.call(REMOVE_IMAGE, &request).await,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_others_are_known_by_their_digest_or_id() {
        for (digests, digest, resolved) in [
            (vec!["r/app@sha256:1"], "sha256:1", "r/app@sha256:1"),
            (vec![], "sha256:id", "sha256:id"),
        ] {
            let image = wire::Image {
                id: "sha256:id".into(),
                repo_digests: digests.into_iter().map(str::to_owned).collect(),
                size: 7,
                ..Default::default()
            };
            let expected = OwnImage {
                digest: digest.into(),
                resolved: resolved.into(),
                size_bytes: 7,
            };
            assert_eq!(own(image), expected);
        }
    }

    #[test]
    fn an_image_has_a_user_of_a_number_or_a_name() {
        for (uid, name, expected) in [
            (Some(7), "", ImageUser::Id(7)),
            (Some(0), "", ImageUser::Id(0)),
            (None, "", ImageUser::Id(0)),
            (None, "web", ImageUser::Name("web".into())),
        ] {
            let image = wire::Image {
                uid: uid.map(|value| wire::Int64Value { value }),
                username: name.into(),
                ..Default::default()
            };
            assert_eq!(user(image), expected);
        }
    }

    #[test]
    fn references_are_those_of_digests() {
        for (reference, of_digest) in [
            ("app", "app@sha256:1"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app@sha256:1"),
            ("127.0.0.1:5000/a/app:v1", "127.0.0.1:5000/a/app@sha256:1"),
            ("app:v1@sha256:2", "app:v1@sha256:1"),
        ] {
            let image = Image {
                reference: reference.into(),
                digest: "sha256:1".into(),
            };
            assert_eq!(by_itself(&image).reference, of_digest);
        }
    }
}
