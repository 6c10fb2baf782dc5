//! The protobuf form of the Kubernetes API, which typed Go clients send and ask for.
//!
//! Objects are kept and handled as JSON; this module turns one form into the other, driven by a
//! table of messages (`kubernetes.txt`: numbers, names in JSON, types) for all built-in kinds.
//! There is no struct for any of them. Both directions give what Go gives: a round trip through
//! protobuf shows clients the same object as JSON does.
//!
//! The facts of the table come from `k8s.io/api` and its siblings: from the Go types by
//! reflection, held against their `generated.proto`. `facts/` is the program that prints it.
//!
//! Source of the format: the API reference's page on protobuf encoding (magic number `k8s\0`,
//! then `runtime.Unknown`), and for watches a length of four bytes before each event.
//!
//! The table also tells what Go leaves out of JSON (`omitted`), which is so taken out of all that
//! clients send.
//!
//! Deliberately absent: validation. A string that is no quantity stays one that is none.

mod envelope;
mod omitted;
mod openapi;
mod read;
mod schema;
mod values;
mod wire;
mod write;

pub use openapi::{
    OPENAPI_V2_MEDIA_TYPE, OPENAPI_V2_MEDIA_TYPE_OLD, OPENAPI_V3_MEDIA_TYPE,
    OPENAPI_V3_MEDIA_TYPE_OLD, openapi_v2, openapi_v3,
};
use schema::{Id, Shape, TABLE, Type};
use wire::{put_bytes, put_tag, put_varint, varint_len};
use write::Encoder;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The media type of watches.
pub const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What every object begins with.
const MAGIC: &[u8] = b"k8s\0";

/// What is wrong with a body, or with the JSON of an object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something else than protobuf.
    #[error("the body does not begin with the magic number of Kubernetes protobuf")]
    Magic,
    /// Broken bytes.
    #[error("the body ends in the middle of a field, or a field is malformed")]
    Malformed,
    /// JSON cannot carry it.
    #[error("a string is not UTF-8")]
    NotText,
    /// No object of the API is nested so deep.
    #[error("messages are nested too deeply")]
    TooDeep,
    /// The object is larger than the limit, in bytes of JSON.
    #[error("the object would be larger than {0} bytes")]
    TooLarge(usize),
    /// A kind without a protobuf form.
    #[error("no kind {kind:?} of {api_version:?} is known in protobuf; send JSON")]
    UnknownKind {
        /// As the object says.
        api_version: String,
        /// As the object says.
        kind: String,
    },
    /// The envelope names an encoding.
    #[error("the object is compressed or encoded in a way that is not read: {0:?}")]
    Encoding(String),
    /// JSON that is no object of its kind.
    #[error("the object does not fit its kind: {0}")]
    Json(#[from] serde_json::Error),
}

/// Turns an object in its envelope into JSON of at most about `limit` bytes.
///
/// # Errors
/// For what cannot be read.
pub fn to_json(body: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let envelope = envelope::open(body)?;
    let mut decoder = read::Decoder::new(limit);
    decoder.out.reserve(body.len() * 2);
    decoder.object(
        envelope.api_version,
        envelope.kind,
        envelope.message()?,
        envelope.raw,
        0,
    )?;
    Ok(decoder.out)
}

/// A kind that has a protobuf form.
#[derive(Clone, Debug)]
pub struct Kind {
    api_version: String,
    kind: String,
    id: Id,
}

impl Kind {
    /// The kind of this name; `None` for custom resources.
    #[must_use]
    pub fn find(api_version: &str, kind: &str) -> Option<Self> {
        TABLE.kind(api_version, kind).map(|id| Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            id,
        })
    }

    /// The kind that a JSON object says it is of.
    ///
    /// # Errors
    /// Where it says nothing, or a kind without a protobuf form.
    pub fn of(json: &[u8]) -> Result<Self, Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct TypeMeta {
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            kind: String,
        }
        let TypeMeta { api_version, kind } = serde_json::from_slice(json)?;
        Self::find(&api_version, &kind).ok_or(Error::UnknownKind { api_version, kind })
    }

    /// Turns the JSON of an object into protobuf in its envelope.
    ///
    /// # Errors
    /// Where the JSON is no object of this kind.
    pub fn encode(&self, json: &[u8]) -> Result<Vec<u8>, Error> {
        let mut encoder = Encoder::default();
        encoder.out.reserve(json.len());
        encoder.object(self.id, json)?;
        let mut out = envelope::head(&self.api_version, &self.kind, encoder.out.len());
        out.extend_from_slice(&encoder.out);
        out.extend_from_slice(envelope::TAIL);
        Ok(out)
    }
}

/// A list in the making: its items are encoded one by one.
pub struct List {
    kind: Kind,
    /// The number and the message of the items.
    items: (u32, Id),
    encoder: Encoder,
}

impl List {
    /// A list of this kind (`PodList`); `None` where it has no protobuf form.
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Option<Self> {
        let kind = Kind::find(api_version, kind)?;
        let items = TABLE.message(kind.id).fields.iter();
        let mut items = items.filter(|field| field.name == "items" && field.shape == Shape::List);
        match items.next() {
            Some(field) => match field.kind {
                Type::Message(id) => Some(Self {
                    kind,
                    items: (field.number, id),
                    encoder: Encoder::default(),
                }),
                _ => None,
            },
            None => None,
        }
    }

    /// Adds an item.
    ///
    /// # Errors
    /// Where the JSON is no object of the list's kind.
    pub fn push(&mut self, json: &[u8]) -> Result<(), Error> {
        let (number, id) = self.items;
        let out = &mut self.encoder.out;
        put_tag(out, number);
        let start = out.len();
        self.encoder.object(id, json)?;
        wire::insert_length(&mut self.encoder.out, start);
        Ok(())
    }

    /// How many bytes of items there are that [`List::take`] has not taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.encoder.out.len()
    }

    /// The bytes of the items since the last call.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.encoder.out)
    }

    /// What goes before all items, of which there are `length` bytes in all, and behind them.
    /// `meta` is the list with its metadata and without items.
    ///
    /// # Errors
    /// Where that is no such list.
    pub fn close(mut self, meta: &[u8], length: usize) -> Result<(Vec<u8>, &'static [u8]), Error> {
        self.encoder.out.clear();
        self.encoder.object(self.kind.id, meta)?;
        let meta = self.encoder.out;
        let Kind {
            api_version, kind, ..
        } = &self.kind;
        let mut head = envelope::head(api_version, kind, meta.len() + length);
        head.extend_from_slice(&meta);
        Ok((head, envelope::TAIL))
    }
}

/// Bytes of the length before an event of a watch.
pub const FRAME_LENGTH: usize = 4;

/// An event of a watch: its length in four bytes, then a `WatchEvent` with the object, which
/// lies in an envelope of its own.
#[must_use]
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let bytes = |length: usize| 1 + varint_len(length as u64) + length;
    let raw = bytes(object.len());
    let length = bytes(event.len()) + bytes(raw);
    let mut out = Vec::with_capacity(FRAME_LENGTH + length);
    // Frames of this size do not occur: an object is smaller than a request may be.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    put_bytes(&mut out, 1, event.as_bytes());
    put_tag(&mut out, 2);
    put_varint(&mut out, raw as u64);
    put_bytes(&mut out, 1, object);
    out
}

#[cfg(test)]
mod tests;
