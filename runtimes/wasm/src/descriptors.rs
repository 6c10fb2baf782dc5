//! Descriptors that travel beside the frames of the protocol.
//!
//! A descriptor is attached to the first byte of the frame that needs it (SCM_RIGHTS). The kernel
//! gives it to the read that takes that byte and never lets a read run past it into the next
//! message, and frames are read exactly: so what came while a frame was read belongs to it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use coracle_runtime::connection::receive_with;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

/// Reads a stream, and keeps the descriptors that came last.
pub(crate) struct DescriptorReader {
    stream: OwnedReadHalf,
    received: Vec<OwnedFd>,
}

impl DescriptorReader {
    pub(crate) fn new(stream: OwnedReadHalf) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// The descriptors that came with the frame that was just read.
    pub(crate) fn take(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.received)
    }
}

impl AsyncRead for DescriptorReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let stream: &UnixStream = this.stream.as_ref();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let received = stream.try_io(Interest::READABLE, || {
                receive_with(stream, buffer.initialize_unfilled())
            });
            match received {
                Ok((bytes, descriptors)) => {
                    buffer.advance(bytes);
                    if !descriptors.is_empty() {
                        this.received = descriptors;
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use coracle_runtime::connection::send_with;
    use coracle_runtime::frames;

    use super::*;

    #[tokio::test]
    async fn a_descriptor_arrives_with_its_frame_and_with_no_other() {
        let (near, far) = UnixStream::pair().unwrap();
        let (_reading, mut writer) = near.into_split();
        let (reading, _writer) = far.into_split();
        let mut reader = DescriptorReader::new(reading);
        let (mut pipe, end) = std::io::pipe().unwrap();
        // Larger than a socket's buffer, so that frames are sent and read in parts.
        let long = "x".repeat(1 << 20);
        let sending = async {
            frames::send(&mut writer, &"before").await.unwrap();
            send_with(&mut writer, &long, &[end.as_fd()]).await.unwrap();
            frames::send(&mut writer, &"after").await.unwrap();
        };
        let receiving = async {
            let mut got = Vec::new();
            for _ in 0..3 {
                let frame: String = frames::receive(&mut reader).await.unwrap().unwrap();
                got.push((frame, reader.take()));
            }
            got
        };
        let ((), mut got) = tokio::join!(sending, receiving);
        drop(end);
        let sent = ["before", &long, "after"];
        assert!(got.iter().map(|(frame, _)| frame.as_str()).eq(sent));
        let came: Vec<bool> = got
            .iter()
            .map(|(_, descriptors)| !descriptors.is_empty())
            .collect();
        assert_eq!(came, [false, true, false]);
        let descriptor = got.swap_remove(1).1.remove(0);
        std::fs::File::from(descriptor).write_all(b"hello").unwrap();
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
