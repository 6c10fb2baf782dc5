//! What guests do with sockets, and from where, to where and how often they may.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use coracle_runtime::{Protocol, RuntimeService};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::task::JoinHandle;

use crate::http::get;
use crate::network::Snapshot;
use crate::node::{DEADLINE, Node, Pod, entries};

/// A server for one client, with who called.
struct Server {
    address: SocketAddr,
    caller: JoinHandle<SocketAddr>,
}

impl Server {
    async fn caller(self) -> SocketAddr {
        let caller = tokio::time::timeout(DEADLINE, self.caller).await;
        caller.unwrap().unwrap()
    }
}

/// Echoes four bytes of one connection.
async fn echo_stream() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let caller = tokio::spawn(async move {
        let (mut stream, caller) = listener.accept().await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        caller
    });
    Server { address, caller }
}

/// Echoes one datagram.
async fn echo_datagram() -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let caller = tokio::spawn(async move {
        let mut bytes = [0; 16];
        let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
        socket.send_to(&bytes[..length], from).await.unwrap();
        from
    });
    Server { address, caller }
}

/// Answers one request with `1`.
async fn http_server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let caller = tokio::spawn(async move {
        let (stream, caller) = listener.accept().await.unwrap();
        answer(stream).await;
        caller
    });
    Server { address, caller }
}

/// Answers one HTTP request with `1`.
pub(crate) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1";
    stream.write_all(answer).await.unwrap();
}

/// A guest that asks `url` for a count with every request.
async fn asks(node: &Node, url: &str) -> Pod {
    let image = node.sample("kv-counter/kv-web.wasm");
    node.start(&image, |config| {
        config.env = vec![("STORE_URL".into(), url.into())];
    })
    .await
}

/// Runs the program of this test to its end: its log.
async fn run(node: &Node, args: &[&str]) -> Vec<String> {
    let image = node.program("network.wasm");
    let (exit, pod) = node
        .run(&image, |config| {
            config.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        })
        .await;
    let log = entries(&pod.log);
    assert_eq!(exit.code, 0, "{log:#?}");
    log
}

/// Starts the program of this test.
async fn start(node: &Node, args: &[&str]) -> Pod {
    let image = node.program("network.wasm");
    node.start(&image, |config| {
        config.args = args.iter().map(|arg| (*arg).to_owned()).collect();
    })
    .await
}

/// What a guest that meets everything does, given what there is to meet.
const MEETS: [&str; 5] = [
    "meet",
    "web.default:80",
    "10.43.0.6:53",
    "nowhere:1",
    "10.43.0.7:1",
];

fn to_meet(tcp: &Server, udp: &Server) -> Snapshot {
    let service: SocketAddr = "10.43.0.5:80".parse().unwrap();
    let datagrams: SocketAddr = "10.43.0.6:53".parse().unwrap();
    Snapshot {
        names: [("web.default".to_owned(), vec![service.ip()])].into(),
        routes: [(service, tcp.address), (datagrams, udp.address)].into(),
        ..Snapshot::default()
    }
}

pub(crate) async fn every_address_is_the_networks() {
    let node = Node::new().await;
    let (tcp, udp) = (echo_stream().await, echo_datagram().await);
    node.publish(&to_meet(&tcp, &udp));
    let log = run(&node, &MEETS).await;
    let expected = [
        "stdout F resolved [10.43.0.5:80]",
        "stdout F connected to 10.43.0.5:80",
        "stdout F read ping",
        "stdout F received ping from 10.43.0.6:53",
        "stdout F unknown name fails: true",
        "stdout F refused: ConnectionRefused",
        "stdout F foreign address: AddrNotAvailable",
        "stdout F local listener at 127.0.0.1:4000",
    ];
    assert_eq!(log, expected);
}

pub(crate) async fn guests_call_from_the_source_that_the_network_names() {
    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let node = Node::new().await;
    let (tcp, udp, http) = (
        echo_stream().await,
        echo_datagram().await,
        http_server().await,
    );
    let mut snapshot = to_meet(&tcp, &udp);
    let store: SocketAddr = "10.43.0.8:80".parse().unwrap();
    snapshot.routes.insert(store, http.address);
    snapshot.source = Some(source);
    node.publish(&snapshot);
    let log = run(&node, &MEETS).await;
    assert!(log.contains(&"stdout F read ping".into()), "{log:#?}");
    let web = asks(&node, &format!("http://{store}/")).await;
    let (_, web) = node.listener(&web).await;
    assert_eq!(get(web, "/").await, (200, "visit 1\n".into()));
    for server in [tcp, udp, http] {
        assert_eq!(server.caller().await.ip(), source);
    }
}

/// Whether a server at `address` lets a client from `from` ask.
async fn is_heard(from: &str, address: SocketAddr) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(from.parse().unwrap(), 0))
        .unwrap();
    // The kernel connects before anybody has judged; the judgement may be faster than the client.
    let mut stream = match socket.connect(address).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
        Err(error) => panic!("{address}: {error}"),
    };
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
    let mut answer = [0; 1];
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut answer));
    matches!(read.await.unwrap(), Ok(1))
}

pub(crate) async fn whom_the_network_denies_is_not_heard() {
    let node = Node::new().await;
    node.publish(&Snapshot {
        denied: vec!["127.0.0.66".parse().unwrap()],
        ..Snapshot::default()
    });
    let samples = ["tcp-echo/tcp-echo.wasm", "hello-http/hello-http.wasm"];
    for image in samples.map(|sample| node.sample(sample)) {
        let pod = node.start(&image, |_| ()).await;
        let (_, address) = node.listener(&pod).await;
        assert!(!is_heard("127.0.0.66", address).await, "{pod:?}");
        assert!(is_heard("127.0.0.65", address).await, "{pod:?}");
    }
    let pod = start(&node, &["echo", "0.0.0.0:5000"]).await;
    let (_, address) = node.listener(&pod).await;
    let denied = UdpSocket::bind("127.0.0.66:0").await.unwrap();
    denied.send_to(b"denied", address).await.unwrap();
    let heard = UdpSocket::bind("127.0.0.65:0").await.unwrap();
    heard.send_to(b"heard", address).await.unwrap();
    let mut bytes = [0; 16];
    let answer = tokio::time::timeout(DEADLINE, heard.recv(&mut bytes));
    assert_eq!(answer.await.unwrap().unwrap(), 5);
    let log = entries(&pod.log);
    assert_eq!(log.len(), 1, "{log:#?}");
    assert!(log[0].starts_with("stdout F heard from"), "{log:#?}");
}

pub(crate) async fn localhost_is_announced_and_ports_are_taken_once() {
    let node = Node::new().await;
    let pod = start(&node, &["listen"]).await;
    let mut expected: BTreeSet<(Protocol, SocketAddr)> = [
        (Protocol::Tcp, "127.0.0.1:4000"),
        (Protocol::Udp, "127.0.0.1:4002"),
        (Protocol::Tcp, "10.42.0.1:4003"),
    ]
    .map(|(protocol, address)| (protocol, address.parse().unwrap()))
    .into();
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        expected.insert((Protocol::Tcp, "[::1]:4001".parse().unwrap()));
    } else {
        eprintln!("skipped: this machine has no ::1");
    }
    let start = Instant::now();
    loop {
        let listeners = node.runtime.listeners().await.unwrap();
        let found: BTreeSet<_> = listeners
            .iter()
            .map(|of| (of.protocol, of.address))
            .collect();
        if found == expected {
            assert!(listeners.iter().all(|of| of.actual.ip().is_loopback()));
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{found:?}");
        tokio::task::yield_now().await;
    }
    node.runtime
        .stop_container(&pod.container, DEADLINE)
        .await
        .unwrap();
    assert!(node.runtime.listeners().await.unwrap().is_empty());
}

pub(crate) async fn datagrams_are_answered() {
    let node = Node::new().await;
    let pod = start(&node, &["echo", "0.0.0.0:5000"]).await;
    let (address, actual) = node.listener(&pod).await;
    assert_eq!(address, "10.42.0.1:5000".parse().unwrap());
    // The network has no route back to any client.
    for text in ["one", "two"] {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for _ in 0..2 {
            client.send_to(text.as_bytes(), actual).await.unwrap();
            let mut bytes = [0; 16];
            let answer = tokio::time::timeout(DEADLINE, client.recv(&mut bytes));
            let length = answer.await.unwrap().unwrap();
            assert_eq!(&bytes[..length], text.as_bytes());
        }
    }
}

pub(crate) async fn no_spelling_leads_to_the_hosts_loopback() {
    let node = Node::new().await;
    node.publish(&Snapshot {
        open: true,
        ..Snapshot::default()
    });
    // On every address of the host, so that a spelling that leads to any of them is found out.
    let tcp = std::net::TcpListener::bind("[::]:0");
    let tcp = tcp
        .or_else(|_| std::net::TcpListener::bind("0.0.0.0:0"))
        .unwrap();
    tcp.set_nonblocking(true).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let any = SocketAddr::new(tcp.local_addr().unwrap().ip(), port);
    let udp = std::net::UdpSocket::bind(any).unwrap();
    udp.set_nonblocking(true).unwrap();
    let addresses: Vec<String> = [
        "127.0.0.1",
        "127.8.9.10",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "[::1]",
        "[::1%1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:0.0.0.0]",
        "[::127.0.0.1]",
        "[ff02::1%1]",
    ]
    .map(|ip| format!("{ip}:{port}"))
    .into();
    let mut args = vec!["dial", "192.0.2.1:0"];
    args.extend(addresses.iter().map(String::as_str));
    let log = run(&node, &args).await;
    assert_eq!(log.len(), 2 * (args.len() - 1));
    let reached = log.iter().find(|line| line.ends_with("reached"));
    assert_eq!(reached, None);
    for host in [
        "0.0.0.0",
        "127.0.0.1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ] {
        let web = asks(&node, &format!("http://{host}:{port}/")).await;
        let (_, web) = node.listener(&web).await;
        let (status, body) = get(web, "/").await;
        assert_eq!(status, 502, "{body}");
    }
    let (accepted, received) = (tcp.accept(), udp.recv_from(&mut [0; 16]));
    assert_eq!(accepted.unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(received.unwrap_err().kind(), ErrorKind::WouldBlock);
}

pub(crate) async fn a_guest_has_so_many_sockets() {
    let node = Node::new().await;
    let (one, two) = tokio::join!(run(&node, &["hoard"]), run(&node, &["hoard"]));
    for log in [one, two] {
        let expected = [
            "stdout F 1024 sockets",
            "stdout F then TCP: false",
            "stdout F after one less: true",
        ];
        assert_eq!(log, expected);
    }
}

pub(crate) async fn newer_interfaces_are_refused_by_name() {
    let node = Node::new().await;
    for (text, part) in [
        (
            r#"(component (instance $i) (export "wasi:http/handler@0.3.0" (instance $i)))"#,
            "wasi:http/handler@0.3.0",
        ),
        (
            r#"(component
                 (import "wasi:http/client@0.3.0" (instance))
                 (instance $i)
                 (export "wasi:cli/run@0.2.0" (instance $i)))"#,
            "wasi:http/client@0.3.0",
        ),
        (
            r#"(component (instance $i) (export "wasi:cli/run@0.3.0" (instance $i)))"#,
            "wasi:cli/run@0.3.0",
        ),
    ] {
        let refusal = node.refusal(&node.image(text.as_bytes())).await;
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}
