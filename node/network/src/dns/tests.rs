//! Real sockets, and clients that know nothing of the server.

use std::net::Ipv4Addr;
use std::process::Command;

use hickory_proto::op::{Edns, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::*;
use crate::zone::zone;

const DEADLINE: Duration = Duration::from_secs(20);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Endpoints of the headless Service: more than fit into a datagram.
const MANY: usize = 150;

fn cluster() -> Arc<Zone> {
    let service = |name: &str, spec: serde_json::Value| -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    };
    let services = [
        service(
            "web",
            json!({"clusterIPs": ["10.43.0.9"], "ports": [{"name": "http", "port": 80}]}),
        ),
        service(
            "far",
            json!({"type": "ExternalName", "externalName": "www.example.com"}),
        ),
        service("many", json!({"clusterIPs": ["None"]})),
    ];
    let endpoints: Vec<_> = (0..MANY)
        .map(|n| json!({"addresses": [format!("10.42.1.{n}")]}))
        .collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": "many-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "many"},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
    }))
    .unwrap();
    Arc::new(zone(&services, &[slice], "cluster.local"))
}

/// A running server.
struct Running {
    address: SocketAddr,
    zone: watch::Sender<Arc<Zone>>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Running {
    /// A server that asks these resolvers and has little patience with them.
    fn start(resolvers: &[SocketAddr], patience: Duration) -> Self {
        let server = DnsServer::bind(LOOPBACK).unwrap().forward_to(resolvers);
        Self::of(server, patience)
    }

    fn of(server: DnsServer, patience: Duration) -> Self {
        let server = server.patience(patience);
        let (zone, zones) = watch::channel(cluster());
        let cancel = CancellationToken::new();
        Self {
            address: server.address(),
            zone,
            task: tokio::spawn(server.run(zones, cancel.clone())),
            cancel,
        }
    }

    async fn stop(self) {
        self.cancel.cancel();
        within(self.task).await.unwrap().unwrap();
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it takes too long")
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn over_udp(server: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let length = within(socket.recv(&mut buffer)).await.unwrap();
    answered(question, &buffer[..length])
}

async fn over_tcp(server: SocketAddr, questions: &[&Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    for question in questions {
        let bytes = framed(&question.to_vec().unwrap());
        stream.write_all(&bytes).await.unwrap();
    }
    let mut replies = Vec::new();
    for question in questions {
        let reply = within(read_framed(&mut stream, 65_535)).await.unwrap();
        replies.push(answered(question, &reply));
    }
    replies
}

fn answered(question: &Message, bytes: &[u8]) -> Message {
    let reply = Message::from_vec(bytes).unwrap();
    assert_eq!(reply.metadata.id, question.metadata.id);
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    assert!(reply.queries[0].name().eq_case(question.queries[0].name()));
    reply
}

/// A resolver on loopback that answers every question alike, or never.
async fn resolver(reply: Option<ResponseCode>) -> (SocketAddr, JoinSet<()>) {
    fake::upstream(move |asked, _, answer| {
        let Some(code) = reply else { return false };
        answer.metadata.response_code = code;
        if code == ResponseCode::NoError {
            let name = asked.queries[0].name().clone();
            let address = RData::A(A::new(192, 0, 2, 53));
            answer.add_answer(ResourceRecord::from_rdata(name, 77, address));
        }
        true
    })
    .await
}

#[tokio::test]
async fn names_of_the_cluster_over_both_transports() {
    let server = Running::start(&[], DEADLINE);
    let web = question("web.Shop.svc.cluster.local.", RecordType::A);
    let port = question("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV);
    let reverse = question("9.0.43.10.in-addr.arpa.", RecordType::PTR);
    let nobody = question("nobody.shop.svc.cluster.local.", RecordType::A);
    let all = [&web, &port, &reverse, &nobody];
    let tcp = over_tcp(server.address, &all).await;
    for (asked, by_tcp) in all.into_iter().zip(tcp) {
        assert_eq!(over_udp(server.address, asked).await, by_tcp);
        assert!(by_tcp.metadata.authoritative);
    }
    let reply = over_udp(server.address, &web).await;
    assert_eq!(reply.answers[0].data, RData::A(A::new(10, 43, 0, 9)));
    assert_eq!(reply.answers[0].ttl, 5);
    // The zone as it is now, not as it was.
    server
        .zone
        .send_replace(Arc::new(zone(&[], &[], "cluster.local")));
    let gone = over_udp(server.address, &web).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_into_a_datagram_comes_over_tcp() {
    let server = Running::start(&[], DEADLINE);
    let mut many = question("many.shop.svc.cluster.local.", RecordType::A);
    let mut shortened = Vec::new();
    for payload in [None, Some(1232)] {
        many.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let cut = over_udp(server.address, &many).await;
        assert!(cut.metadata.truncation);
        shortened.push(cut.answers.len());
    }
    assert!(
        0 < shortened[0] && shortened[0] < shortened[1],
        "{shortened:?}"
    );
    let whole = over_tcp(server.address, &[&many]).await.remove(0);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), MANY);
    server.stop().await;
}

#[tokio::test]
async fn other_names_are_asked_outside() {
    let (resolver, _tasks) = resolver(Some(ResponseCode::NoError)).await;
    let server = Running::start(&[resolver], DEADLINE);
    let mut www = question("wWw.Example.Com.", RecordType::A);
    for edns in [None, Some(Edns::new())] {
        www.edns = edns;
        let tcp = over_tcp(server.address, &[&www]).await.remove(0);
        let udp = over_udp(server.address, &www).await;
        assert_eq!(udp, tcp);
        assert!(!udp.metadata.authoritative);
        assert_eq!(udp.edns.is_some(), www.edns.is_some());
        assert_eq!(udp.answers[0].ttl, 77);
        assert_eq!(udp.answers[0].name.to_string(), "wWw.Example.Com.");
    }
    // An alias of ours, and where it leads.
    let far = question("far.shop.svc.cluster.local.", RecordType::A);
    let reply = over_udp(server.address, &far).await;
    let kinds: Vec<RecordType> = reply.answers.iter().map(|r| r.record_type()).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    assert_eq!(reply.answers[1].name.to_string(), "www.example.com.");
    assert_eq!(over_tcp(server.address, &[&far]).await.remove(0), reply);
    server.stop().await;
}

#[tokio::test]
async fn resolvers_that_fail() {
    let (good, _good) = resolver(Some(ResponseCode::NoError)).await;
    let (bad, _bad) = resolver(Some(ResponseCode::Refused)).await;
    let (silent, _silent) = resolver(None).await;
    // Nobody listens there any more.
    let gone = DnsServer::bind(LOOPBACK).unwrap().address();
    for (resolvers, expected) in [
        (vec![bad, good], ResponseCode::NoError),
        (vec![gone, good], ResponseCode::NoError),
        (vec![silent, good], ResponseCode::NoError),
        (vec![bad], ResponseCode::Refused),
        (vec![gone], ResponseCode::ServFail),
        (vec![silent], ResponseCode::ServFail),
        (vec![], ResponseCode::ServFail),
    ] {
        let server = Running::start(&resolvers, Duration::from_millis(100));
        let www = question("www.example.com.", RecordType::A);
        let tcp = over_tcp(server.address, &[&www]).await.remove(0);
        assert_eq!(tcp.metadata.response_code, expected, "{resolvers:?}");
        let udp = over_udp(server.address, &www).await;
        assert_eq!(udp.metadata.response_code, expected, "{resolvers:?}");
        server.stop().await;
    }
}

#[tokio::test]
async fn it_does_not_ask_itself() {
    let server = DnsServer::bind(LOOPBACK).unwrap();
    let (itself, known) = (server.address(), "10.43.0.10:53".parse().unwrap());
    let server = server.forward_to(&[itself, known]).known_as(known);
    // It would wait for itself.
    let server = Running::of(server, DEADLINE * 2);
    let www = question("www.example.com.", RecordType::A);
    let reply = over_udp(server.address, &www).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    server.stop().await;
}

#[tokio::test]
async fn no_more_questions_wait_than_there_is_room_for() {
    let (silent, _tasks) = resolver(None).await;
    let server = Running::start(&[silent], DEADLINE * 2);
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    socket.connect(server.address).await.unwrap();
    let www = question("www.example.com.", RecordType::A)
        .to_vec()
        .unwrap();
    let mut buffer = vec![0; 512];
    let (mut sent, deadline) = (0, tokio::time::Instant::now() + DEADLINE);
    let length = loop {
        assert!(tokio::time::Instant::now() < deadline, "all of {sent} wait");
        socket.send(&www).await.unwrap();
        sent += 1;
        match socket.try_recv(&mut buffer) {
            Ok(length) => break length,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(sent > WAITING);
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    // What the zone knows is answered all the same.
    let web = question("web.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(over_udp(server.address, &web).await.answers.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection() {
    let server = Running::start(&[], DEADLINE);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[0xff, 0xff, 0]).await.unwrap();
    let ended = within(read_framed(&mut stream, 1)).await.unwrap_err();
    assert!(
        matches!(
            ended.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
        "{ended}"
    );
    server.stop().await;
}

#[test]
fn addresses_are_turned_and_aliases_stay_first() {
    let alias = |n: &str| {
        let name = Name::from_ascii(n).unwrap();
        ResourceRecord::from_rdata(
            name.clone(),
            5,
            RData::CNAME(hickory_proto::rr::rdata::CNAME(name)),
        )
    };
    let address =
        |n: u8| ResourceRecord::from_rdata(Name::root(), 5, RData::A(A::new(10, 0, 0, n)));
    let mut answers = vec![alias("a."), address(1), address(2), address(3)];
    rotate(&mut answers, 7);
    assert_eq!(answers, [alias("a."), address(2), address(3), address(1)]);
    rotate(&mut answers[..1], 7);
    assert_eq!(answers[0], alias("a."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dig_understands_the_answers() {
    if let Err(error) = Command::new("dig").arg("-v").output() {
        let required = std::env::var_os("CI").is_some() && rustix::process::geteuid().is_root();
        assert!(!required, "dig (bind9-dnsutils) cannot be run: {error}");
        eprintln!("SKIPPED: dig (bind9-dnsutils) cannot be run: {error}");
        return;
    }
    let server = Running::start(&[], DEADLINE);
    for (more, kind, name, expected) in [
        ("+notcp", "A", "web.shop.svc.cluster.local", "10.43.0.9\n"),
        ("+tcp", "A", "web.shop.svc.cluster.local", "10.43.0.9\n"),
        (
            "+noedns",
            "PTR",
            "9.0.43.10.in-addr.arpa",
            "web.shop.svc.cluster.local.\n",
        ),
        ("+notcp", "TXT", "dns-version.cluster.local", "\"1.1.0\"\n"),
        (
            "+notcp",
            "SRV",
            "_http._tcp.web.shop.svc.cluster.local",
            "0 100 80 web.shop.svc.cluster.local.\n",
        ),
    ] {
        let port = server.address.port().to_string();
        let out = Command::new("dig")
            .args(["@127.0.0.1", "-p", &port, "+short", more, "-t", kind, name])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), expected, "{name}");
    }
    server.stop().await;
}
