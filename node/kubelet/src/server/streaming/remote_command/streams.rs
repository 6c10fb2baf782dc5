//! Over SPDY the client opens a stream for each that it has asked for, and one more for the end, by a
//! header with its type. Nothing begins before all are there.
//!
//! Version 4 tells of the end as JSON; those before it as text, and only if that was no success.
//! Streams for sizes of a terminal come with version 3. Version 1 is here what version 2 is: only
//! its mistakes were other ones.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use coracle_runtime::spdy::{Decoder, Encoder, Frame};
use coracle_runtime::streaming::TerminalSize;
use serde_json::Value;
use tokio::time::timeout;

use super::super::socket::{Incoming, Outgoing};
use super::{Asked, Listen, Said, Speak, StreamType, V1, V2, V4, text};

#[cfg(test)]
mod tests;

/// How long a client may take to open its streams (`DefaultStreamCreationTimeout`).
const CREATION: Duration = Duration::from_secs(30);
/// Bytes that it may send before it has, with what it costs to hold each piece of them.
const EARLY: usize = 2 << 20;
const PIECE: usize = 64;
/// Streams that a client may try to open; there are five to be had.
const TRIES: usize = 64;
/// Bytes of a size that is not said to its end.
const SIZE: usize = 1 << 10;

/// The numbers of the streams, by their types.
type Streams = [Option<u32>; 5];

pub(super) struct Listener {
    decoder: Decoder,
    encoder: Encoder,
    expected: [bool; 5],
    streams: Streams,
    tries: usize,
    /// Of sizes what is not said to its end; none once that was no size.
    sizes: Option<Vec<u8>>,
    said: VecDeque<Said>,
}

pub(super) struct Speaker {
    streams: Streams,
    plain: bool,
}

/// Both sides of a protocol, once the client has opened its streams; none if it does not.
pub(super) async fn opened(
    incoming: &mut Incoming,
    outgoing: &Outgoing,
    protocol: &str,
    asked: Asked,
) -> Option<(Listener, Speaker)> {
    let mut listener = Listener::new(protocol, asked);
    let opening = timeout(CREATION, open(&mut listener, incoming, outgoing));
    let Ok(opened) = opening.await else {
        tracing::debug!("timed out waiting for client to create streams");
        return None;
    };
    opened?;
    let speaker = Speaker {
        streams: listener.streams,
        plain: protocol != V4,
    };
    Some((listener, speaker))
}

async fn open(listener: &mut Listener, incoming: &mut Incoming, outgoing: &Outgoing) -> Option<()> {
    let (mut early, mut held) = (VecDeque::new(), 0);
    while !listener.is_complete() {
        let Some(said) = listener.next() else {
            listener.put(incoming.next().await?);
            continue;
        };
        match said {
            Said::Aside(answer) => {
                if !outgoing.send(answer).await {
                    return None;
                }
            }
            Said::Ends => return None,
            said => {
                held += PIECE;
                if let Said::Input(bytes) = &said {
                    held += bytes.len();
                }
                if held > EARLY {
                    return None;
                }
                early.push_back(said);
            }
        }
    }
    early.append(&mut listener.said);
    listener.said = early;
    Some(())
}

impl StreamType {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "stdin" => Self::Stdin,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "error" => Self::Error,
            "resize" => Self::Resize,
            _ => return None,
        })
    }
}

impl Listener {
    fn new(protocol: &str, asked: Asked) -> Self {
        let Asked { wanted, terminal } = asked;
        let resizes = terminal && ![V1, V2].contains(&protocol);
        Self {
            decoder: Decoder::new(),
            encoder: Encoder::default(),
            expected: [wanted.stdin, wanted.stdout, wanted.stderr, true, resizes],
            streams: Streams::default(),
            tries: 0,
            sizes: Some(Vec::new()),
            said: VecDeque::new(),
        }
    }

    fn is_complete(&self) -> bool {
        let mut streams = self.expected.iter().zip(&self.streams);
        streams.all(|(expected, stream)| !expected || stream.is_some())
    }

    /// Whether a stream is the one of that type.
    fn is(&self, stream: u32, of: StreamType) -> bool {
        self.streams[of as usize] == Some(stream)
    }

    fn hear(&mut self, frame: Frame) {
        match frame {
            Frame::Open {
                stream,
                headers,
                last,
            } => {
                self.tries += 1;
                if self.tries > TRIES {
                    self.said.push_back(Said::Ends);
                    return;
                }
                let name = headers.get("streamtype").map_or("", String::as_str);
                let free = |of: &StreamType| {
                    let index = *of as usize;
                    self.expected[index] && self.streams[index].is_none()
                };
                let known = self.streams.contains(&Some(stream));
                let of = StreamType::named(name).filter(|of| !known && free(of));
                let Some(of) = of else {
                    let answer = Encoder::reset(stream);
                    self.said.push_back(Said::Aside(answer));
                    return;
                };
                self.streams[of as usize] = Some(stream);
                let answer = self.encoder.reply(stream);
                self.said.push_back(Said::Aside(answer));
                if last && of == StreamType::Stdin {
                    self.said.push_back(Said::InputEnds);
                }
            }
            Frame::Data {
                stream,
                bytes,
                last,
            } => {
                if self.is(stream, StreamType::Stdin) {
                    if !bytes.is_empty() {
                        self.said.push_back(Said::Input(bytes));
                    }
                    if last {
                        self.said.push_back(Said::InputEnds);
                    }
                } else if self.is(stream, StreamType::Resize) {
                    self.resized(&bytes);
                }
            }
            // What is sent to one that was reset the client ignores.
            Frame::Reset { stream } => {
                if self.is(stream, StreamType::Stdin) {
                    self.said.push_back(Said::InputEnds);
                }
            }
            // An even one is the answer to one of ours.
            Frame::Ping { id } if id % 2 == 1 => {
                self.said.push_back(Said::Aside(Encoder::ping(id)));
            }
            Frame::GoAway => self.said.push_back(Said::Ends),
            Frame::Ping { .. } | Frame::Other => {}
        }
    }

    /// Takes bytes of sizes, which follow each other; the latest counts.
    fn resized(&mut self, bytes: &[u8]) {
        let Some(came) = &mut self.sizes else { return };
        came.extend_from_slice(bytes);
        let (latest, broken, understood) = {
            let mut sizes = serde_json::Deserializer::from_slice(came).into_iter::<TerminalSize>();
            let mut latest = None;
            let broken = loop {
                match sizes.next() {
                    Some(Ok(size)) => latest = Some(size),
                    Some(Err(error)) => break !error.is_eof(),
                    None => break false,
                }
            };
            (latest, broken, sizes.byte_offset())
        };
        came.drain(..understood);
        if broken || came.len() > SIZE {
            self.sizes = None;
        }
        self.said.extend(latest.map(Said::Size));
    }
}

impl Listen for Listener {
    fn put(&mut self, message: Bytes) {
        self.decoder.put(&message);
    }

    fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            match self.decoder.next() {
                Ok(frame) => self.hear(frame?),
                Err(error) => {
                    tracing::debug!(%error, "a client speaks no SPDY");
                    return Some(Said::Ends);
                }
            }
        }
    }
}

impl Speak for Speaker {
    fn begin(&self) -> Option<Bytes> {
        None
    }

    fn output(&self, of: StreamType, bytes: &[u8]) -> Option<Bytes> {
        self.streams[of as usize].map(|stream| Encoder::data(stream, bytes, false))
    }

    /// The status comes before outputs end: clients of version 1 do not wait for it.
    fn end(&self, status: &Value) -> Vec<Bytes> {
        let stream = |of: StreamType| self.streams[of as usize];
        let unheard = [StreamType::Stdin, StreamType::Resize];
        let ended = [StreamType::Stdout, StreamType::Stderr, StreamType::Error];
        let text = text(status, self.plain);
        let told = text.and_then(|text| self.output(StreamType::Error, text.as_bytes()));
        let resets = unheard.into_iter().filter_map(stream).map(Encoder::reset);
        let ends = ended.into_iter().filter_map(stream);
        let ends = ends.map(|stream| Encoder::data(stream, &[], true));
        resets.chain(told).chain(ends).collect()
    }
}
