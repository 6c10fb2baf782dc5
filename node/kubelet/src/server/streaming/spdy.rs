//! Frames of SPDY/3.1 (the draft of that name), as far as `SPDY/3.1+portforward.k8s.io` needs
//! them: the client opens streams with headers, both sides send data and close their halves.
//!
//! A codec from bytes to frames and back, without I/O. There is no flow control: the client's
//! library has none.

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

/// What the client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Opens a stream; the names of headers are lower-case.
    Open {
        stream: u32,
        headers: BTreeMap<String, String>,
        last: bool,
    },
    Data {
        stream: u32,
        bytes: Bytes,
        last: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// One that changes nothing here.
    Other,
}

/// Why there is nothing more to understand.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpdyError {
    #[error("a frame of {0} bytes is past the bound of {MAX_FRAME}")]
    TooLong(usize),
    #[error("a frame of type {0} is too short")]
    Short(u16),
    #[error("headers cannot be unpacked")]
    Headers,
}

/// Takes frames from bytes as they come.
pub(super) struct Decoder {
    came: BytesMut,
    inflate: Decompress,
    /// Whether the compressor's own header has been read.
    begun: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            came: BytesMut::new(),
            inflate: Decompress::new(false),
            begun: false,
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.came.put_slice(bytes);
    }

    /// The next frame that has come whole.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
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
        let content = self.came.split_to(HEAD + length).split_off(HEAD).freeze();
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
pub(super) struct Encoder {
    begun: bool,
}

impl Encoder {
    /// Accepts a stream. Its answer has no headers.
    pub(super) fn reply(&mut self, stream: u32) -> Bytes {
        let mut content = Vec::new();
        content.put_u32(stream);
        if !self.begun {
            // A compressor's header without a dictionary.
            content.extend_from_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        content.extend(stored(&0u32.to_be_bytes()));
        // An empty block hands over what came before.
        content.extend(stored(&[]));
        control(SYN_REPLY, &content)
    }

    pub(super) fn ping(id: u32) -> Bytes {
        control(PING, &id.to_be_bytes())
    }

    pub(super) fn data(stream: u32, bytes: &[u8], last: bool) -> Bytes {
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
