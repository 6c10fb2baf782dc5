//! Watches and logs over WebSockets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_apimachinery::{cbor, protobuf};
use futures::{SinkExt, StreamExt};
use http::Request;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_key};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::{Api, CONFIG_MAPS, DEADLINE, PODS, pod};
use crate::kinds::tokens::{account, token};
use crate::tls::{Served, connect, serve};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn open(
    served: &Served,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(Socket, Response), Error> {
    let admin = served.ca.sign("admin", &["system:masters"], &[]);
    let stream = connect(served, Some(admin), false).await?;
    shake_hands(served, stream, path, headers).await
}

async fn shake_hands(
    served: &Served,
    stream: TlsStream<TcpStream>,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(Socket, Response), Error> {
    let mut request = Request::get(path)
        .header("host", served.address.to_string())
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.uri(format!("wss://{}{path}", served.address));
    tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await
}

async fn next(socket: &mut Socket) -> Message {
    let message = tokio::time::timeout(DEADLINE, socket.next()).await;
    message
        .expect("a message in time")
        .expect("a message")
        .unwrap()
}

/// The type and the object of an event in a message.
fn event(message: &Message, accept: &str) -> (String, Value) {
    let json: Value = match message {
        Message::Text(text) => serde_json::from_str(text).unwrap(),
        Message::Binary(bytes) if accept.contains("cbor") => {
            serde_json::from_slice(&cbor::to_json(bytes, 1 << 20).unwrap()).unwrap()
        }
        Message::Binary(bytes) => {
            // A message has its own length: the event begins with its type.
            let length = usize::from(bytes[1]);
            assert_eq!(bytes[0], 0x0a);
            let name = String::from_utf8(bytes[2..2 + length].to_vec()).unwrap();
            let start = bytes.windows(4).position(|four| four == b"k8s\0").unwrap();
            let object = protobuf::to_json(&bytes[start..], 1 << 20).unwrap();
            return (name, serde_json::from_slice(&object).unwrap());
        }
        other => panic!("{other:?}"),
    };
    (
        json["type"].as_str().unwrap().to_owned(),
        json["object"].clone(),
    )
}

#[tokio::test]
async fn a_watch_is_a_socket_in_every_format() {
    let api = Api::new().await;
    let served = serve(&api).await;
    for (name, accept) in [
        ("json", "application/json"),
        ("protobuf", protobuf::MEDIA_TYPE),
        ("cbor", cbor::WATCH_MEDIA_TYPE),
    ] {
        let created = api.config_map(name).await;
        let path = format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3D{name}");
        let (mut socket, _) = open(&served, &path, &[("accept", accept)]).await.unwrap();
        let added = event(&next(&mut socket).await, accept);
        assert_eq!(added, ("ADDED".to_owned(), created), "{accept}");
        // What a client says is not heard, but for its pings and its end.
        socket.send(Message::Text("hello".into())).await.unwrap();
        socket.send(Message::Ping("a".into())).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::Pong("a".into()));
        api.delete(&format!("{CONFIG_MAPS}/{name}")).await.ok(200);
        assert_eq!(event(&next(&mut socket).await, accept).0, "DELETED");
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_socket_ends_with_its_watch_and_with_the_server() {
    let api = Api::new().await;
    let served = serve(&api).await;
    let path = format!("{CONFIG_MAPS}?watch=1");
    let code = |message: Message| match message {
        Message::Close(Some(frame)) => frame.code,
        other => panic!("{other:?}"),
    };
    let (mut short, _) = open(&served, &format!("{path}&timeoutSeconds=1"), &[])
        .await
        .unwrap();
    assert_eq!(code(next(&mut short).await), CloseCode::Normal);
    let (mut socket, answer) = open(
        &served,
        &path,
        &[(
            "sec-websocket-protocol",
            "base64url.bearer.authorization.k8s.io.eA, v1",
        )],
    )
    .await
    .unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "v1");
    served.cancel.cancel();
    assert_eq!(code(next(&mut socket).await), CloseCode::Away);
    served.task.await.unwrap().unwrap();
}

/// What a log's messages are is shown end to end: nothing has run here.
#[tokio::test]
async fn a_log_is_a_socket_of_a_protocol_that_is_known() {
    let api = Api::new().await;
    api.post(PODS, &pod("one")).await.ok(201);
    let served = serve(&api).await;
    let path = format!("{PODS}/one/log");
    for protocol in ["", "binary.k8s.io", "base64.binary.k8s.io"] {
        let offered = [("sec-websocket-protocol", protocol)];
        let offered = &offered[usize::from(protocol.is_empty())..];
        let (mut socket, answer) = open(&served, &path, offered).await.unwrap();
        let chosen = answer.headers().get("sec-websocket-protocol");
        assert_eq!(chosen.map_or("", |name| name.to_str().unwrap()), protocol);
        match next(&mut socket).await {
            Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Normal),
            other => panic!("{other:?}"),
        }
    }
    let unknown = [("sec-websocket-protocol", "channel.k8s.io")];
    match open(&served, &path, &unknown).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 400),
        other => panic!("{:?}", other.map(|(_, response)| response)),
    }
}

#[tokio::test]
async fn handshakes_that_are_refused() {
    let api = Api::new().await;
    let served = serve(&api).await;
    let refused =
        async |path: &str, headers: &[(&str, &str)], code: u16| match open(&served, path, headers)
            .await
        {
            Err(Error::Http(response)) => assert_eq!(response.status(), code, "{path} {headers:?}"),
            other => panic!("{:?}", other.map(|(_, response)| response)),
        };
    let watch = &format!("{CONFIG_MAPS}?watch=1");
    refused(watch, &[("accept", "application/yaml")], 406).await;
    refused(&format!("{watch}&resourceVersion=x"), &[], 400).await;
    refused("/api/v1/nothings?watch=1", &[], 404).await;
    // What is no watch is answered as always.
    refused(CONFIG_MAPS, &[], 200).await;
    // In the process there is no connection to upgrade, and half a handshake is none.
    for (name, value) in [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ] {
        let mut request = Request::get(watch.as_str())
            .header("connection", "upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-version", "8");
        request = request.header(name, value);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let message = api.request(request).await.fails(400, "BadRequest");
        assert!(message.starts_with("websocket: "), "{message}");
    }
}

#[tokio::test]
async fn a_token_may_come_as_a_protocol() {
    let api = Api::new().await;
    let served = serve(&api).await;
    account(&api, "robot").await;
    let token = token(&api, "robot", &json!({})).await;
    let token = format!(
        "base64url.bearer.authorization.k8s.io.{}",
        URL_SAFE_NO_PAD.encode(token)
    );
    let path = format!("{CONFIG_MAPS}?watch=1");
    for (protocols, code) in [
        // Who asks is known, and may not.
        (format!("v1, {token}"), 403),
        // The server has no protocol to choose.
        (token.clone(), 401),
        (format!("v1, {token}x"), 401),
    ] {
        let stream = connect(&served, None, false).await.unwrap();
        let headers = [("sec-websocket-protocol", &*protocols)];
        let refused = shake_hands(&served, stream, &path, &headers).await;
        let Err(Error::Http(answer)) = refused else {
            panic!("{protocols}: {refused:?}");
        };
        assert_eq!(answer.status(), code, "{protocols}");
    }
}
