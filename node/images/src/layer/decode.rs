//! The bytes of an archive behind its compression: bounded, and digested while they pass.
//!
//! The first bytes tell the compression, as in other runtimes: tools that label layers wrongly
//! are old and many.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::{Digest, Hasher};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Frames that hold no content have numbers from 0x184d2a50 to 0x184d2a5f, little endian.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// A layer's archive.
pub(super) struct Decoded<'a> {
    inner: Box<dyn Read>,
    most: u64,
    left: u64,
    budget: &'a mut u64,
    hasher: Hasher,
}

impl<'a> Decoded<'a> {
    /// Reads a blob; of what it holds no more than `most` bytes, and no more than `budget`, of which
    /// they are taken.
    pub(super) fn new(file: File, most: u64, budget: &'a mut u64) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(64 << 10, file);
        let start = file.fill_buf()?;
        let skippable = start.get(1..4) == Some(ZSTD_SKIPPABLE) && start[0] & 0xf0 == 0x50;
        let inner: Box<dyn Read> = if start.starts_with(GZIP) {
            Box::new(flate2::bufread::MultiGzDecoder::new(file))
        } else if start.starts_with(ZSTD) || skippable {
            Box::new(Zstd::new(file))
        } else {
            Box::new(file)
        };
        Ok(Self {
            inner,
            most,
            left: most,
            budget,
            hasher: Hasher::default(),
        })
    }

    /// The digest of what was read.
    pub(super) fn digest(self) -> Digest {
        self.hasher.finish()
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let too_large = |what: String| io::Error::new(io::ErrorKind::FileTooLarge, what);
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            too_large(format!(
                "a layer unpacks to more than {} bytes, where one of its size is allowed no more \
                 (a decompression bomb)",
                self.most
            ))
        })?;
        *self.budget = self.budget.checked_sub(n as u64).ok_or_else(|| {
            too_large("the image's layers are larger than allowed when unpacked".into())
        })?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// A stream of zstd: frames one after the other, some of which hold no content.
struct Zstd<R> {
    source: R,
    frame: FrameDecoder,
    open: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            frame: FrameDecoder::new(),
            open: false,
        }
    }

    /// Opens the next frame with content; false at the end of the stream.
    fn next(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(u64::from(length));
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.open {
                self.open = self.next()?;
                if !self.open {
                    return Ok(0);
                }
            }
            if self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let some = BlockDecodingStrategy::UptoBlocks(1);
                self.frame
                    .decode_blocks(&mut self.source, some)
                    .map_err(|error| io::Error::other(error.to_string()))?;
            }
            let n = self.frame.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            self.open = !self.frame.is_finished();
        }
    }
}
