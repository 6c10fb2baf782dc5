//! WebSockets of the API, through kubectl's proxy, which spares whoever speaks them TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::{Background, DEADLINE, Kubectl, eventually};

/// A proxy to the API server that prints to this file: where it listens.
pub(crate) fn proxy(kubectl: &Kubectl, output: &Path) -> (Background, String) {
    let running = kubectl.spawn(&["proxy", "--port=0", "--reject-paths=^$"], output);
    let address = eventually("the proxy", || {
        let printed = running.printed();
        let address = printed.trim().strip_prefix("Starting to serve on ");
        address.map(str::to_owned).ok_or(printed)
    });
    (running, address)
}

/// A message of a WebSocket (RFC 6455): its kind, 1 for text, 2 for bytes and 8 for the end.
fn message(stream: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let mut size = u64::from(head[1] & 0x7f);
    if size == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long)?;
        size = u64::from(u16::from_be_bytes(long));
    }
    assert!(size < 127, "nothing here is as long");
    let mut payload = vec![0; usize::try_from(size).unwrap()];
    stream.read_exact(&mut payload)?;
    Ok((head[0] & 0xf, payload))
}

/// Opens a WebSocket of a protocol, and reads messages until it ends.
pub(crate) fn messages(address: &str, path: &str, protocol: &str) -> Vec<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    .unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let chosen = format!("sec-websocket-protocol: {protocol}\r\n");
    assert!(head.to_lowercase().contains(&chosen), "{head}");
    let mut all = Vec::new();
    loop {
        match message(&mut stream) {
            Ok((8, _)) => return all,
            Ok(message) => all.push(message),
            Err(error) => panic!("{error} after {all:?}"),
        }
    }
}
