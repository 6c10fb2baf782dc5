//! Lists: tags, repositories, and what refers to a manifest.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue, LINK};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::Digest;
use crate::media_types::OCI_INDEX;

use super::error::{Code, RegistryError};
use super::route::Version;
use super::{Answer, Registry, query};

/// Entries in one page of the catalog if the client names no number, and at most.
const PAGE: usize = 1000;

impl Registry {
    /// `GET …/tags/list`.
    pub(super) async fn tags(&self, name: &str, parts: &Parts) -> Answer {
        let repository = name.to_owned();
        let tags = self
            .blocking(move |storage| {
                if storage.has_repository(&repository) {
                    return Ok(storage.tags(&repository)?);
                }
                let message = format!("there is no repository {repository}");
                Err(RegistryError::new(Code::NameUnknown, message))
            })
            .await?;
        let (tags, next) = page(tags, parts, usize::MAX)?;
        let body = json!({"name": name, "tags": tags});
        Ok(listed(&body, &format!("/v2/{name}/tags/list"), next))
    }

    /// `GET /v2/_catalog`.
    pub(super) async fn catalog(&self, parts: &Parts) -> Answer {
        let names = self.blocking(|storage| Ok(storage.repositories()?)).await?;
        let (names, next) = page(names, parts, PAGE)?;
        let body = json!({"repositories": names});
        Ok(listed(&body, "/v2/_catalog", next))
    }

    /// `GET …/referrers/<digest>`: manifests of the repository whose subject it is.
    pub(super) async fn referrers(&self, name: &str, digest: &Digest, parts: &Parts) -> Answer {
        let filter = query(parts, "artifactType");
        let (repository, subject) = (name.to_owned(), digest.to_string());
        let wanted = filter.clone();
        let manifests = self
            .blocking(move |storage| {
                let mut found = Vec::new();
                for digest in storage.manifests(&repository)? {
                    let version = Version::Digest(digest);
                    let Some(stored) = storage.manifest(&repository, &version)? else {
                        continue;
                    };
                    let manifest: Value = serde_json::from_slice(&stored.bytes).unwrap_or_default();
                    if manifest["subject"]["digest"] != subject.as_str() {
                        continue;
                    }
                    let kind = match &manifest["artifactType"] {
                        Value::String(kind) => kind.clone(),
                        _ => manifest["config"]["mediaType"]
                            .as_str()
                            .unwrap_or_default()
                            .to_owned(),
                    };
                    if wanted.as_ref().is_none_or(|wanted| *wanted == kind) {
                        found.push(json!({
                            "mediaType": stored.media_type,
                            "digest": stored.digest.to_string(),
                            "size": stored.bytes.len(),
                            "artifactType": kind,
                            "annotations": manifest["annotations"],
                        }));
                    }
                }
                Ok(found)
            })
            .await?;
        let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        let mut response = super::json(StatusCode::OK, &body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
        if filter.is_some() {
            let applied = HeaderValue::from_static("artifactType");
            headers.insert("oci-filters-applied", applied);
        }
        Ok(response)
    }
}

/// The entries after `last`, at most `n` of them, and the query of the next page.
fn page(
    mut entries: Vec<String>,
    parts: &Parts,
    most: usize,
) -> Result<(Vec<String>, Option<String>), RegistryError> {
    if let Some(last) = query(parts, "last") {
        entries.retain(|entry| *entry > last);
    }
    let n = match query(parts, "n") {
        Some(n) => n.parse().map_err(|_| {
            RegistryError::new(Code::Unsupported, "the parameter n must be a number")
        })?,
        None => most,
    };
    let n = n.min(most);
    let more = entries.len() > n;
    entries.truncate(n);
    let next = entries
        .last()
        .filter(|_| more)
        .map(|last| format!("n={n}&last={last}"));
    Ok((entries, next))
}

fn listed(body: &Value, path: &str, next: Option<String>) -> Response<Body> {
    let mut response = super::json(StatusCode::OK, body);
    let link = next.map(|next| format!("<{path}?{next}>; rel=\"next\""));
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}
