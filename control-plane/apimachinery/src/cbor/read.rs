//! From CBOR to JSON. Input is hostile: depth and output are bounded.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ciborium_ll::{Decoder, Header, simple};

use super::Error;

/// As deep as JSON is read.
const MAX_DEPTH: usize = 127;

/// How bytes become text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Later {
    /// They are text.
    Text,
    Base64Url,
    Base64,
    Base16,
}

/// Turns an item into JSON of at most about `limit` bytes.
///
/// # Errors
/// For what is malformed, or has no form in JSON.
pub fn to_json(cbor: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut walk = Walk {
        decoder: Decoder::from(cbor),
        out: Vec::with_capacity(cbor.len() + cbor.len() / 4),
        buffer: vec![0; 4096],
        limit,
    };
    let first = walk.pull()?;
    walk.item(first, Later::Text, 0)?;
    if walk.decoder.offset() < cbor.len() {
        return Err(walk.refused("there is more behind the object"));
    }
    Ok(walk.out)
}

struct Walk<'a> {
    decoder: Decoder<&'a [u8]>,
    out: Vec<u8>,
    /// Strings pass through this.
    buffer: Vec<u8>,
    limit: usize,
}

impl Walk<'_> {
    fn refused(&mut self, why: &'static str) -> Error {
        Error::Refused(why, self.decoder.offset())
    }

    fn pull(&mut self) -> Result<Header, Error> {
        self.decoder
            .pull()
            .map_err(|_| Error::Malformed(self.decoder.offset()))
    }

    fn item(&mut self, header: Header, later: Later, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(self.refused("items are nested too deeply"));
        }
        if self.out.len() > self.limit {
            return Err(Error::TooLarge(self.limit));
        }
        let too_large = "a number does not fit 64 bits with a sign";
        match header {
            Header::Simple(simple::NULL) => self.out.extend_from_slice(b"null"),
            Header::Simple(simple::TRUE) => self.out.extend_from_slice(b"true"),
            Header::Simple(simple::FALSE) => self.out.extend_from_slice(b"false"),
            Header::Positive(number) => {
                let number = i64::try_from(number).map_err(|_| self.refused(too_large))?;
                // Writing to memory does not fail.
                let _ = write!(self.out, "{number}");
            }
            Header::Negative(number) => {
                let number = i64::try_from(number).map_err(|_| self.refused(too_large))?;
                let _ = write!(self.out, "{}", !number);
            }
            Header::Float(value) => {
                if !value.is_finite() {
                    return Err(self.refused("a number is not finite"));
                }
                let _ = serde_json::to_writer(&mut self.out, &value);
            }
            Header::Bytes(_) | Header::Text(_) => {
                let text = self.text(header, later)?;
                let _ = serde_json::to_writer(&mut self.out, &text);
            }
            Header::Array(length) => self.array(length, depth)?,
            Header::Map(length) => self.map(length, depth)?,
            Header::Tag(tag) => self.tagged(tag, depth)?,
            Header::Simple(_) | Header::Break => {
                return Err(self.refused("a value has no form in JSON"));
            }
        }
        Ok(())
    }

    fn tagged(&mut self, tag: u64, depth: usize) -> Result<(), Error> {
        let later = match tag {
            1 => return Err(self.refused("times are strings of RFC 3339")),
            2 | 3 => return Err(self.refused("a number is too large")),
            21 => Later::Base64Url,
            22 => Later::Base64,
            23 => Later::Base16,
            // Others do not change what the item is.
            _ => Later::Text,
        };
        let header = self.pull()?;
        self.item(header, later, depth + 1)
    }

    /// A string, whole or in pieces.
    fn text(&mut self, header: Header, later: Later) -> Result<String, Error> {
        let at = self.decoder.offset();
        let malformed = |_| Error::Malformed(at);
        let mut bytes = Vec::new();
        match header {
            Header::Text(length) => {
                let mut pieces = self.decoder.text(length);
                while let Some(mut piece) = pieces.pull().map_err(malformed)? {
                    while let Some(part) = piece.pull(&mut self.buffer).map_err(malformed)? {
                        bytes.extend_from_slice(part.as_bytes());
                    }
                }
            }
            Header::Bytes(length) => {
                let mut pieces = self.decoder.bytes(length);
                while let Some(mut piece) = pieces.pull().map_err(malformed)? {
                    while let Some(part) = piece.pull(&mut self.buffer).map_err(malformed)? {
                        bytes.extend_from_slice(part);
                    }
                }
                match later {
                    Later::Text => {}
                    Later::Base64Url => return Ok(URL_SAFE_NO_PAD.encode(bytes)),
                    Later::Base64 => return Ok(STANDARD.encode(bytes)),
                    Later::Base16 => {
                        let digits = bytes.iter().map(|byte| format!("{byte:02X}"));
                        return Ok(digits.collect());
                    }
                }
            }
            _ => return Err(self.refused("a key is no string")),
        }
        String::from_utf8(bytes).map_err(|_| self.refused("a string is not UTF-8"))
    }

    /// The next member of a collection of this many, or of unknown length.
    fn next(&mut self, left: &mut Option<usize>) -> Result<Option<Header>, Error> {
        match left {
            Some(0) => return Ok(None),
            Some(left) => *left -= 1,
            None => {
                let header = self.pull()?;
                return Ok((header != Header::Break).then_some(header));
            }
        }
        self.pull().map(Some)
    }

    fn array(&mut self, mut left: Option<usize>, depth: usize) -> Result<(), Error> {
        self.out.push(b'[');
        let mut first = true;
        while let Some(header) = self.next(&mut left)? {
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.item(header, Later::Text, depth + 1)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(&mut self, mut left: Option<usize>, depth: usize) -> Result<(), Error> {
        self.out.push(b'{');
        let mut keys = Vec::new();
        while let Some(header) = self.next(&mut left)? {
            if !keys.is_empty() {
                self.out.push(b',');
            }
            let key = self.text(header, Later::Text)?;
            let _ = serde_json::to_writer(&mut self.out, &key);
            self.out.push(b':');
            keys.push(key);
            let value = self.pull()?;
            self.item(value, Later::Text, depth + 1)?;
        }
        self.out.push(b'}');
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.refused("an object has a key twice"));
        }
        Ok(())
    }
}
