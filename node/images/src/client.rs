//! A client of one repository of a registry: the HTTP side of pull and push.
//!
//! It speaks the OCI distribution specification 1.1 and the token protocol that registries
//! answer with. It is our own rather than `oci_client::Client` (whose types for manifests and
//! references this crate uses) because that client reads manifests, tokens and errors of any
//! size into memory, keeps the first credential that it saw for a registry, and ends the
//! process on a machine without CA certificates. Here every body has a bound, every client one
//! credential, and all share one pool of connections per set of trusted roots.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use reqwest::Response;

use crate::{Digest, media_types};

mod download;
mod error;
mod http_client;
mod token;

pub(crate) use error::ClientError;
use error::refused;
pub(crate) use http_client::{HttpClients, Trust};

/// Bodies that only carry an error or a token.
const SMALL_BODY: u64 = 64 << 10;

/// A user name and a password.
#[derive(Clone)]
pub(crate) struct Basic {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl Basic {
    fn header(&self) -> Result<HeaderValue, ClientError> {
        let pair = format!("{}:{}", self.username, self.password);
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        sensitive(format!("Basic {encoded}"))
    }
}

fn sensitive(value: String) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| ClientError::Invalid("the credential is not valid in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// One repository at one endpoint, with one credential.
pub(crate) struct Repository {
    http: reqwest::Client,
    /// `scheme://host:port`, without a slash at the end.
    endpoint: String,
    name: String,
    basic: Option<Basic>,
    actions: &'static str,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A manifest as the registry gave it, verified.
pub(crate) struct Manifest {
    pub(crate) bytes: Bytes,
    pub(crate) digest: Digest,
    pub(crate) media_type: Option<String>,
}

impl Repository {
    pub(crate) fn new(
        http: reqwest::Client,
        endpoint: &str,
        name: &str,
        basic: Option<Basic>,
        actions: &'static str,
    ) -> Self {
        Self {
            http,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            name: name.to_owned(),
            basic,
            actions,
            authorization: Mutex::default(),
        }
    }

    /// Whether the registry holds the repository.
    pub(crate) async fn exists(&self) -> Result<bool, ClientError> {
        let url = self.url("tags/list?n=1");
        match self.get(&url, HeaderMap::new()).await {
            Ok(_) => Ok(true),
            Err(ClientError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The manifest of a tag or a digest, of at most `limit` bytes.
    pub(crate) async fn manifest(
        &self,
        version: &str,
        limit: u64,
    ) -> Result<Manifest, ClientError> {
        let mut headers = HeaderMap::new();
        for media_type in media_types::MANIFESTS {
            headers.append(ACCEPT, HeaderValue::from_static(media_type));
        }
        let url = self.url(&format!("manifests/{version}"));
        let response = self.get(&url, headers).await?;
        let header = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.trim().to_owned())
        };
        let announced = header("docker-content-digest");
        let media_type = header("content-type");
        let bytes = bounded(response, limit, "manifest").await?;
        let digest = Digest::of(&bytes);
        let wanted = [Some(version.to_owned()), announced];
        for wanted in wanted.iter().flatten().filter(|w| w.starts_with("sha256:")) {
            if *wanted != digest.to_string() {
                return Err(ClientError::Invalid(format!(
                    "the manifest has digest {digest} where {wanted} was expected"
                )));
            }
        }
        Ok(Manifest {
            bytes,
            digest,
            media_type,
        })
    }

    /// Whether the repository has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, ClientError> {
        let url = self.url(&format!("blobs/{digest}"));
        match self.send(Method::HEAD, &url, HeaderMap::new(), None).await {
            Ok(_) => Ok(true),
            Err(ClientError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob unless the repository has it.
    pub(crate) async fn push_blob(&self, bytes: Bytes) -> Result<Digest, ClientError> {
        let digest = Digest::of(&bytes);
        if self.has_blob(&digest).await? {
            return Ok(digest);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let url = self.url("blobs/uploads/");
        let response = self.send(Method::POST, &url, headers, None).await?;
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .ok_or_else(|| ClientError::Invalid("the registry names no upload location".into()))?;
        let location = match location.strip_prefix('/') {
            Some(path) => format!("{}/{path}", self.endpoint),
            None => location.to_owned(),
        };
        // The credential goes to the registry only, wherever the location leads.
        if !location.starts_with(&format!("{}/", self.endpoint)) {
            return Err(ClientError::Invalid(format!(
                "the registry sends uploads elsewhere: {location}"
            )));
        }
        let joint = if location.contains('?') { '&' } else { '?' };
        let mut headers = HeaderMap::new();
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, octets);
        let url = format!("{location}{joint}digest={digest}");
        self.send(Method::PUT, &url, headers, Some(bytes)).await?;
        Ok(digest)
    }

    /// Uploads a manifest under a tag or its digest.
    pub(crate) async fn push_manifest(
        &self,
        version: &str,
        media_type: &'static str,
        bytes: Bytes,
    ) -> Result<Digest, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let digest = Digest::of(&bytes);
        let url = self.url(&format!("manifests/{version}"));
        self.send(Method::PUT, &url, headers, Some(bytes)).await?;
        Ok(digest)
    }

    fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.endpoint, self.name)
    }

    async fn get(&self, url: &str, headers: HeaderMap) -> Result<Response, ClientError> {
        self.send(Method::GET, url, headers, None).await
    }

    /// Sends a request, answers one challenge, and turns what is no success into an error.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, ClientError> {
        let request = || {
            let mut request = self
                .http
                .request(method.clone(), url)
                .headers(headers.clone());
            if let Some(authorization) = self.authorization.lock().clone() {
                request = request.header(AUTHORIZATION, authorization);
            }
            match &body {
                Some(body) => request.body(body.clone()),
                None => request,
            }
        };
        let mut response = request().send().await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.is_own(response.url()) {
            let answer = self.answer_challenge(response.headers()).await?;
            if let Some(authorization) = answer {
                *self.authorization.lock() = Some(authorization);
                response = request().send().await?;
            }
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(refused(status, &method, response).await),
        }
    }

    /// Whether an answer is the registry's own. Whoever it has sent us on to, to have a blob, does not
    /// say where the registry's credential goes.
    fn is_own(&self, url: &url::Url) -> bool {
        url::Url::parse(&self.endpoint).is_ok_and(|own| own.origin() == url.origin())
    }

    /// What to send after a 401; none if there is nothing better than before.
    async fn answer_challenge(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, ClientError> {
        let challenges: Vec<String> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let scope = format!("repository:{}:{}", self.name, self.actions);
        if let Some(bearer) = token::bearer(&challenges, &self.endpoint)? {
            let token = bearer
                .fetch(&self.http, &scope, self.basic.as_ref())
                .await?;
            return sensitive(format!("Bearer {token}")).map(Some);
        }
        match &self.basic {
            Some(basic) if self.authorization.lock().is_none() => basic.header().map(Some),
            _ => Ok(None),
        }
    }
}

/// Reads a body of at most `limit` bytes.
async fn bounded(response: Response, limit: u64, what: &str) -> Result<Bytes, ClientError> {
    let too_large = || ClientError::Invalid(format!("the {what} is larger than {limit} bytes"));
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Time-outs of connections.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) connect: Duration,
    pub(crate) read: Duration,
}
