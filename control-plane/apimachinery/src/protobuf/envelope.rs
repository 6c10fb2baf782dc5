//! What lies around an object: four bytes that tell protobuf from other formats, then a
//! `runtime.Unknown` of the object's type and its bytes.

use super::schema::{Id, TABLE};
use super::wire::{Reader, Wire, put_bytes, put_tag, put_varint, varint_len};
use super::{Error, MAGIC, MEDIA_TYPE, read};

/// An envelope that has been opened.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub raw: &'a [u8],
}

impl Envelope<'_> {
    /// The message of the object.
    pub(super) fn message(&self) -> Result<Id, Error> {
        TABLE
            .kind(self.api_version, self.kind)
            .ok_or_else(|| Error::UnknownKind {
                api_version: self.api_version.to_owned(),
                kind: self.kind.to_owned(),
            })
    }
}

/// Opens an envelope.
pub(super) fn open(body: &[u8]) -> Result<Envelope<'_>, Error> {
    let body = body.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let mut envelope = Envelope {
        api_version: "",
        kind: "",
        raw: &[],
    };
    for field in Reader::new(body) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Reader::new(type_meta) {
                    match field? {
                        (1, Wire::Bytes(bytes)) => envelope.api_version = read::text(bytes)?,
                        (2, Wire::Bytes(bytes)) => envelope.kind = read::text(bytes)?,
                        (1 | 2, _) => return Err(Error::Malformed),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => envelope.raw = bytes,
            (3 | 4, Wire::Bytes(b"")) => {}
            (4, Wire::Bytes(bytes)) if bytes == MEDIA_TYPE.as_bytes() => {}
            (3 | 4, Wire::Bytes(bytes)) => {
                return Err(Error::Encoding(String::from_utf8_lossy(bytes).into_owned()));
            }
            (1..=4, _) => return Err(Error::Malformed),
            _ => {}
        }
    }
    Ok(envelope)
}

/// What comes before the bytes of an object that are `length` long.
pub(super) fn head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_tag(&mut out, 1);
    let string = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
    put_varint(&mut out, (string(api_version) + string(kind)) as u64);
    put_bytes(&mut out, 1, api_version.as_bytes());
    put_bytes(&mut out, 2, kind.as_bytes());
    put_tag(&mut out, 2);
    put_varint(&mut out, length as u64);
    out
}

/// What comes behind: neither an encoding nor a type of the content.
pub(super) const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];
