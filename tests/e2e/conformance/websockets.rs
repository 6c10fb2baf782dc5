//! test/e2e/common/node/pods.go: commands and logs over WebSockets, through kubectl's proxy, which
//! spares the test TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::shared::{IDLE, Place, place};
use crate::cluster::{Background, DEADLINE, eventually};

/// A proxy to the API server: where it listens.
fn proxy(place: &Place) -> (Background, String) {
    let output = place
        .cluster
        .folder()
        .join(format!("{}-proxy", place.namespace));
    let arguments = ["proxy", "--port=0", "--reject-paths=^$"];
    let running = place.spawn(&arguments, &output);
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
fn messages(address: &str, path: &str, protocol: &str) -> Vec<(u8, Vec<u8>)> {
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

/// Must: what a command prints comes as messages of a WebSocket.
#[test]
fn pods_should_support_remote_command_execution_over_websockets() {
    let Some(place) = place() else { return };
    place.script("remote", IDLE);
    place.wait_ready(&["remote"]);
    let (_running, address) = proxy(&place);
    let path = format!(
        "/api/v1/namespaces/{}/pods/remote/exec?command=echo&command=remote+execution+test\
         &stdout=1&stderr=1&container=main",
        place.namespace
    );
    let messages = messages(&address, &path, "v4.channel.k8s.io");
    // The first byte names the stream: 1 is the standard output, 2 the other, and 3 has the outcome.
    let of = |stream: u8| {
        let of = messages
            .iter()
            .filter(|(_, bytes)| bytes.first() == Some(&stream));
        let bytes: Vec<u8> = of.flat_map(|(_, bytes)| bytes[1..].to_vec()).collect();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(of(1), "remote execution test\n");
    assert_eq!(of(2), "");
    assert!(of(3).contains(r#""status":"Success""#), "{}", of(3));
}

/// Must: the log of a container comes as messages of a WebSocket.
#[test]
fn pods_should_support_retrieving_logs_from_the_container_over_websockets() {
    let Some(place) = place() else { return };
    place.script("says", &format!("echo container is alive; {IDLE}"));
    place.wait_ready(&["says"]);
    eventually("the log", || {
        let said = place.ok(&["logs", "says"]);
        if said.is_empty() { Err(said) } else { Ok(()) }
    });
    let (_running, address) = proxy(&place);
    let path = format!(
        "/api/v1/namespaces/{}/pods/says/log?container=main",
        place.namespace
    );
    let bytes = messages(&address, &path, "binary.k8s.io");
    assert!(bytes.iter().all(|(kind, _)| *kind == 2), "{bytes:?}");
    assert_eq!(
        bytes
            .into_iter()
            .flat_map(|(_, piece)| piece)
            .collect::<Vec<_>>(),
        b"container is alive\n"
    );
    let texts = messages(&address, &path, "base64.binary.k8s.io");
    assert!(texts.iter().all(|(kind, _)| *kind == 1), "{texts:?}");
    let decoded = texts
        .iter()
        .flat_map(|(_, text)| STANDARD.decode(text).unwrap());
    assert_eq!(decoded.collect::<Vec<_>>(), b"container is alive\n");
}
