//! CBOR (RFC 8949) as the Kubernetes API speaks it (KEP-4222): the data model of JSON, in
//! another form.
//!
//! Strings are byte strings, as Kubernetes writes them; text strings are read as well. What is
//! base64 in JSON is so here too, unless the sender marks plain bytes for later encoding (tags
//! 21 to 23). No schema is needed in either direction.

mod read;
mod write;

pub use read::to_json;
pub use write::from_json;

/// The media type.
pub const MEDIA_TYPE: &str = "application/cbor";

/// The media type of watches: one item behind the other (RFC 8742).
pub const WATCH_MEDIA_TYPE: &str = "application/cbor-seq";

/// The tag that tells CBOR from other formats, which Kubernetes puts before everything.
pub(crate) const MAGIC: &[u8] = &[0xd9, 0xd9, 0xf7];

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Broken bytes.
    #[error("the body ends too early, or is malformed, at byte {0}")]
    Malformed(usize),
    /// Well-formed, and nothing that the API takes.
    #[error("{0} at byte {1}")]
    Refused(&'static str, usize),
    /// The object is larger than the limit, in bytes of JSON.
    #[error("the object would be larger than {0} bytes")]
    TooLarge(usize),
    /// What is to be encoded is no JSON.
    #[error("the JSON does not parse: {0}")]
    Json(#[from] serde_json::Error),
}

/// An event of a watch with an object that is CBOR already.
#[must_use]
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(MAGIC);
    write::put_head(&mut out, write::MAP, 2);
    for text in ["type", event, "object"] {
        write::put_string(&mut out, text);
    }
    out.extend_from_slice(object);
    out
}

#[cfg(test)]
mod tests;
