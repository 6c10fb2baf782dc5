//! Uploads under way: monolithic, chunked, or streamed (OCI distribution specification, "Push").

use std::collections::HashMap;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, LOCATION, RANGE};
use http::request::Parts;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::store::Batch;
use crate::{BlobWriter, Digest};

use super::error::{Code, RegistryError};
use super::{Answer, Registry, RegistryLimits, query, route};

/// All uploads under way. Each has a slot, as long as it may be gone on with.
pub(super) struct Uploads {
    limits: RegistryLimits,
    slots: Arc<Semaphore>,
    sessions: Mutex<HashMap<String, Session>>,
}

struct Session {
    repository: String,
    last_used: Instant,
    /// Locked while a request adds to the upload; empty once it is finished.
    upload: Arc<tokio::sync::Mutex<Option<BlobWriter>>>,
    _slot: OwnedSemaphorePermit,
}

impl Session {
    /// For how long nobody has gone on with it; none while somebody does.
    fn idle(&self) -> Option<Duration> {
        (Arc::strong_count(&self.upload) == 1).then(|| self.last_used.elapsed())
    }
}

impl Uploads {
    pub(super) fn new(limits: RegistryLimits) -> Self {
        Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.uploads)),
            sessions: Mutex::default(),
        }
    }

    /// Ends uploads that nobody goes on with. What they wrote would else stay on the disk until
    /// somebody begins another.
    pub(super) fn end_idle(&self) {
        let most = self.limits.upload_idle;
        let idle = |session: &Session| session.idle().is_some_and(|idle| idle >= most);
        self.sessions.lock().retain(|_, session| !idle(session));
    }

    /// A place among the uploads. Where there is none, the upload goes that has been left alone for
    /// longest: clients that were cut off begin anew and seldom go on, but they may, and so none goes
    /// that was used a moment ago.
    fn slot(&self) -> Result<OwnedSemaphorePermit, RegistryError> {
        let mut sessions = self.sessions.lock();
        if self.slots.available_permits() == 0 {
            let idle = sessions
                .iter()
                .filter_map(|(id, session)| Some((session.idle()?, id)))
                .max()
                .filter(|(idle, _)| *idle >= self.limits.body_idle)
                .map(|(_, id)| id.clone());
            if let Some(id) = idle {
                sessions.remove(&id);
            }
        }
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        slot.map_err(|_| {
            RegistryError::new(
                Code::TooManyRequests,
                "too many uploads are under way; try again in a minute",
            )
        })
    }

    fn insert(&self, repository: &str, writer: BlobWriter, slot: OwnedSemaphorePermit) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let session = Session {
            repository: repository.to_owned(),
            last_used: Instant::now(),
            upload: Arc::new(tokio::sync::Mutex::new(Some(writer))),
            _slot: slot,
        };
        self.sessions.lock().insert(id.clone(), session);
        id
    }

    fn get(
        &self,
        repository: &str,
        id: &str,
    ) -> Result<OwnedMutexGuard<Option<BlobWriter>>, RegistryError> {
        let mut sessions = self.sessions.lock();
        let session = sessions
            .get_mut(id)
            .filter(|session| session.repository == repository)
            .ok_or_else(unknown)?;
        session.last_used = Instant::now();
        Arc::clone(&session.upload)
            .try_lock_owned()
            .map_err(|_| RegistryError::new(Code::BlobUploadInvalid, "the upload is in use"))
    }

    /// Counts from now how long nobody has gone on with it: a part may have taken longer than an upload
    /// may be left alone.
    fn touch(&self, id: &str) {
        if let Some(session) = self.sessions.lock().get_mut(id) {
            session.last_used = Instant::now();
        }
    }

    /// What takes the bytes of an upload.
    fn writer(
        &self,
        repository: &str,
        id: &str,
    ) -> Result<OwnedMappedMutexGuard<Option<BlobWriter>, BlobWriter>, RegistryError> {
        let upload = self.get(repository, id)?;
        OwnedMutexGuard::try_map(upload, Option::as_mut).map_err(|_| unknown())
    }

    fn remove(&self, id: &str) {
        self.sessions.lock().remove(id);
    }
}

fn unknown() -> RegistryError {
    RegistryError::new(Code::BlobUploadUnknown, "no such upload")
}

impl Registry {
    /// `POST …/blobs/uploads/`: mounts, takes a whole blob, or opens an upload.
    pub(super) async fn start_upload(&self, name: &str, parts: &Parts, body: Body) -> Answer {
        if let Some(mount) = query(parts, "mount") {
            let digest = route::digest(&mount)?;
            let from = query(parts, "from");
            if let Some(from) = from {
                route::name(&from.split('/').collect::<Vec<_>>())?;
                let to = name.to_owned();
                let (blob, from) = (digest.clone(), from);
                let mounted = self
                    .blocking(move |storage| Ok(storage.mount(&from, &to, &blob)?))
                    .await?;
                if mounted {
                    return Ok(created(name, "blobs", &digest));
                }
            }
        }
        let slot = self.uploads.slot()?;
        let writer = Box::new(self.storage.content.writer(self.limits.blob_bytes)?);
        if let Some(text) = query(parts, "digest") {
            let digest = route::digest(&text)?;
            let writer = self.receive(writer, body).await?;
            return self.finish(name, *writer, digest).await;
        }
        let id = self.uploads.insert(name, *writer, slot);
        Ok(accepted(StatusCode::ACCEPTED, name, &id, 0))
    }

    /// `PATCH …/blobs/uploads/<id>`: takes a chunk.
    pub(super) async fn continue_upload(
        &self,
        name: &str,
        id: &str,
        parts: &Parts,
        body: Body,
    ) -> Answer {
        let writer = self.uploads.writer(name, id)?;
        check_range(parts, writer.written())?;
        let written = self.take(id, writer, body).await?.written();
        Ok(accepted(StatusCode::ACCEPTED, name, id, written))
    }

    /// `PUT …/blobs/uploads/<id>?digest=…`: takes the last chunk, if any, and closes.
    pub(super) async fn finish_upload(
        &self,
        name: &str,
        id: &str,
        parts: &Parts,
        body: Body,
    ) -> Answer {
        let writer = self.uploads.writer(name, id)?;
        let digest = query(parts, "digest").ok_or_else(|| {
            RegistryError::new(Code::DigestInvalid, "the parameter digest is missing")
        })?;
        let digest = route::digest(&digest)?;
        check_range(parts, writer.written())?;
        drop(self.take(id, writer, body).await?);
        let writer = self.uploads.get(name, id)?.take().ok_or_else(unknown)?;
        self.uploads.remove(id);
        self.finish(name, writer, digest).await
    }

    /// `GET …/blobs/uploads/<id>`: how far it is.
    pub(super) async fn upload_status(&self, name: &str, id: &str) -> Answer {
        let upload = self.uploads.get(name, id)?;
        let written = upload.as_ref().ok_or_else(unknown)?.written();
        Ok(accepted(StatusCode::NO_CONTENT, name, id, written))
    }

    /// `DELETE …/blobs/uploads/<id>`: gives up.
    pub(super) async fn cancel_upload(&self, name: &str, id: &str) -> Answer {
        self.uploads.get(name, id)?.take();
        self.uploads.remove(id);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    /// Takes a part of an upload. A client whose part broke off may send it again; an upload that cannot
    /// be written, or is too large, is over.
    async fn take<W>(&self, id: &str, writer: W, body: Body) -> Result<W, RegistryError>
    where
        W: DerefMut<Target = BlobWriter> + Send + 'static,
    {
        let received = self.receive(writer, body).await;
        match &received {
            Err(error) if error.code != Code::BlobUploadInvalid => self.uploads.remove(id),
            _ => self.uploads.touch(id),
        }
        received
    }

    async fn receive<W>(&self, mut writer: W, body: Body) -> Result<W, RegistryError>
    where
        W: DerefMut<Target = BlobWriter> + Send + 'static,
    {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::FileTooLarge => {
                RegistryError::new(Code::SizeInvalid, format!("the blob has {error}"))
            }
            _ => error.into(),
        };
        let mut stream = body.into_data_stream();
        let mut batch = Batch::default();
        while let Some(chunk) = self.next(&mut stream).await? {
            batch.add(&chunk);
            if batch.is_full(&writer) {
                writer = batch.write(writer).await.map_err(failed)?;
            }
        }
        batch.write(writer).await.map_err(failed)
    }

    /// The next piece of a body; a client that stalls is given up.
    pub(super) async fn next(
        &self,
        stream: &mut axum::body::BodyDataStream,
    ) -> Result<Option<bytes::Bytes>, RegistryError> {
        let invalid = |message: &str| RegistryError::new(Code::BlobUploadInvalid, message);
        match tokio::time::timeout(self.limits.body_idle, stream.next()).await {
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(invalid("the body ended early")),
            Err(_) => Err(invalid("the body stalled")),
        }
    }

    async fn finish(&self, name: &str, writer: BlobWriter, digest: Digest) -> Answer {
        let (repository, expected) = (name.to_owned(), digest.clone());
        self.blocking(move |storage| {
            let mut lease = storage.content.lease();
            lease.add(&expected);
            writer
                .commit(&expected)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::InvalidData => {
                        RegistryError::new(Code::DigestInvalid, error.to_string())
                    }
                    _ => error.into(),
                })?;
            storage.link_blob(&repository, &expected)?;
            Ok(())
        })
        .await?;
        Ok(created(name, "blobs", &digest))
    }
}

/// A chunk must begin where the upload ends.
fn check_range(parts: &Parts, written: u64) -> Result<(), RegistryError> {
    let Some(range) = parts.headers.get(CONTENT_RANGE) else {
        return Ok(());
    };
    let range = range.to_str().unwrap_or_default();
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let first = range
        .split_once('-')
        .and_then(|(first, _)| first.trim().parse::<u64>().ok());
    if first == Some(written) {
        Ok(())
    } else {
        let message = format!("the upload goes on at byte {written}");
        Err(RegistryError::new(Code::RangeInvalid, message))
    }
}

fn accepted(status: StatusCode, name: &str, id: &str, written: u64) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let text = |text: String| HeaderValue::try_from(text).ok();
    let fields = [
        (LOCATION, text(format!("/v2/{name}/blobs/uploads/{id}"))),
        (RANGE, text(format!("0-{}", written.saturating_sub(1)))),
        (CONTENT_LENGTH, text("0".into())),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            headers.insert(field, value);
        }
    }
    if let Some(id) = text(id.to_owned()) {
        headers.insert("docker-upload-uuid", id);
    }
    if status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    }
    response
}

/// 201 with where the blob or manifest is.
pub(super) fn created(name: &str, kind: &str, digest: &Digest) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/v2/{name}/{kind}/{digest}")) {
        headers.insert(LOCATION, location);
    }
    if let Ok(digest) = HeaderValue::try_from(digest.to_string()) {
        headers.insert("docker-content-digest", digest);
    }
    response
}
