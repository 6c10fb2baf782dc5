//! Exec, attach and port-forward in SPDY/3.1 without a WebSocket, as client-go's SPDY executor and
//! older kubectls ask for them.

use std::collections::BTreeMap;

use bytes::Bytes;
use coracle_runtime::fake::Behaviour;
use coracle_runtime::spdy::{Decoder, Encoder, Frame};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use super::streaming::Node;

/// The client's end of a connection.
struct Client {
    stream: TlsStream<TcpStream>,
    encoder: Encoder,
    decoder: Decoder,
}

impl Client {
    async fn new(node: &Node, path: &str, protocol: &str) -> Self {
        let (head, stream) = ask(node, path, protocol).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let told = format!("\r\nx-stream-protocol-version: {protocol}\r\n");
        assert!(head.contains(&told), "{head}");
        Self {
            stream,
            encoder: Encoder::default(),
            decoder: Decoder::new(),
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let frame = self.encoder.open(stream, headers);
        self.send(frame).await;
    }

    async fn send(&mut self, frame: Bytes) {
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next frame; none at the connection's end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Some(frame);
            }
            let mut came = [0; 1024];
            match self.stream.read(&mut came).await.unwrap_or_default() {
                0 => return None,
                read => self.decoder.put(&came[..read]),
            }
        }
    }

    /// What comes in streams until these have ended.
    async fn all(&mut self, streams: &[u32]) -> BTreeMap<u32, String> {
        let mut said: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut open = streams.to_vec();
        while !open.is_empty() {
            let frame = self.next().await.unwrap();
            if let Frame::Data {
                stream,
                bytes,
                last,
            } = frame
            {
                said.entry(stream).or_default().extend(&bytes);
                open.retain(|of| *of != stream || !last);
            }
        }
        let texts = said.into_iter();
        let texts = texts.map(|(stream, bytes)| (stream, String::from_utf8(bytes).unwrap()));
        texts.collect()
    }
}

/// Asks for an upgrade, by POST, as clients of SPDY do: the head of the answer, and what follows.
async fn ask(node: &Node, path: &str, protocols: &str) -> (String, TlsStream<TcpStream>) {
    let headers = format!(
        "upgrade: SPDY/3.1\r\nx-stream-protocol-version: {protocols}\r\ncontent-length: 0\r\n"
    );
    node.upgraded(&format!("POST {path}"), &headers).await
}

#[tokio::test]
async fn a_command_has_its_streams_and_its_end() {
    let node = Node::new(Behaviour::default()).await;
    for (code, protocol) in [
        ("3", "v4.channel.k8s.io"),
        ("0", "v4.channel.k8s.io"),
        ("3", "v3.channel.k8s.io"),
        ("0", "v2.channel.k8s.io"),
        ("3", "channel.k8s.io"),
    ] {
        let path = format!("/exec/ns/web/main?command=a&command={code}&input=1&output=1&tty=1");
        let mut client = Client::new(&node, &path, protocol).await;
        client.open(1, &[("streamType", "error")]).await;
        client.open(3, &[("streamType", "stdin")]).await;
        // The process hears it, though it has not begun.
        client.send(Encoder::data(3, b" heard", false)).await;
        client.open(5, &[("streamType", "stdout")]).await;
        let sizes = !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
        if sizes {
            client.open(7, &[("streamType", "resize")]).await;
            let size = br#"{"Width":80,"Height":24}"#;
            client.send(Encoder::data(7, size, false)).await;
        }
        client.send(Encoder::data(3, b"", true)).await;
        let said = client.all(&[1, 5]).await;
        assert_eq!(said[&5], format!("a {code} heard"), "{protocol}");
        match (protocol, code) {
            ("v4.channel.k8s.io", "0") => {
                let status: Value = serde_json::from_str(&said[&1]).unwrap();
                assert_eq!(status["status"], "Success");
            }
            ("v4.channel.k8s.io", _) => {
                let status: Value = serde_json::from_str(&said[&1]).unwrap();
                assert_eq!(status["reason"], "NonZeroExitCode");
                let cause = &status["details"]["causes"][0];
                assert_eq!(*cause, json!({"reason": "ExitCode", "message": code}));
            }
            (_, "0") => assert_eq!(said[&1], ""),
            _ => {
                let expected = "command terminated with non-zero exit code: exit status 3";
                assert_eq!(said[&1], expected, "{protocol}");
            }
        }
    }
    node.kubelet.stop().await;
}

#[tokio::test]
async fn those_who_attach_hear_the_end() {
    let node = Node::new(Behaviour::default()).await;
    let path = "/attach/ns/web/main?input=1&output=1";
    let mut client = Client::new(&node, path, "v4.channel.k8s.io").await;
    for (stream, of) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(stream, &[("streamType", of)]).await;
    }
    client.send(Encoder::data(3, b"echo", false)).await;
    let mut heard: Vec<u8> = Vec::new();
    while heard != b"echo" {
        if let Frame::Data { bytes, .. } = client.next().await.unwrap() {
            heard.extend(&bytes);
        }
    }
    // Pings are answered, whatever the process does.
    client.send(Encoder::ping(7)).await;
    while client.next().await.unwrap() != (Frame::Ping { id: 7 }) {}
    let container = node.world.runtime.container("main").unwrap();
    node.world.runtime.exit(&container.id, 7, "Error", "");
    let said = client.all(&[1, 5]).await;
    let status: Value = serde_json::from_str(&said[&1]).unwrap();
    assert_eq!(status["status"], "Success");
    node.kubelet.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_the_upgrade() {
    let node = Node::new(Behaviour::default()).await;
    let exec = "/exec/ns/web/main?command=a&output=1";
    let (head, _) = ask(&node, exec, "v5.channel.k8s.io").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    for known in ["v4", "v3", "v2"] {
        let told = format!("x-accepted-stream-protocol-versions: {known}.channel.k8s.io\r\n");
        assert!(head.contains(&told), "{head}");
    }
    for (path, headers, code) in [
        (exec, "upgrade: SPDY/3.1\r\n", "400"),
        (
            exec,
            "upgrade: SPDY/2\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n",
            "400",
        ),
        (
            "/portForward/ns/web",
            "upgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n",
            "403",
        ),
        (
            "/exec/ns/none/main?command=a&output=1",
            "upgrade: SPDY/3.1\r\nx-stream-protocol-version: v4.channel.k8s.io\r\n",
            "404",
        ),
    ] {
        let (head, _) = node.upgraded(&format!("GET {path}"), headers).await;
        assert_eq!(head.split(' ').nth(1), Some(code), "{path} {headers}");
    }
    node.kubelet.stop().await;
}

#[tokio::test]
async fn ports_are_forwarded() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    let node = Node::new(listens).await;
    let path = "/portForward/ns/web";
    let mut client = Client::new(&node, path, "portforward.k8s.io").await;
    let port = port.to_string();
    // Old clients give their connections no numbers.
    for (errors, request) in [(1, Some("0")), (5, None)] {
        let data = errors + 2;
        for (stream, of) in [(errors, "error"), (data, "data")] {
            let mut headers = vec![("streamType", of), ("port", &*port)];
            headers.extend(request.map(|request| ("requestID", request)));
            client.open(stream, &headers).await;
        }
        client.send(Encoder::data(data, b"ask", true)).await;
        let (mut served, _) = server.accept().await.unwrap();
        let mut asked = String::new();
        served.read_to_string(&mut asked).await.unwrap();
        served.write_all(b"answer").await.unwrap();
        drop(served);
        let said = client.all(&[errors, data]).await;
        assert_eq!((&*asked, &*said[&data]), ("ask", "answer"));
        assert_eq!(said[&errors], "");
    }
    for (stream, of) in [(9, "error"), (11, "data")] {
        let headers = [("streamType", of), ("port", "1"), ("requestID", "2")];
        client.open(stream, &headers).await;
    }
    let said = client.all(&[9, 11]).await;
    assert!(
        said[&9].contains("error forwarding port 1 to pod web"),
        "{said:?}"
    );
    // It goes on for as long as the client does.
    client.send(Encoder::ping(7)).await;
    assert_eq!(client.next().await, Some(Frame::Ping { id: 7 }));
    node.kubelet.stop().await;
}
