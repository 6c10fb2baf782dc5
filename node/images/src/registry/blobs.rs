//! Reading and deleting blobs.

use std::io::SeekFrom;

use axum::body::Body;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, RANGE,
};
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::Digest;

use super::error::{Code, RegistryError};
use super::{Answer, Registry};

impl Registry {
    /// `GET` and `HEAD …/blobs/<digest>`, whole or one range.
    pub(super) async fn blob(&self, name: &str, digest: &Digest, parts: &Parts) -> Answer {
        let (repository, wanted) = (name.to_owned(), digest.clone());
        let size = self
            .blocking(move |storage| Ok(storage.blob(&repository, &wanted)?))
            .await?
            .ok_or_else(|| unknown(digest))?;
        let range = parts.headers.get(RANGE).and_then(|r| r.to_str().ok());
        let (status, first, length) = match range.and_then(|range| parse_range(range, size)) {
            None => (StatusCode::OK, 0, size),
            Some(Some((first, last))) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
            Some(None) => {
                let message = format!("the blob has {size} bytes");
                return Err(RegistryError::new(Code::RangeInvalid, message));
            }
        };
        let body = if parts.method == http::Method::HEAD {
            Body::empty()
        } else {
            let path = self.storage.content.blob_path(digest);
            let mut file = tokio::fs::File::open(path).await?;
            if first > 0 {
                file.seek(SeekFrom::Start(first)).await?;
            }
            let limited = file.take(length);
            Body::from_stream(ReaderStream::with_capacity(limited, 128 << 10))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, length.into());
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, octets);
        if let Ok(value) = HeaderValue::try_from(digest.to_string()) {
            headers.insert("docker-content-digest", value);
        }
        if let Ok(value) = HeaderValue::try_from(format!("\"{digest}\"")) {
            headers.insert(ETAG, value);
        }
        if status == StatusCode::PARTIAL_CONTENT {
            let text = format!("bytes {first}-{}/{size}", first + length - 1);
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(CONTENT_RANGE, value);
            }
        }
        Ok(response)
    }

    /// `DELETE …/blobs/<digest>`.
    pub(super) async fn delete_blob(&self, name: &str, digest: &Digest) -> Answer {
        let (repository, unwanted) = (name.to_owned(), digest.clone());
        let deleted = self
            .blocking(move |storage| Ok(storage.unlink_blob(&repository, &unwanted)?))
            .await?;
        if !deleted {
            return Err(unknown(digest));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    }
}

fn unknown(digest: &Digest) -> RegistryError {
    let message = format!("blob {digest} is not in this repository");
    RegistryError::new(Code::BlobUnknown, message)
}

/// First and last byte of a range. None outside: a form that is not understood, which is
/// ignored; none inside: it cannot be satisfied (RFC 9110, 14.2).
fn parse_range(range: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if last.contains(',') {
        return None;
    }
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => {
            let length: u64 = suffix.parse().ok()?;
            if length == 0 {
                return Some(None);
            }
            (size.saturating_sub(length), u64::MAX)
        }
        (first, "") => (first.parse().ok()?, u64::MAX),
        (first, last) => (first.parse().ok()?, last.parse().ok()?),
    };
    let last = last.min(size.saturating_sub(1));
    Some((first < size && first <= last).then_some((first, last)))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-3", Some(Some((0, 3)))),
            ("bytes=4-", Some(Some((4, 9)))),
            ("bytes=-3", Some(Some((7, 9)))),
            ("bytes=-99", Some(Some((0, 9)))),
            ("bytes=5-99", Some(Some((5, 9)))),
            ("bytes=10-", Some(None)),
            ("bytes=3-2", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=0-1,3-4", None),
            ("lines=0-1", None),
            ("bytes=x-1", None),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Some(None));
    }
}
