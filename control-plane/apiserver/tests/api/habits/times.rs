//! Times and bounds: clients that are slow, half-open or greedy are ended.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use coracle_store::MemoryStore;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{Api, CONFIG_MAPS, DEADLINE};
use crate::tls::{Served, serve};

const SHORT: Duration = Duration::from_millis(300);

/// A server in a hurry.
async fn hasty() -> (Api, Served) {
    let api = Api::over(MemoryStore::new(), |config| {
        config.request_timeout = SHORT;
        config.connections.handshake = SHORT;
        config.connections.headers = SHORT;
        config.connections.stall = SHORT;
        config.connections.ping_after = SHORT;
        config.connections.ping_timeout = SHORT;
    });
    let api = api.await;
    let served = serve(&api).await;
    (api, served)
}

pub(super) async fn connect(served: &Served, protocol: &[u8]) -> TlsStream<TcpStream> {
    let admin = served.ca.sign("admin", &["system:masters"], &[]);
    let mut config = served.ca.client(Some(admin));
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

/// Reads until the server ends the connection, in whatever way.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    match read.expect("the server ends the connection") {
        Ok(_) => {}
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ),
            "{error}"
        ),
    }
    bytes
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_ended() {
    let (_api, served) = hasty().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    assert!(rest(&mut stream).await.is_empty());
}

#[tokio::test]
async fn headers_that_do_not_come_end_the_connection() {
    let (_api, served) = hasty().await;
    let mut stream = connect(&served, b"http/1.1").await;
    stream
        .write_all(b"GET /api HTTP/1.1\r\nhost: a\r\nx-s")
        .await
        .unwrap();
    let answer = rest(&mut stream).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_timeout() {
    let (_api, served) = hasty().await;
    let mut stream = connect(&served, b"http/1.1").await;
    let head = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"meta"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = String::from_utf8(rest(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("\"reason\":\"Timeout\""), "{answer}");
}

#[tokio::test]
async fn a_client_of_http2_that_answers_no_ping_is_ended() {
    let (_api, served) = hasty().await;
    let mut stream = connect(&served, b"h2").await;
    // The preface and empty settings: and then nothing, not even the answer to a ping.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let frames = rest(&mut stream).await;
    // Type 6 is a ping, with eight bytes.
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0];
    assert!(frames.windows(9).any(|window| window == ping), "{frames:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_ended() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.connections.stall = SHORT
    });
    let api = api.await;
    let served = serve(&api).await;
    for i in 0..40 {
        let body =
            json!({"metadata": {"name": format!("c{i}")}, "data": {"a": "x".repeat(500_000)}});
        api.post(CONFIG_MAPS, &body).await.ok(201);
    }
    for (verb, query) in [("LIST", ""), ("WATCH", "?watch=1")] {
        let mut stream = connect(&served, b"http/1.1").await;
        let head = format!("GET {CONFIG_MAPS}{query} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // It is over for the server, though nothing has been read.
        let counted = format!("apiserver_request_total{{verb=\"{verb}\"");
        let over = async {
            while !api.get("/metrics").await.text.contains(&counted) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, over).await.unwrap();
        let read = rest(&mut stream).await;
        assert!(read.starts_with(b"HTTP/1.1 200"));
        assert!(!read.ends_with(b"0\r\n\r\n"), "it is not whole");
    }
}

#[tokio::test]
async fn a_request_takes_no_longer_than_it_says() {
    let api = Api::new().await;
    for (query, code) in [
        ("timeout=10s", 200),
        ("timeout=0s", 200),
        ("timeout=soon", 400),
        ("timeout=5", 400),
    ] {
        let answer = api.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(answer.code, code, "{query}");
    }
    // A body that does not come.
    let (_sender, body) = tokio::io::duplex(8);
    let body = axum::body::Body::from_stream(tokio_util::io::ReaderStream::new(body));
    let path = format!("{CONFIG_MAPS}?timeout=50ms");
    let answer = api
        .raw(http::Method::POST, &path, "application/json", body)
        .await;
    let message = answer.fails(504, "Timeout");
    assert!(message.contains("did not complete"), "{message}");
}

#[tokio::test]
async fn watches_end_between_once_and_twice_their_least_time() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.min_request_timeout = SHORT;
    });
    let api = api.await;
    for query in ["watch=1", "watch=1&timeoutSeconds=0"] {
        let began = std::time::Instant::now();
        let mut watch = api.watch(&format!("{CONFIG_MAPS}?{query}")).await;
        assert!(watch.event().await.is_none());
        assert!(began.elapsed() >= SHORT);
    }
}
