//! Reading, storing and deleting manifests.

use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use serde::Deserialize;

use crate::Digest;

use super::error::{Code, RegistryError};
use super::route::Version;
use super::uploads::created;
use super::{Answer, Registry, storage};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    media_type: Option<String>,
    subject: Option<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

impl Registry {
    /// `GET` and `HEAD …/manifests/<tag or digest>`.
    pub(super) async fn manifest(&self, name: &str, version: &Version) -> Answer {
        let (repository, wanted) = (name.to_owned(), version.clone());
        let manifest = self
            .blocking(move |storage| Ok(storage.manifest(&repository, &wanted)?))
            .await?
            .ok_or_else(|| unknown(name, version))?;
        let length = manifest.bytes.len();
        let mut response = Response::new(Body::from(manifest.bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, length.into());
        let digest = manifest.digest;
        let fields = [
            (CONTENT_TYPE.as_str(), manifest.media_type),
            ("docker-content-digest", digest.to_string()),
            (ETAG.as_str(), format!("\"{digest}\"")),
        ];
        for (field, value) in fields {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(field, value);
            }
        }
        Ok(response)
    }

    /// `PUT …/manifests/<tag or digest>`.
    pub(super) async fn put_manifest(
        &self,
        name: &str,
        version: &Version,
        parts: &Parts,
        body: Body,
    ) -> Answer {
        let mut stream = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next(&mut stream).await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > self.limits.manifest_bytes {
                let limit = self.limits.manifest_bytes;
                let message = format!("a manifest has at most {limit} bytes");
                return Err(RegistryError::new(Code::SizeInvalid, message));
            }
        }
        let invalid = |message: String| RegistryError::new(Code::ManifestInvalid, message);
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("not a manifest: {error}")))?;
        if head.schema_version != 2 {
            return Err(invalid("schemaVersion must be 2".into()));
        }
        let header = parts.headers.get(CONTENT_TYPE);
        let header = header.and_then(|value| value.to_str().ok());
        let media_type = match (header, head.media_type) {
            (Some(header), Some(own)) if header != own => {
                let message = format!("Content-Type is {header:?} and mediaType is {own:?}");
                return Err(invalid(message));
            }
            (Some(header), _) => header.to_owned(),
            (None, Some(own)) => own,
            (None, None) => return Err(invalid("Content-Type is missing".into())),
        };
        let needs = storage::needs(&bytes).map_err(invalid)?;
        let tag = match version {
            Version::Tag(tag) => Some(tag.clone()),
            Version::Digest(expected) => {
                let actual = Digest::of(&bytes);
                if actual != *expected {
                    let message = format!("the manifest has digest {actual}");
                    return Err(RegistryError::new(Code::DigestInvalid, message));
                }
                None
            }
        };
        let repository = name.to_owned();
        let stored = self
            .blocking(move |storage| {
                let tag = tag.as_deref();
                Ok(storage.put_manifest(&repository, tag, &media_type, &bytes, &needs)?)
            })
            .await?;
        let digest = stored.map_err(|missing| {
            let message = format!("{missing} is not in this repository");
            RegistryError::new(Code::ManifestBlobUnknown, message)
        })?;
        let mut response = created(name, "manifests", &digest);
        if let Some(subject) = head.subject
            && let Ok(value) = HeaderValue::try_from(subject.digest.to_string())
        {
            response.headers_mut().insert("oci-subject", value);
        }
        Ok(response)
    }

    /// `DELETE …/manifests/<tag or digest>`.
    pub(super) async fn delete_manifest(&self, name: &str, version: &Version) -> Answer {
        let (repository, unwanted) = (name.to_owned(), version.clone());
        let age = self.limits.garbage_age;
        let deleted = self
            .blocking(move |storage| {
                let deleted = storage.delete_manifest(&repository, &unwanted)?;
                if deleted && matches!(unwanted, Version::Digest(_)) {
                    storage.collect_garbage(age)?;
                }
                Ok(deleted)
            })
            .await?;
        if !deleted {
            return Err(unknown(name, version));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }
}

fn unknown(name: &str, version: &Version) -> RegistryError {
    let message = match version {
        Version::Tag(tag) => format!("{name} has no tag {tag}"),
        Version::Digest(digest) => format!("{name} has no manifest {digest}"),
    };
    RegistryError::new(Code::ManifestUnknown, message)
}
