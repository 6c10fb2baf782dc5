//! Frames of SPDY/3.1 (the draft of that name), as far as Kubernetes' streams need them: the client
//! opens streams with headers, both sides send data and close their halves.
//!
//! A codec from bytes to frames and back, without I/O. There is no flow control: the library at
//! Kubernetes' other ends has none.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use dictionary::DICTIONARY;

mod dictionary;
#[cfg(test)]
mod tests;

/// Bytes of a frame at most.
const MAX_FRAME: usize = 1 << 20;
/// Bytes of a frame's headers at most, unpacked.
const MAX_HEADERS: usize = 64 << 10;
/// Bytes before a frame's content.
const HEAD: usize = 8;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The flag of a frame that is the last of its stream.
const FIN: u8 = 1;
/// Why a stream is reset: nobody has any more use for it.
const CANCEL: u32 = 5;

/// What comes from the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream; the names of headers are lower-case.
    Open {
        /// Its number.
        stream: u32,
        /// Its headers.
        headers: BTreeMap<String, String>,
        /// Whether nothing follows.
        last: bool,
    },
    /// Bytes of a stream.
    Data {
        /// Its number.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
        /// Whether nothing follows.
        last: bool,
    },
    /// Ends a stream at once.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// Is to be answered with the same, unless it is the answer to one of this side's own.
    Ping {
        /// Its number.
        id: u32,
    },
    /// There will be no more streams.
    GoAway,
    /// One that changes nothing here.
    Other,
}

/// Why there is nothing more to understand.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A frame is too long.
    #[error("a frame of {0} bytes is past the bound of {MAX_FRAME}")]
    TooLong(usize),
    /// A frame ends before what it must have.
    #[error("a frame of type {0} is too short")]
    Short(u16),
    /// Headers cannot be unpacked, or are too long.
    #[error("headers cannot be unpacked")]
    Headers,
}

/// Takes frames from bytes as they come.
pub struct Decoder {
    came: BytesMut,
    inflate: Decompress,
    /// Whether the compressor's own header has been read.
    begun: bool,
}

impl Decoder {
    /// One that has heard nothing yet.
    #[expect(
        clippy::new_without_default,
        reason = "it begins with the connection, and once"
    )]
    pub fn new() -> Self {
        Self {
            came: BytesMut::new(),
            inflate: Decompress::new(false),
            begun: false,
        }
    }

    /// Takes bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.came.put_slice(bytes);
    }

    /// The next frame that has come whole.
    #[expect(
        clippy::should_implement_trait,
        reason = "it goes on when more has come"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(head) = self.came.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [a, b, c, d, flags, length @ ..] = *head;
        let length = length
            .iter()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        if length > MAX_FRAME {
            return Err(SpdyError::TooLong(length));
        }
        if self.came.len() < HEAD + length {
            return Ok(None);
        }
        self.came.advance(HEAD);
        // Bytes of its own: whoever keeps it holds nothing else that came with it.
        let content = Bytes::copy_from_slice(&self.came[..length]);
        self.came.advance(length);
        let last = flags & FIN != 0;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            let bytes = content;
            return Ok(Some(Frame::Data {
                stream,
                bytes,
                last,
            }));
        }
        self.control(u16::from_be_bytes([c, d]), content, last)
            .map(Some)
    }

    fn control(&mut self, kind: u16, mut content: Bytes, last: bool) -> Result<Frame, SpdyError> {
        let mut number = || content.try_get_u32().map_err(|_| SpdyError::Short(kind));
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()? & 0x7fff_ffff;
                // The stream that it belongs to.
                number()?;
                if content.len() < 2 {
                    return Err(SpdyError::Short(kind));
                }
                // Priority and credential.
                content.advance(2);
                let headers = self.headers(&content)?;
                Frame::Open {
                    stream,
                    headers,
                    last,
                }
            }
            RST_STREAM => Frame::Reset {
                stream: number()? & 0x7fff_ffff,
            },
            PING => Frame::Ping { id: number()? },
            GOAWAY => Frame::GoAway,
            // Their headers are of one sequence with all others.
            SYN_REPLY | HEADERS => {
                number()?;
                self.headers(&content)?;
                Frame::Other
            }
            _ => Frame::Other,
        })
    }

    fn headers(&mut self, mut packed: &[u8]) -> Result<BTreeMap<String, String>, SpdyError> {
        if !self.begun {
            // The compressor's header (RFC 1950) says that it has begun with the dictionary; a
            // block of the dictionary's content brings the decompressor to the same state.
            let dictionary = packed.get(1).ok_or(SpdyError::Headers)? & 0x20 != 0;
            packed = packed
                .get(if dictionary { 6 } else { 2 }..)
                .ok_or(SpdyError::Headers)?;
            if dictionary {
                self.inflate(&stored(DICTIONARY))?;
            }
            self.begun = true;
        }
        let text = self.inflate(packed)?;
        parse_headers(&text).ok_or(SpdyError::Headers)
    }

    fn inflate(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::with_capacity(4 << 10);
        loop {
            let (before, length) = (self.inflate.total_in(), out.len());
            let status = self
                .inflate
                .decompress_vec(packed, &mut out, FlushDecompress::Sync);
            let status = status.map_err(|_| SpdyError::Headers)?;
            let taken = usize::try_from(self.inflate.total_in() - before);
            packed = &packed[taken.map_err(|_| SpdyError::Headers)?..];
            if out.len() > MAX_HEADERS || status == Status::StreamEnd {
                return Err(SpdyError::Headers);
            }
            if out.len() == out.capacity() {
                out.reserve(4 << 10);
            } else if packed.is_empty() {
                return Ok(out);
            } else if out.len() == length {
                return Err(SpdyError::Headers);
            }
        }
    }
}

fn parse_headers(mut text: &[u8]) -> Option<BTreeMap<String, String>> {
    let count = text.try_get_u32().ok()?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        let mut next = || {
            let length = usize::try_from(text.try_get_u32().ok()?).ok()?;
            let bytes = text.split_off(..length)?;
            String::from_utf8(bytes.to_vec()).ok()
        };
        headers.insert(next()?.to_lowercase(), next()?);
    }
    Some(headers)
}

/// A block of deflate (RFC 1951) that is not compressed.
fn stored(content: &[u8]) -> Vec<u8> {
    // What is stored here is far below the 64 KiB that a block holds.
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let mut block = vec![0];
    block.put_u16_le(length);
    block.put_u16_le(!length);
    block.extend_from_slice(&content[..usize::from(length)]);
    block
}

/// Makes frames.
#[derive(Default)]
pub struct Encoder {
    begun: bool,
}

impl Encoder {
    /// Opens a stream.
    pub fn open(&mut self, stream: u32, headers: &[(&str, &str)]) -> Bytes {
        let mut content = Vec::new();
        content.put_u32(stream);
        // It belongs to no other stream, and has neither a priority nor a credential.
        content.put_slice(&[0; 6]);
        self.headers(headers, &mut content);
        control(SYN_STREAM, &content)
    }

    /// Accepts a stream. Its answer has no headers.
    pub fn reply(&mut self, stream: u32) -> Bytes {
        let mut content = Vec::new();
        content.put_u32(stream);
        self.headers(&[], &mut content);
        control(SYN_REPLY, &content)
    }

    fn headers(&mut self, headers: &[(&str, &str)], content: &mut Vec<u8>) {
        if !self.begun {
            // A compressor's header without a dictionary.
            content.extend_from_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        let mut text = Vec::new();
        text.put_u32(headers.len() as u32);
        for word in headers.iter().flat_map(|(name, value)| [name, value]) {
            text.put_u32(word.len() as u32);
            text.put_slice(word.as_bytes());
        }
        content.extend(stored(&text));
        // An empty block hands over what came before.
        content.extend(stored(&[]));
    }

    /// Ends a stream at once.
    pub fn reset(stream: u32) -> Bytes {
        let mut content = [0; 8];
        content[..4].copy_from_slice(&stream.to_be_bytes());
        content[4..].copy_from_slice(&CANCEL.to_be_bytes());
        control(RST_STREAM, &content)
    }

    /// A ping, whose number is odd where it is a client's, or the answer to one.
    pub fn ping(id: u32) -> Bytes {
        control(PING, &id.to_be_bytes())
    }

    /// Bytes of a stream.
    pub fn data(stream: u32, bytes: &[u8], last: bool) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEAD + bytes.len());
        frame.put_u32(stream);
        frame.put_u8(if last { FIN } else { 0 });
        frame.put_uint(bytes.len() as u64, 3);
        frame.put_slice(bytes);
        frame.freeze()
    }
}

fn control(kind: u16, content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD + content.len());
    frame.put_u16(0x8003);
    frame.put_u16(kind);
    frame.put_u8(0);
    frame.put_uint(content.len() as u64, 3);
    frame.put_slice(content);
    frame.freeze()
}
