//! A document that is kept once it has been made. It is kept packed: it is large, few ask for it,
//! and most of those read gzip.

use std::io::{Read, Write};
use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::status::Status;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::discovery::{hex, tagged};
use crate::handlers::compress::accepts_gzip;
use crate::registry::errors::internal;

/// A place for one document.
#[derive(Default)]
pub(super) struct Kept(OnceLock<Packed>);

struct Packed {
    etag: String,
    /// Bytes that it has unpacked.
    size: usize,
    gzip: Bytes,
}

impl Kept {
    /// Answers with the document, which is made by who asks for it first.
    pub(super) fn answer(
        &self,
        headers: &HeaderMap,
        media_type: &'static str,
        make: impl FnOnce() -> Result<Bytes, Status>,
    ) -> Result<Response<Body>, Status> {
        let packed = match self.0.get() {
            Some(packed) => packed,
            None => {
                let packed = Packed::new(&make()?)?;
                self.0.get_or_init(|| packed)
            }
        };
        let as_gzip = accepts_gzip(headers);
        let mut response = tagged(headers, media_type, &packed.etag, || {
            if as_gzip {
                Ok(packed.gzip.clone())
            } else {
                packed.unpack()
            }
        })?;
        let whole = response.status() == StatusCode::OK;
        let fields = response.headers_mut();
        fields.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        if as_gzip && whole {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}

impl Packed {
    fn new(document: &[u8]) -> Result<Self, Status> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let packed = encoder.write_all(document).and_then(|()| encoder.finish());
        let gzip = packed.map_err(|error| internal("pack OpenAPI", &error))?;
        Ok(Self {
            etag: format!("\"{}\"", hex(&Sha256::digest(document))),
            size: document.len(),
            gzip: gzip.into(),
        })
    }

    fn unpack(&self) -> Result<Bytes, Status> {
        let mut document = Vec::with_capacity(self.size);
        GzDecoder::new(&self.gzip[..])
            .read_to_end(&mut document)
            .map_err(|error| internal("unpack OpenAPI", &error))?;
        Ok(document.into())
    }
}
