//! Over a WebSocket each message begins with the number of a channel (KEP-4006). Version 5 has beside
//! version 4 a message that closes a channel; version 1 tells of the end as text, and only if that was
//! no success.

use bytes::{Buf, Bytes};
use serde_json::Value;

use super::super::socket::framed;
use super::{Listen, Said, Speak, StreamType, V1, V5, text};

const STDIN: u8 = StreamType::Stdin as u8;
const RESIZE: u8 = StreamType::Resize as u8;
/// The channel of messages that close others.
const CLOSE: u8 = 255;

pub(super) struct Listener {
    closes: bool,
    came: Option<Bytes>,
}

pub(super) struct Speaker {
    plain: bool,
}

/// Both sides of a protocol.
pub(super) fn of(protocol: &str) -> (Listener, Speaker) {
    let listener = Listener {
        closes: protocol == V5,
        came: None,
    };
    let plain = protocol == V1;
    (listener, Speaker { plain })
}

impl Listen for Listener {
    fn put(&mut self, message: Bytes) {
        self.came = Some(message);
    }

    fn next(&mut self) -> Option<Said> {
        let mut content = self.came.take()?;
        let channel = content.try_get_u8().ok()?;
        match channel {
            STDIN => Some(Said::Input(content)),
            RESIZE => serde_json::from_slice(&content).ok().map(Said::Size),
            CLOSE if self.closes && *content == [STDIN] => Some(Said::InputEnds),
            _ => None,
        }
    }
}

impl Speak for Speaker {
    fn begin(&self) -> Option<Bytes> {
        self.output(StreamType::Stdout, &[])
    }

    fn output(&self, of: StreamType, bytes: &[u8]) -> Option<Bytes> {
        Some(framed(of as u8, bytes))
    }

    fn end(&self, status: &Value) -> Vec<Bytes> {
        let text = text(status, self.plain);
        let message = text.map(|text| framed(StreamType::Error as u8, text.as_bytes()));
        message.into_iter().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_runtime::streaming::TerminalSize;

    use super::*;

    #[test]
    fn channels_are_understood() {
        let input = || Some(Said::Input(Bytes::from_static(b"a")));
        let size = TerminalSize {
            width: 80,
            height: 24,
        };
        for (protocol, message, expected) in [
            (V5, &b"\0a"[..], input()),
            (V1, b"\0a", input()),
            (V5, b"\xff\0", Some(Said::InputEnds)),
            (V1, b"\xff\0", None),
            (V5, b"\xff\x01", None),
            (V5, b"4", None),
            (
                V5,
                b"\x04{\"Width\":80,\"Height\":24}",
                Some(Said::Size(size)),
            ),
            (V5, b"\x04{", None),
            (V5, b"\x01a", None),
            (V5, b"", None),
        ] {
            let (mut listener, _) = of(protocol);
            listener.put(Bytes::from_static(message));
            assert_eq!(listener.next(), expected, "{protocol} {message:?}");
            assert_eq!(listener.next(), None);
        }
    }
}
