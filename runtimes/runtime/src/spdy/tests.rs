#![allow(clippy::unwrap_used)]

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;

/// A frame that opens a stream, as a client's compressor writes it, which was given no dictionary.
fn open(compress: &mut Compress, stream: u32, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    text.put_u32(headers.len() as u32);
    for (name, value) in headers {
        for word in [name, value] {
            text.put_u32(word.len() as u32);
            text.extend_from_slice(word.as_bytes());
        }
    }
    let mut content = Vec::with_capacity(4096);
    content.put_u32(stream);
    content.put_u32(0);
    content.put_u16(0);
    compress
        .compress_vec(&text, &mut content, FlushCompress::Sync)
        .unwrap();
    control(SYN_STREAM, &content).to_vec()
}

fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Frame> {
    decoder.put(bytes);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

#[test]
fn headers_are_of_one_sequence() {
    let mut compress = Compress::new(Compression::best(), true);
    let mut decoder = Decoder::new();
    for stream in [1, 3, 5] {
        let headers = [("Streamtype", "data"), ("port", "8080")];
        let frames = decode(&mut decoder, &open(&mut compress, stream, &headers));
        let expected = [("streamtype", "data"), ("port", "8080")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = Frame::Open {
            stream,
            headers: expected.into(),
            last: false,
        };
        assert_eq!(frames, [expected]);
    }
}

/// Headers as zlib packs them with the dictionary, to which most of them refer.
const PACKED: [u8; 56] = [
    0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0x25, 0x6f, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc,
    0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0, 0x80, 0x86, 0x14, 0xcb, 0x45, 0xa0, 0x24, 0xcc, 0x64, 0x61,
    0x00, 0x24, 0x39, 0x8b, 0x20, 0x91, 0x98, 0x09, 0x4a, 0xdc, 0x8c, 0x06, 0x58, 0xca, 0x20, 0x4e,
    0x78, 0x50, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff,
];

#[test]
fn the_dictionary_is_known() {
    let mut decoder = Decoder::new();
    let headers = decoder.headers(&PACKED).unwrap();
    let expected = [
        ("streamtype", "error"),
        ("port", "80"),
        ("requestid", "0"),
        ("content-type", "text/html"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(headers, BTreeMap::from(expected));
}

#[test]
fn streams_that_we_open_are_understood() {
    let mut encoder = Encoder::default();
    let mut decoder = Decoder::new();
    for (stream, kind) in [(1, "error"), (3, "stdout")] {
        let frames = decode(&mut decoder, &encoder.open(stream, &[("streamtype", kind)]));
        let expected = Frame::Open {
            stream,
            headers: [("streamtype".to_owned(), kind.to_owned())].into(),
            last: false,
        };
        assert_eq!(frames, [expected]);
    }
}

#[test]
fn frames_are_taken_as_they_come() {
    let wire = [
        Encoder::data(1, b"one", false),
        Encoder::ping(7),
        Encoder::data(1, b"", true),
        Encoder::default().reply(3),
        Encoder::reset(3),
    ];
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for byte in wire.concat() {
        frames.extend(decode(&mut decoder, &[byte]));
    }
    let data = |bytes: &'static [u8], last| Frame::Data {
        stream: 1,
        bytes: Bytes::from_static(bytes),
        last,
    };
    let expected = [
        data(b"one", false),
        Frame::Ping { id: 7 },
        data(b"", true),
        // Our own compressor's blocks can be unpacked.
        Frame::Other,
        Frame::Reset { stream: 3 },
    ];
    assert_eq!(frames, expected);
}

#[test]
fn what_is_no_frame_is_refused() {
    let mut decoder = Decoder::new();
    decoder.put(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]);
    assert_eq!(decoder.next(), Err(SpdyError::TooLong(0xff_ffff)));
    let mut decoder = Decoder::new();
    decoder.put(&control(PING, &[1]));
    assert_eq!(decoder.next(), Err(SpdyError::Short(PING)));
    let mut compress = Compress::new(Compression::best(), true);
    let bomb = "x".repeat(MAX_HEADERS * 2);
    let mut decoder = Decoder::new();
    decoder.put(&open(&mut compress, 1, &[("a", &bomb)]));
    assert_eq!(decoder.next(), Err(SpdyError::Headers));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::new();
        decoder.put(&bytes);
        while let Ok(Some(_)) = decoder.next() {}
    }

    #[test]
    fn garbage_for_headers_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut content = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
        content.extend(bytes);
        let mut decoder = Decoder::new();
        decoder.put(&control(SYN_STREAM, &content));
        while let Ok(Some(_)) = decoder.next() {}
    }
}
