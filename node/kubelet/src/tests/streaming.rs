//! Exec, attach and port-forward as the API server asks for them, over a fake runtime.

use std::sync::Arc;

use coracle_runtime::fake::Behaviour;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};

use super::serving::{Authority, serve};
use super::world::{Running, World, is_ready, path};

type Client = WebSocketStream<TlsStream<TcpStream>>;

/// A kubelet with a Pod `web` whose container `main` runs.
pub(super) struct Node {
    pub(super) world: World,
    pub(super) kubelet: Running,
    authority: Authority,
    port: u16,
}

impl Node {
    pub(super) async fn new(behaviour: Behaviour) -> Self {
        let world = World::new();
        world.runtime.behave("main", behaviour);
        let authority = Authority::new();
        let (kubelet, port) = serve(&world, &authority).await;
        world.pod("web", json!({}), json!({}));
        let api = &world.api;
        api.object(&path("web"), "web is ready", is_ready).await;
        Self {
            world,
            kubelet,
            authority,
            port,
        }
    }

    async fn stream(&self) -> TlsStream<TcpStream> {
        let identity = self.authority.issue("apiserver", "x");
        let config = self.authority.client(Some(identity));
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let connected = connector.connect("node".try_into().unwrap(), stream).await;
        connected.unwrap()
    }

    /// Asks for an upgrade by a request with more headers: the head of the answer, and what follows.
    pub(super) async fn upgraded(
        &self,
        request: &str,
        headers: &str,
    ) -> (String, TlsStream<TcpStream>) {
        let mut stream = self.stream().await;
        let request =
            format!("{request} HTTP/1.1\r\nhost: node\r\nconnection: upgrade\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    }

    /// Asks for a bare stream of bytes, or for what else is called so: the status, and the stream.
    async fn bytes(&self, path: &str, upgrade: &str) -> (u16, TlsStream<TcpStream>) {
        let headers = format!("upgrade: {upgrade}\r\n");
        let (head, stream) = self.upgraded(&format!("GET {path}"), &headers).await;
        (head.split(' ').nth(1).unwrap().parse().unwrap(), stream)
    }

    /// Opens a WebSocket, or says with which status that was refused.
    async fn open(&self, path: &str, protocol: &'static str) -> Result<Client, u16> {
        let stream = self.stream().await;
        let mut request = format!("ws://node{path}").into_client_request().unwrap();
        let protocol = HeaderValue::from_static(protocol);
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocol);
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((client, _)) => Ok(client),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

async fn send(client: &mut Client, channel: u8, content: &[u8]) {
    let message = [&[channel], content].concat();
    client.send(Message::Binary(message.into())).await.unwrap();
}

/// All that comes until the end: what each channel said.
async fn all(client: &mut Client) -> [Vec<u8>; 4] {
    let mut said: [Vec<u8>; 4] = Default::default();
    while let Some(message) = client.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => said[usize::from(bytes[0])].extend(&bytes[1..]),
            Message::Close(_) => return said,
            _ => {}
        }
    }
    panic!("the socket was not closed");
}

#[tokio::test]
async fn a_command_has_its_streams_and_its_end() {
    let node = Node::new(Behaviour::default()).await;
    let path = "/exec/ns/web/main?command=a&command=3&input=1&output=1";
    let mut client = node.open(path, "v5.channel.k8s.io").await.unwrap();
    send(&mut client, 0, b" heard").await;
    send(&mut client, 4, br#"{"Width":80,"Height":24}"#).await;
    send(&mut client, 255, &[0]).await;
    let [_, said, _, status] = all(&mut client).await;
    assert_eq!(String::from_utf8(said).unwrap(), "a 3 heard");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    let cause = &status["details"]["causes"][0];
    assert_eq!(*cause, json!({"reason": "ExitCode", "message": "3"}));

    let path = "/exec/ns/web/main?command=well&output=1";
    let mut client = node.open(path, "v4.channel.k8s.io").await.unwrap();
    let [_, said, _, status] = all(&mut client).await;
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(
        (&*said, &status["status"]),
        (&b"well"[..], &json!("Success"))
    );

    // The first version says nothing of a success.
    let mut client = node.open(path, "channel.k8s.io").await.unwrap();
    let [_, said, _, status] = all(&mut client).await;
    assert_eq!((&*said, &*status), (&b"well"[..], &b""[..]));
    node.kubelet.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_the_upgrade() {
    let node = Node::new(Behaviour::default()).await;
    let v4 = "v4.channel.k8s.io";
    for (path, protocol, status) in [
        ("/exec/ns/none/main?command=a&output=1", v4, 404),
        ("/exec/ns/web/none?command=a&output=1", v4, 404),
        ("/exec/ns/web/main?output=1", v4, 400),
        ("/exec/ns/web/main?command=a", v4, 400),
        ("/exec/ns/web/main?command=a&output=1", "v9", 400),
        ("/attach/ns/web/main", v4, 400),
        ("/portForward/ns/none", v4, 404),
        ("/portForward/ns/web?port=x", v4, 400),
    ] {
        let refused = node.open(path, protocol).await.err();
        assert_eq!(refused, Some(status), "{path}");
    }
    node.kubelet.stop().await;
}

#[tokio::test]
async fn those_who_attach_hear_the_end() {
    let node = Node::new(Behaviour::default()).await;
    let path = "/attach/ns/web/main?input=1&output=1";
    let mut client = node.open(path, "v5.channel.k8s.io").await.unwrap();
    send(&mut client, 0, b"echo").await;
    let mut heard: Vec<u8> = Vec::new();
    while heard != b"echo" {
        let message = client.next().await.unwrap().unwrap().into_data();
        heard.extend(message[1..].iter());
    }
    let container = node.world.runtime.container("main").unwrap();
    node.world.runtime.exit(&container.id, 7, "Error", "");
    let [_, _, _, status] = all(&mut client).await;
    let status: Value = serde_json::from_slice(&status).unwrap();
    // The code is the container's, and no failure of what was asked.
    assert_eq!(status["status"], "Success");
    node.kubelet.stop().await;
}

#[tokio::test]
async fn ports_are_forwarded_in_channels() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    let node = Node::new(listens).await;
    let path = format!("/portForward/ns/web?port={port}&port=1");
    let mut client = node.open(&path, "v4.channel.k8s.io").await.unwrap();
    let (mut served, _) = server.accept().await.unwrap();
    send(&mut client, 0, b"ask").await;
    let mut asked = [0; 3];
    served.read_exact(&mut asked).await.unwrap();
    served.write_all(b"answer").await.unwrap();
    drop(served);
    let said = all(&mut client).await;
    let ports = |port: u16| port.to_le_bytes();
    assert_eq!(&asked, b"ask");
    assert_eq!(said[0], [&ports(port)[..], b"answer"].concat());
    assert_eq!(said[1], ports(port));
    assert_eq!(said[2], ports(1));
    let error = String::from_utf8_lossy(&said[3][2..]).into_owned();
    assert!(
        error.contains("error forwarding port 1 to pod web"),
        "{error}"
    );
    node.kubelet.stop().await;
}

#[tokio::test]
async fn a_pod_is_connected_to_at_its_address() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let listens = Behaviour {
        listens: vec![port],
        ..Behaviour::default()
    };
    let node = Node::new(listens).await;
    let pod = node.world.api.get(&path("web")).unwrap();
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let connect = format!("/connect/ns/web?port={port}&ip={ip}");
    let (status, mut client) = node.bytes(&connect, "tcp").await;
    assert_eq!(status, 101);
    let (mut served, _) = server.accept().await.unwrap();
    client.write_all(b"ask").await.unwrap();
    let mut asked = [0; 3];
    served.read_exact(&mut asked).await.unwrap();
    served.write_all(b"answer").await.unwrap();
    drop(served);
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    assert_eq!((&asked, &*said), (b"ask", &b"answer"[..]));

    for (path, upgrade, status) in [
        (connect.clone(), "websocket", 400),
        (format!("/connect/ns/web?port={port}"), "tcp", 400),
        (format!("/connect/ns/web?ip={ip}"), "tcp", 400),
        (format!("/connect/ns/web?port=x&ip={ip}"), "tcp", 400),
        (format!("/connect/ns/none?port={port}&ip={ip}"), "tcp", 404),
        // What another Pod has, or the machine, is not this one's.
        (
            format!("/connect/ns/web?port={port}&ip=127.0.0.1"),
            "tcp",
            404,
        ),
        (format!("/connect/ns/web?port=1&ip={ip}"), "tcp", 502),
    ] {
        let (refused, _) = node.bytes(&path, upgrade).await;
        assert_eq!(refused, status, "{path}");
    }
    node.kubelet.stop().await;
}

/// A client that is still sending when its process has ended hears how it ended.
#[tokio::test]
async fn the_end_is_heard_by_those_who_still_send() {
    let node = Node::new(Behaviour::default()).await;
    // Without input of its own the process reads none of what comes.
    let path = "/exec/ns/web/main?command=said&command=4&output=1";
    let mut client = node.open(path, "v5.channel.k8s.io").await.unwrap();
    for _ in 0..64 {
        send(&mut client, 0, &[b'x'; 16 << 10]).await;
    }
    let [_, said, _, status] = all(&mut client).await;
    assert_eq!(said, b"said 4");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "4");
    node.kubelet.stop().await;
}
