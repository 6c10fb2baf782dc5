use std::collections::BTreeMap;

use super::*;
use crate::snapshot::{Answer, Contents, General, Virtual};

mod datagrams;

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn key(text: &str) -> (IpAddr, u16, Protocol) {
    let socket = socket(text);
    (socket.ip(), socket.port(), Protocol::Tcp)
}

pub(super) fn contents() -> Contents {
    let service = |endpoints: &[&str]| Virtual {
        affinity: false,
        endpoints: endpoints.iter().map(|e| socket(e)).collect(),
        elsewhere: false,
    };
    Contents {
        general: General {
            form: Form::Virtual,
            domain: "cluster.local".into(),
            virtual_ranges: vec![
                "10.42.0.0/16".parse().unwrap(),
                "10.43.0.0/16".parse().unwrap(),
            ],
            gateway: address("10.42.0.1"),
            dns: None,
            authority: None,
        },
        listeners: BTreeMap::from([
            (key("10.42.0.2:8080"), socket("127.0.0.1:40002")),
            (key("10.42.0.3:8080"), socket("127.0.0.1:40003")),
        ]),
        services: BTreeMap::from([
            (key("10.43.0.9:80"), service(&["10.42.0.3:8080"])),
            (key("10.43.0.10:80"), service(&[])),
            (key("10.43.0.11:80"), service(&["10.42.7.9:80"])),
            (key("10.43.0.12:80"), service(&["192.0.2.8:443"])),
        ]),
        names: BTreeMap::from([
            (
                "web.shop.svc.cluster.local".into(),
                Answer::Addresses(vec![address("10.43.0.9")]),
            ),
            (
                "api.other.svc.cluster.local".into(),
                Answer::Addresses(vec![address("10.43.0.12")]),
            ),
            (
                "far.shop.svc.cluster.local".into(),
                Answer::Alias("example.com".into()),
            ),
            (
                "near.shop.svc.cluster.local".into(),
                Answer::Alias("web.shop.svc.cluster.local".into()),
            ),
            (
                "loop.shop.svc.cluster.local".into(),
                Answer::Alias("loop.shop.svc.cluster.local".into()),
            ),
        ]),
        pods: BTreeMap::from([(address("10.42.0.2"), "shop".into())]),
    }
}

/// The network of Pod 10.42.0.2 in namespace shop.
fn network() -> (tempfile::TempDir, SnapshotNetwork) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    contents().publish(&path).unwrap();
    let network = SnapshotNetwork::open(&path, &[address("10.42.0.2")]).unwrap();
    (folder, network)
}

#[test]
fn a_pod_with_a_namespace_of_its_own_says_addresses_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let mut contents = contents();
    contents.general.form = Form::Namespaced;
    contents.general.virtual_ranges = vec!["10.43.0.0/16".parse().unwrap()];
    contents.listeners = BTreeMap::from([
        (key("10.42.0.3:8080"), socket("10.42.0.3:8080")),
        (key("10.43.0.1:443"), socket("169.254.1.1:40001")),
    ]);
    let own_port = Virtual {
        affinity: false,
        endpoints: vec![socket("10.42.0.130:80")],
        elsewhere: false,
    };
    contents.services.insert(key("10.43.0.13:80"), own_port);
    contents.publish(&path).unwrap();
    let own = [address("10.42.0.130")];
    let network = SnapshotNetwork::open(&path, &own).unwrap();
    let network = network.attached(Attachment::Netns);
    for (remote, expected) in [
        ("127.0.0.1:80", Some("127.0.0.1:80")),
        ("[::1]:80", Some("[::1]:80")),
        ("10.42.0.130:80", Some("10.42.0.130:80")),
        ("10.42.0.3:8080", Some("10.42.0.3:8080")),
        ("10.42.0.131:80", Some("10.42.0.131:80")),
        ("10.43.0.9:80", Some("10.42.0.3:8080")),
        ("10.43.0.13:80", Some("10.42.0.130:80")),
        ("10.43.0.1:443", Some("169.254.1.1:40001")),
        ("10.43.0.10:80", None),
    ] {
        let peer = network.connect(Protocol::Tcp, socket(remote)).ok();
        assert_eq!(
            peer.map(|peer| peer.actual),
            expected.map(socket),
            "{remote}"
        );
        assert_eq!(peer.and_then(|peer| peer.source), None, "{remote}");
    }
    for bound in ["0.0.0.0:80", "127.0.0.1:80", "[::]:80", "10.42.0.130:80"] {
        let bound = socket(bound);
        assert_eq!(network.bind(Protocol::Tcp, bound), Ok(bound));
    }
    assert!(
        network
            .bind(Protocol::Tcp, socket("10.42.0.131:80"))
            .is_err()
    );
    let beside = socket("127.0.0.1:40000");
    assert_eq!(network.peer(Protocol::Tcp, beside), Ok(beside));
}

#[test]
fn connects_lead_where_the_table_says() {
    let (_folder, network) = network();
    let refused = |text| Err(NetworkError::ConnectionRefused(socket(text)));
    for (remote, expected) in [
        ("10.42.0.3:8080", Ok("127.0.0.1:40003")),
        ("10.42.0.3:9090", refused("10.42.0.3:9090")),
        ("10.42.9.9:80", refused("10.42.9.9:80")),
        ("10.43.0.9:80", Ok("127.0.0.1:40003")),
        ("10.43.0.9:81", refused("10.43.0.9:81")),
        ("10.43.0.10:80", refused("10.43.0.10:80")),
        (
            "10.43.0.11:80",
            Err(NetworkError::RemoteUnreachable(socket("10.42.7.9:80"))),
        ),
        ("10.43.0.12:80", Ok("192.0.2.8:443")),
        ("192.0.2.1:443", Ok("192.0.2.1:443")),
        ("127.0.0.1:6443", refused("127.0.0.1:6443")),
        ("127.0.0.1:8080", Ok("127.0.0.1:40002")),
        ("[::1]:8080", Ok("127.0.0.1:40002")),
        ("[::ffff:10.42.0.3]:8080", Ok("127.0.0.1:40003")),
    ] {
        let found = network
            .connect(Protocol::Tcp, socket(remote))
            .map(|peer| peer.actual);
        assert_eq!(found, expected.map(socket), "{remote}");
    }
}

#[test]
fn localhost_is_the_pods_own() {
    let (_folder, network) = network();
    let at = |remote| {
        network
            .connect(Protocol::Tcp, socket(remote))
            .map(|peer| peer.actual)
    };
    assert!(at("127.0.0.1:9000").is_err());
    network.listening(
        Protocol::Tcp,
        socket("0.0.0.0:9000"),
        Some(socket("127.0.0.1:41000")),
    );
    assert_eq!(at("127.0.0.1:9000"), Ok(socket("127.0.0.1:41000")));
    assert_eq!(at("10.42.0.2:9000"), Ok(socket("127.0.0.1:41000")));
    network.listening(
        Protocol::Tcp,
        socket("127.0.0.1:9000"),
        Some(socket("127.0.0.1:41001")),
    );
    assert_eq!(at("[::1]:9000"), Ok(socket("127.0.0.1:41001")));
    assert_eq!(at("10.42.0.2:9000"), Ok(socket("127.0.0.1:41000")));
    network.listening(Protocol::Tcp, socket("127.0.0.1:9000"), None);
    assert_eq!(at("127.0.0.1:9000"), Ok(socket("127.0.0.1:41000")));
}

#[test]
fn binds_are_confined_to_the_pod() {
    let (_folder, network) = network();
    for (local, expected) in [
        ("0.0.0.0:80", Some("127.0.0.1:0")),
        ("10.42.0.2:80", Some("127.0.0.1:0")),
        ("127.0.0.1:80", Some("127.0.0.1:0")),
        ("[::]:80", Some("[::1]:0")),
        ("10.42.0.3:80", None),
        ("192.0.2.1:80", None),
    ] {
        let found = network.bind(Protocol::Tcp, socket(local)).ok();
        assert_eq!(found, expected.map(socket), "{local}");
    }
    for (local, expected) in [
        // One that sends is bound where ways lead outside.
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::]:0", "[::]:0"),
        ("0.0.0.0:53", "127.0.0.1:0"),
        ("10.42.0.2:0", "127.0.0.1:0"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::]:53", "[::1]:0"),
    ] {
        let found = network.bind(Protocol::Udp, socket(local));
        assert_eq!(found, Ok(socket(expected)), "{local}");
    }
    let found = network.bind(Protocol::Tcp, socket("0.0.0.0:0"));
    assert_eq!(found, Ok(socket("127.0.0.1:0")), "it may come to listen");
    let actual = socket("127.0.0.1:40000");
    assert_eq!(
        network.bound(Protocol::Tcp, socket("0.0.0.0:80"), actual),
        (socket("0.0.0.0:80"), true)
    );
    assert_eq!(
        network.bound(Protocol::Tcp, socket("127.0.0.1:0"), actual),
        (socket("127.0.0.1:40000"), false)
    );
}

#[tokio::test]
async fn names_follow_the_search_path() {
    let (_folder, network) = network();
    for (name, expected) in [
        ("web", Some("10.43.0.9")),
        ("WEB", Some("10.43.0.9")),
        ("web.shop", Some("10.43.0.9")),
        ("web.shop.svc", Some("10.43.0.9")),
        ("web.shop.svc.cluster.local", Some("10.43.0.9")),
        ("web.shop.svc.cluster.local.", Some("10.43.0.9")),
        ("api.other", Some("10.43.0.12")),
        ("near", Some("10.43.0.9")),
        ("loop", None),
        ("gone.shop.svc.cluster.local", None),
        ("192.0.2.7", Some("192.0.2.7")),
        ("localhost", Some("127.0.0.1")),
    ] {
        let found = network.resolve(name).await.ok().map(|found| found[0]);
        assert_eq!(found, expected.map(address), "{name}");
    }
}

#[test]
fn names_outside_are_asked_outside() {
    let (_folder, network) = network();
    let snapshot = network.snapshot().unwrap();
    let own = address("10.42.0.2");
    for (name, expected) in [
        ("example.com", "example.com"),
        ("far", "example.com"),
        ("far.shop", "example.com"),
        ("a.b.c.d.e.f", "a.b.c.d.e.f"),
        ("example.com.", "example.com"),
    ] {
        assert_eq!(
            look_up(&snapshot, name, own),
            Found::Outside(expected.into()),
            "{name}"
        );
    }
}

#[test]
fn a_new_snapshot_is_noticed_and_a_missing_one_is_survived() {
    let (folder, network) = network();
    let remote = socket("10.42.0.9:80");
    assert!(network.connect(Protocol::Tcp, remote).is_err());
    let mut next = contents();
    next.listeners
        .insert(key("10.42.0.9:80"), socket("127.0.0.1:40009"));
    let path = folder.path().join("snapshot");
    next.publish(&path).unwrap();
    let found = network.connect(Protocol::Tcp, remote).unwrap();
    assert_eq!(found.actual, socket("127.0.0.1:40009"));
    std::fs::remove_file(&path).unwrap();
    assert!(network.connect(Protocol::Tcp, remote).is_ok());
}

#[test]
fn all_pods_of_a_process_share_one_mapping() {
    let (folder, network) = network();
    let path = folder.path().join("snapshot");
    let other = SnapshotNetwork::open(&path, &[address("10.42.0.3")]).unwrap();
    let (one, two) = (network.snapshot().unwrap(), other.snapshot().unwrap());
    assert!(Arc::ptr_eq(&one, &two));
}

/// As [`contents`], where all Pods of the node share a namespace.
pub(super) fn namespaced() -> Contents {
    let mut contents = contents();
    contents.general.form = Form::Namespaced;
    contents.general.virtual_ranges = vec!["10.43.0.0/16".parse().unwrap()];
    contents.listeners = BTreeMap::from([
        (key("10.42.0.2:8080"), socket("10.42.0.2:8080")),
        (key("10.42.0.3:8080"), socket("10.42.0.3:8080")),
        // By IPv6 alone.
        (key("10.42.0.4:80"), socket("[::1]:40004")),
        (key("192.0.2.1:6443"), socket("169.254.1.1:40100")),
        (key("127.42.0.2:7000"), socket("127.42.0.2:7000")),
        (key("127.42.0.3:7001"), socket("127.42.0.3:7001")),
    ]);
    contents
}

pub(super) fn network_of(contents: &Contents) -> (tempfile::TempDir, SnapshotNetwork) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    contents.publish(&path).unwrap();
    let network = SnapshotNetwork::open(&path, &[address("10.42.0.2")]).unwrap();
    (folder, network)
}

#[test]
fn in_a_namespace_connects_are_true_and_from_the_pods_own_address() {
    let (_folder, network) = network_of(&namespaced());
    let (pod, home) = ("10.42.0.2:0", "127.42.0.2:0");
    for (remote, expected) in [
        ("10.42.0.3:8080", Some(("10.42.0.3:8080", Some(pod)))),
        // Nobody published these; the kernel knows.
        ("10.42.0.3:9090", Some(("10.42.0.3:9090", Some(pod)))),
        ("10.42.9.9:80", Some(("10.42.9.9:80", Some(pod)))),
        ("10.42.0.2:9999", Some(("10.42.0.2:9999", Some(pod)))),
        ("127.0.0.1:9999", Some(("127.42.0.2:9999", Some(home)))),
        // It listens by IPv6: there is a bridge.
        ("10.42.0.4:80", Some(("10.42.0.4:80", Some(pod)))),
        ("10.43.0.9:80", Some(("10.42.0.3:8080", Some(pod)))),
        ("10.43.0.9:81", None),
        ("10.43.0.10:80", None),
        ("10.43.0.11:80", Some(("10.42.7.9:80", Some(pod)))),
        ("10.43.0.12:80", Some(("192.0.2.8:443", Some(pod)))),
        ("192.0.2.1:443", Some(("192.0.2.1:443", Some(pod)))),
        ("192.0.2.1:6443", Some(("169.254.1.1:40100", Some(pod)))),
        // Localhost is its own, whatever it calls it: one on localhost before one on 0.0.0.0.
        ("127.0.0.1:7000", Some(("127.42.0.2:7000", Some(home)))),
        ("[::1]:7000", Some(("127.42.0.2:7000", Some(home)))),
        ("127.42.0.3:7000", Some(("127.42.0.2:7000", Some(home)))),
        ("127.42.0.3:7001", Some(("127.42.0.2:7001", Some(home)))),
        ("127.0.0.1:8080", Some(("10.42.0.2:8080", Some(home)))),
        ("0.0.0.0:8080", Some(("10.42.0.2:8080", Some(home)))),
        (
            "[::ffff:10.42.0.3]:8080",
            Some(("10.42.0.3:8080", Some(pod))),
        ),
    ] {
        let found = network.connect(Protocol::Tcp, socket(remote)).ok();
        let expected = expected.map(|(actual, source)| Peer {
            actual: socket(actual),
            source: source.map(socket),
        });
        assert_eq!(found, expected, "{remote}");
    }
}

#[test]
fn in_a_namespace_binds_are_the_pods_own_addresses() {
    let (_folder, network) = network_of(&namespaced());
    for (local, expected) in [
        ("0.0.0.0:80", Some("10.42.0.2:80")),
        ("0.0.0.0:0", Some("10.42.0.2:0")),
        ("10.42.0.2:80", Some("10.42.0.2:80")),
        ("127.0.0.1:80", Some("127.42.0.2:80")),
        ("127.42.0.3:80", Some("127.42.0.2:80")),
        ("[::]:80", Some("[::1]:0")),
        ("[::1]:80", Some("[::1]:0")),
        ("10.42.0.3:80", None),
        ("169.254.1.2:80", None),
    ] {
        let found = network.bind(Protocol::Tcp, socket(local)).ok();
        assert_eq!(found, expected.map(socket), "{local}");
    }
}

#[test]
fn in_a_namespace_callers_are_who_they_are() {
    let (_folder, network) = network_of(&namespaced());
    for (actual, expected) in [
        ("10.42.0.3:5", Some("10.42.0.3:5")),
        ("192.0.2.1:5", Some("192.0.2.1:5")),
        ("127.42.0.2:5", Some("127.0.0.1:5")),
        ("127.42.0.3:5", None),
        ("127.0.0.1:5", None),
        ("[::1]:5", Some("[::ffff:10.42.0.1]:5")),
    ] {
        let found = network.peer(Protocol::Tcp, socket(actual)).ok();
        assert_eq!(found, expected.map(socket), "{actual}");
    }
}

#[test]
fn a_service_that_stays_on_the_node_and_has_nobody_there_is_unreachable() {
    for mut contents in [contents(), namespaced()] {
        let service = Virtual {
            affinity: false,
            endpoints: Vec::new(),
            elsewhere: true,
        };
        contents.services.insert(key("10.43.0.14:80"), service);
        let (_folder, network) = network_of(&contents);
        let called = socket("10.43.0.14:80");
        assert_eq!(
            network
                .connect(Protocol::Tcp, called)
                .map(|peer| peer.actual),
            Err(NetworkError::RemoteUnreachable(called))
        );
    }
}

#[test]
fn no_service_leads_to_a_localhost() {
    for mut contents in [contents(), namespaced()] {
        contents
            .listeners
            .insert(key("127.42.0.3:7001"), socket("127.0.0.1:40999"));
        let service = Virtual {
            affinity: false,
            endpoints: vec![socket("127.42.0.3:7001")],
            elsewhere: false,
        };
        contents.services.insert(key("10.43.0.99:80"), service);
        let (_folder, network) = network_of(&contents);
        for remote in ["10.43.0.99:80", "127.42.0.3:7001"] {
            let found = network.connect(Protocol::Tcp, socket(remote));
            let reached = found.is_ok_and(|peer| {
                [socket("127.0.0.1:40999"), socket("127.42.0.3:7001")].contains(&peer.actual)
            });
            assert!(!reached, "{remote}");
        }
    }
}

#[test]
fn other_processes_of_the_pod_have_the_same_localhost() {
    let mut virtually = contents();
    virtually
        .listeners
        .insert(key("127.42.0.2:7000"), socket("127.0.0.1:41007"));
    let (_folder, network) = network_of(&virtually);
    let at = |remote| {
        let found = network.connect(Protocol::Tcp, socket(remote));
        found.map(|peer| peer.actual)
    };
    assert_eq!(at("127.0.0.1:7000"), Ok(socket("127.0.0.1:41007")));
    // A listener of this process on all addresses comes after it; others meet only that.
    let actual = Some(socket("127.0.0.1:41008"));
    network.listening(Protocol::Tcp, socket("0.0.0.0:7000"), actual);
    assert_eq!(at("127.0.0.1:7000"), Ok(socket("127.0.0.1:41007")));
    assert_eq!(at("10.42.0.2:7000"), Ok(socket("127.0.0.1:41008")));
}
