//! The registry that every server carries: the OCI distribution specification 1.1, so that
//! `coracle push`, skopeo and container engines can put images where the cluster's nodes pull.
//!
//! ```text
//! content/                                 a ContentStore: blobs
//! repositories/<name>/_blobs/<hex>         the repository has that blob
//! repositories/<name>/_manifests/<hex>     the repository has that manifest; its media type
//! repositories/<name>/_tags/<tag>          digest
//! ```
//!
//! What is acknowledged is on the disk. Uploads live in memory and in `content/ingest`, are
//! bounded in number and size, end when nobody goes on with them, and do not survive a restart.
//! Who may do what is decided by the authenticator that the binary passes in. Garbage is
//! collected at start and after a manifest is deleted, sparing what is younger than an hour.
//!
//! Deliberately absent: other digests than sha256, signatures, replication between servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};

use error::{Code, RegistryError};
use route::Route;
use storage::Storage;
use uploads::Uploads;

mod blobs;
mod error;
mod listing;
mod manifests;
mod route;
mod storage;
mod uploads;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing; the caller is asked for a credential.
    None,
    /// Read.
    Pull,
    /// Read, write and delete.
    Push,
}

/// Tells what the sender of a request may do. It sees the request's head, with whatever the
/// server put into its extensions.
pub type Authenticator = Arc<dyn Fn(&Parts) -> Access + Send + Sync>;

/// How the registry is run.
pub struct RegistryConfig {
    /// Folder that the registry owns.
    pub root: PathBuf,
    /// Who may do what.
    pub authenticator: Authenticator,
    /// Bounds.
    pub limits: RegistryLimits,
}

/// Bounds of the registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryLimits {
    /// Bytes of one blob.
    pub blob_bytes: u64,
    /// Bytes of one manifest.
    pub manifest_bytes: u64,
    /// Uploads under way.
    pub uploads: usize,
    /// After that time an upload that nobody goes on with ends; sooner where others want its place.
    pub upload_idle: Duration,
    /// After that time without a byte a request's body is given up, and an upload that nobody goes on
    /// with may have to make room.
    pub body_idle: Duration,
    /// Garbage younger than this is spared.
    pub garbage_age: Duration,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            blob_bytes: 4 << 30,
            manifest_bytes: 4 << 20,
            uploads: 256,
            upload_idle: Duration::from_secs(15 * 60),
            body_idle: Duration::from_secs(60),
            garbage_age: Duration::from_secs(60 * 60),
        }
    }
}

impl RegistryConfig {
    /// The usual limits.
    pub fn new(root: impl Into<PathBuf>, authenticator: Authenticator) -> Self {
        Self {
            root: root.into(),
            authenticator,
            limits: RegistryLimits::default(),
        }
    }
}

struct Registry {
    storage: Arc<Storage>,
    uploads: Uploads,
    authenticator: Authenticator,
    limits: RegistryLimits,
}

type Answer = Result<Response<Body>, RegistryError>;

/// Opens the registry's folder and makes the router that serves `/v2/`.
pub fn router(config: RegistryConfig) -> std::io::Result<Router> {
    let storage = Storage::open(&config.root)?;
    storage.collect_garbage(config.limits.garbage_age)?;
    let registry = Arc::new(Registry {
        storage: Arc::new(storage),
        uploads: Uploads::new(config.limits),
        authenticator: config.authenticator,
        limits: config.limits,
    });
    Ok(Router::new()
        .route("/v2", axum::routing::any(handle))
        .route("/v2/", axum::routing::any(handle))
        .route("/v2/{*rest}", axum::routing::any(handle))
        .with_state(registry))
}

async fn handle(State(registry): State<Arc<Registry>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let mut response = match registry.answer(parts, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    let version = HeaderValue::from_static("registry/2.0");
    let headers = response.headers_mut();
    headers.insert("docker-distribution-api-version", version);
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

impl Registry {
    async fn answer(&self, parts: Parts, body: Body) -> Answer {
        self.uploads.end_idle();
        let path = parts.uri.path();
        let rest = path.strip_prefix("/v2").unwrap_or(path);
        let route = route::parse(rest.trim_start_matches('/'))?;
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let needed = match route {
            Route::Upload { .. } | Route::Uploads { .. } => Access::Push,
            _ if reads => Access::Pull,
            _ => Access::Push,
        };
        match (self.authenticator)(&parts) {
            Access::None => return Ok(challenge()),
            access if access < needed => {
                return Err(RegistryError::new(
                    Code::Denied,
                    "this credential may pull and not push",
                ));
            }
            _ => {}
        }
        match (route, &parts.method) {
            (Route::Version, _) if reads => Ok(json(StatusCode::OK, &serde_json::json!({}))),
            (Route::Catalog, _) if reads => self.catalog(&parts).await,
            (Route::Tags { name }, _) if reads => self.tags(&name, &parts).await,
            (Route::Referrers { name, digest }, _) if reads => {
                self.referrers(&name, &digest, &parts).await
            }
            (Route::Blob { name, digest }, _) if reads => self.blob(&name, &digest, &parts).await,
            (Route::Blob { name, digest }, &Method::DELETE) => {
                self.delete_blob(&name, &digest).await
            }
            (Route::Manifest { name, version }, _) if reads => self.manifest(&name, &version).await,
            (Route::Manifest { name, version }, &Method::PUT) => {
                self.put_manifest(&name, &version, &parts, body).await
            }
            (Route::Manifest { name, version }, &Method::DELETE) => {
                self.delete_manifest(&name, &version).await
            }
            (Route::Uploads { name }, &Method::POST) => {
                self.start_upload(&name, &parts, body).await
            }
            (Route::Upload { name, id }, &Method::PATCH) => {
                self.continue_upload(&name, &id, &parts, body).await
            }
            (Route::Upload { name, id }, &Method::PUT) => {
                self.finish_upload(&name, &id, &parts, body).await
            }
            (Route::Upload { name, id }, _) if reads => self.upload_status(&name, &id).await,
            (Route::Upload { name, id }, &Method::DELETE) => self.cancel_upload(&name, &id).await,
            _ => Err(RegistryError::new(Code::Unsupported, "unsupported method")),
        }
    }

    /// Runs what blocks on the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let storage = Arc::clone(&self.storage);
        tokio::task::spawn_blocking(move || work(&storage))
            .await
            .map_err(std::io::Error::other)?
    }
}

fn challenge() -> Response<Body> {
    let error = RegistryError::new(Code::Unauthorized, "authentication required");
    let mut response = error.into_response();
    let basic = HeaderValue::from_static("Basic realm=\"coracle\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, basic);
    response
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, json);
    response
}

/// A parameter of the query, percent-decoded.
fn query(parts: &Parts, name: &str) -> Option<String> {
    url::form_urlencoded::parse(parts.uri.query()?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
pub(crate) mod tests;
