//! Names outside, by way of a node's DNS server and a resolver that is not the machine's.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::tests::{address, contents, namespaced, network_of};
use super::*;
use crate::DnsServer;
use crate::dns::fake::upstream;
use crate::snapshot::Contents;
use crate::zone::Zone;

const DNS: &str = "10.43.0.10:53";

/// A resolver that knows names for every case.
pub(crate) async fn resolver() -> (SocketAddr, JoinSet<()>) {
    upstream(|asked, tcp, answer| {
        let query = &asked.queries[0];
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let mut add = |owner: &str, data| {
            answer.add_answer(Record::from_rdata(name(owner), 5, data));
        };
        let v4 = |last| RData::A(A::new(192, 0, 2, last));
        let asked = query.name().to_string().to_lowercase();
        match (asked.as_str(), query.query_type()) {
            ("www.example.com.", RecordType::A) => {
                add("www.example.com.", v4(1));
            }
            ("www.example.com.", RecordType::AAAA) => {
                let data = AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
                add("www.example.com.", RData::AAAA(data));
            }
            ("alias.example.com.", RecordType::A) => {
                add(
                    "alias.example.com.",
                    RData::CNAME(CNAME(name("www.example.com."))),
                );
                add("www.example.com.", v4(1));
            }
            // The rest of the chain is left to whoever asked.
            ("alias.example.com.", RecordType::AAAA) => {
                add(
                    "alias.example.com.",
                    RData::CNAME(CNAME(name("www.example.com."))),
                );
            }
            ("loop.example.com.", _) => {
                add(
                    "loop.example.com.",
                    RData::CNAME(CNAME(name("pool.example.com."))),
                );
            }
            ("pool.example.com.", _) => {
                add(
                    "pool.example.com.",
                    RData::CNAME(CNAME(name("loop.example.com."))),
                );
            }
            ("many.example.com.", RecordType::A) => {
                if !tcp {
                    answer.metadata.truncation = true;
                    return true;
                }
                for last in 0..200 {
                    add("many.example.com.", v4(last));
                }
            }
            ("half.example.com.", RecordType::A) => {
                add("half.example.com.", v4(3));
            }
            ("half.example.com." | "broken.example.com.", _) => {
                answer.metadata.response_code = ResponseCode::ServFail;
            }
            ("silent.example.com.", _) => return false,
            ("empty.example.com." | "many.example.com.", _) => {}
            _ => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        true
    })
    .await
}

/// A node's DNS server that asks `resolver`, and the contents that name it.
fn served(resolver: SocketAddr, mut contents: Contents) -> (Contents, JoinSet<()>) {
    let server = DnsServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let server = server
        .forward_to(&[resolver])
        .patience(std::time::Duration::from_millis(200));
    let dns: SocketAddr = DNS.parse().unwrap();
    contents.general.dns = Some(dns);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let key = (dns.ip(), dns.port(), protocol);
        contents.listeners.insert(key, server.address());
    }
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (_zones, zone) = watch::channel(Arc::new(Zone::unknown("cluster.local")));
        server.run(zone, CancellationToken::new()).await.unwrap();
    });
    (contents, tasks)
}

#[tokio::test]
async fn the_nodes_own_server_is_asked() {
    for contents in [contents(), namespaced()] {
        let (resolver, _asked) = resolver().await;
        let (contents, _served) = served(resolver, contents);
        let (_folder, network) = network_of(&contents);
        let both = vec![address("192.0.2.1"), address("2001:db8::1")];
        for (name, expected) in [
            ("www.example.com", both.clone()),
            ("WWW.Example.com.", both.clone()),
            ("alias.example.com", both.clone()),
            ("half.example.com", vec![address("192.0.2.3")]),
        ] {
            assert_eq!(network.resolve(name).await, Ok(expected), "{name}");
        }
        let many = network.resolve("many.example.com").await.unwrap();
        assert_eq!(many.len(), 200);
        // The machine has these in its own files; a Pod has not.
        for name in ["nobody.example.com", "empty.example.com", "ip6-loopback"] {
            let found = network.resolve(name).await;
            let expected = Err(NetworkError::NameUnresolvable(name.into()));
            assert_eq!(found, expected, "{name}");
        }
        for name in [
            "broken.example.com",
            "silent.example.com",
            "loop.example.com",
        ] {
            let found = network.resolve(name).await;
            let failed = matches!(found, Err(NetworkError::TemporaryResolverFailure { .. }));
            assert!(failed, "{name}: {found:?}");
        }
    }
}

#[tokio::test]
async fn while_the_agent_is_away_the_machine_is_asked() {
    let (resolver, _asked) = resolver().await;
    let (contents, mut served) = served(resolver, contents());
    let (_folder, network) = network_of(&contents);
    network.resolve("www.example.com").await.unwrap();
    served.shutdown().await;
    // No name of DNS: every machine answers it from its own files or not at all.
    let found = network.resolve("nobody.invalid").await;
    assert!(matches!(
        found,
        Err(NetworkError::TemporaryResolverFailure { cause, .. }) if !cause.contains("DNS server")
    ));
}
