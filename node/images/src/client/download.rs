//! The bytes of a blob, whatever becomes of the connections that bring them.
//!
//! Where a transfer breaks off, the rest is asked for (RFC 9110, 14.2): a large layer over a poor line
//! would else begin again each time. What has come is with the caller, who verifies the whole, so it
//! is no matter which of a registry's machines sends which part. A registry that knows no ranges sends
//! all again, and what the caller has is passed over.
//!
//! Deliberately absent: going on after the process has ended; a body that ends early without an error,
//! which is the registry's last word on how long the blob is.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Response;

use super::{ClientError, Repository};
use crate::Digest;

/// Breaks in a row that bring the blob no [`STEP`] further; after one more the transfer is given up.
const TRIES: u32 = 4;
/// Bytes after which a line is worth its tries again.
const STEP: u64 = 1 << 20;

/// A blob on its way.
struct Download<'a> {
    repository: &'a Repository,
    digest: &'a Digest,
    /// Bytes of the whole.
    size: u64,
    pause: Duration,
    /// What comes now; none after a break.
    body: Option<BoxStream<'static, Result<Bytes, ClientError>>>,
    /// Bytes that the caller has.
    from: u64,
    /// Bytes of the body that the caller has already.
    known: u64,
    tries: u32,
    /// Where the tries began to count.
    since: u64,
}

impl Repository {
    /// The bytes of a blob of that size as they come; the caller verifies and bounds them. Fails where
    /// the registry does not begin to send it. After a first break it is waited for `pause`, after each further one
    /// twice as long.
    pub(crate) async fn blob<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        pause: Duration,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>>, ClientError> {
        let mut download = Download {
            repository: self,
            digest,
            size,
            pause,
            body: None,
            from: 0,
            known: 0,
            tries: 0,
            since: 0,
        };
        download.open().await?;
        Ok(stream::try_unfold(download, |mut download| async move {
            let chunk = download.next().await?;
            Ok(chunk.map(|chunk| (chunk, download)))
        }))
    }
}

impl Download<'_> {
    /// Asks for what is missing.
    async fn open(&mut self) -> Result<(), ClientError> {
        let mut headers = HeaderMap::new();
        if self.from > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.from));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let url = self.repository.url(&format!("blobs/{}", self.digest));
        let response = self.repository.get(&url, headers).await?;
        let first = first_byte(&response);
        self.known = self.from.checked_sub(first).ok_or_else(|| {
            ClientError::Invalid(format!(
                "the registry goes on at byte {first} of a blob where {} was asked for",
                self.from
            ))
        })?;
        let body = response.bytes_stream().map_err(ClientError::from);
        self.body = Some(body.boxed());
        Ok(())
    }

    /// The bytes that come next; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.read().await {
                Ok(Some(mut chunk)) => {
                    let known = self.known.min(chunk.len() as u64);
                    self.known -= known;
                    let new = chunk.split_off(known as usize);
                    if new.is_empty() {
                        continue;
                    }
                    self.from += new.len() as u64;
                    return Ok(Some(new));
                }
                Ok(None) => return Ok(None),
                // Only the end itself has not come through.
                Err(_) if self.from >= self.size => return Ok(None),
                Err(error) => self.break_off(error).await?,
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.body.is_none() {
            self.open().await?;
        }
        match &mut self.body {
            Some(body) => body.next().await.transpose(),
            None => Ok(None),
        }
    }

    /// Waits until it is worth asking again; an error where it is not.
    async fn break_off(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.body = None;
        if self.from - self.since >= STEP {
            self.tries = 0;
            self.since = self.from;
        }
        let pause = error.pause(self.pause * 2_u32.pow(self.tries));
        let Some(pause) = pause.filter(|_| self.tries < TRIES) else {
            return Err(error);
        };
        self.tries += 1;
        tracing::debug!(blob = %self.digest, from = self.from, %error, "a transfer goes on");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Which byte of the whole an answer begins with. One that does not say it begins with the first, and
/// then the digest will not fit if that is not so.
fn first_byte(response: &Response) -> u64 {
    let range = response.headers().get(CONTENT_RANGE);
    let first = range
        .filter(|_| response.status() == StatusCode::PARTIAL_CONTENT)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes "))
        .and_then(|range| range.split_once('-')?.0.trim().parse().ok());
    first.unwrap_or(0)
}
