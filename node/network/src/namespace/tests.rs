use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::machine::{
    OUTSIDE, UPLINK, connect, connect_inside, listen, on_a_machine_of_its_own, ours, outside,
};
use super::*;

const CLUSTER: &str = "10.42.0.0/16";

fn open(folder: &Path, cluster: &str, range: &str) -> Result<PodNamespace, NamespaceError> {
    PodNamespace::open(folder, cluster, range.parse().unwrap(), UPLINK.into())
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A node with a range.
fn node(folder: &Path, range: &str) -> (PodNamespace, File) {
    let namespace = open(folder, "c1", CLUSTER).unwrap();
    namespace.use_range(range.parse().unwrap()).unwrap();
    let file = File::open(namespace.path()).unwrap();
    (namespace, file)
}

fn table(folder: &Path) -> String {
    Names::of(&absolute(folder).unwrap()).table
}

#[test]
fn pods_meet_each_other_and_the_machine_under_their_addresses() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let folder = tempfile::tempdir().unwrap();
        let (_node, pods) = node(folder.path(), "10.42.3.0/24");
        // Two Pods have the same port, a low one; nothing of them is configured one by one.
        let one = listen(&pods, socket("10.42.3.2:80")).unwrap();
        let two = listen(&pods, socket("10.42.3.3:80")).unwrap();
        assert!(listen(&pods, socket("10.42.4.2:80")).is_err());

        let stream = connect(None, socket("10.42.3.2:80")).unwrap();
        let (_, caller) = one.accept().unwrap();
        assert_eq!(caller, stream.local_addr().unwrap());
        assert_eq!(caller.ip(), UPLINK, "the machine calls as the node");

        let source = Some(socket("10.42.3.2:0"));
        let _stream = connect_inside(&pods, source, socket("10.42.3.3:80")).unwrap();
        let (_, caller) = two.accept().unwrap();
        assert_eq!(caller.ip(), Ipv4Addr::new(10, 42, 3, 2));

        for nobody in ["10.42.3.2:81", "10.42.3.9:80"] {
            let error = connect(None, socket(nobody)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{nobody}");
        }
        // A guest process that asks as itself comes from the range too.
        let here = TcpListener::bind((UPLINK, 0)).unwrap();
        let _stream = connect_inside(&pods, None, here.local_addr().unwrap()).unwrap();
        assert_eq!(here.accept().unwrap().1.ip(), Ipv4Addr::new(10, 42, 3, 1));
    });
}

#[test]
fn what_pods_send_outside_comes_from_the_machine() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let folder = tempfile::tempdir().unwrap();
        let (_node, pods) = node(folder.path(), "10.42.3.0/24");
        let server = listen(&outside, SocketAddr::from((OUTSIDE, 443))).unwrap();
        let source = Some(socket("10.42.3.2:0"));
        let _stream = connect_inside(&pods, source, SocketAddr::from((OUTSIDE, 443))).unwrap();
        assert_eq!(server.accept().unwrap().1.ip(), UPLINK);
    });
}

#[test]
fn nodes_of_one_cluster_on_one_machine_reach_each_other() {
    on_a_machine_of_its_own(|| {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (_one, pods_one) = node(folders[0].path(), "10.42.1.0/24");
        let (_two, pods_two) = node(folders[1].path(), "10.42.2.0/24");
        let server = listen(&pods_two, socket("10.42.2.2:80")).unwrap();
        let source = Some(socket("10.42.1.2:0"));
        let _stream = connect_inside(&pods_one, source, socket("10.42.2.2:80")).unwrap();
        let caller = server.accept().unwrap().1;
        assert_eq!(
            caller.ip(),
            Ipv4Addr::new(10, 42, 1, 2),
            "no NAT between Pods"
        );
        // One goes, and the other stays whole.
        PodNamespace::tear_down(folders[0].path()).unwrap();
        let _stream = connect(None, socket("10.42.2.2:80")).unwrap();
    });
}

#[test]
fn addresses_of_no_node_are_refused_at_once() {
    on_a_machine_of_its_own(|| {
        // It would swallow what it has never heard of.
        let _outside = outside();
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (_one, pods) = node(folders[0].path(), "10.42.1.0/24");
        let (_two, pods_two) = node(folders[1].path(), "10.42.2.0/24");
        let _server = listen(&pods_two, socket("10.42.2.2:80")).unwrap();
        let nobody = socket("10.42.9.9:80");
        let unreachable = |pod: &str| {
            let tries = [
                connect(None, nobody),
                connect_inside(&pods, Some(socket(pod)), nobody),
            ];
            for tried in tries {
                let error = tried.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
            }
        };
        unreachable("10.42.1.2:0");
        connect_inside(&pods, None, socket("10.42.2.2:80")).unwrap();
        // It is shared, and goes with the last.
        let refused = || Links::open().unwrap().refused().unwrap();
        PodNamespace::tear_down(folders[1].path()).unwrap();
        assert_eq!(
            refused(),
            [CLUSTER, "10.42.1.128/25"].map(|range| range.parse().unwrap())
        );
        unreachable("10.42.1.3:0");
        PodNamespace::tear_down(folders[0].path()).unwrap();
        assert_eq!(refused(), []);
    });
}

#[test]
fn an_agent_that_comes_back_keeps_what_is_there() {
    on_a_machine_of_its_own(|| {
        let folder = tempfile::tempdir().unwrap();
        let (_node, pods) = node(folder.path(), "10.42.3.0/24");
        let server = listen(&pods, socket("10.42.3.2:80")).unwrap();
        let stream = connect(None, socket("10.42.3.2:80")).unwrap();
        let (_node, again) = node(folder.path(), "10.42.3.0/24");
        let second = connect_inside(&again, None, socket("10.42.3.2:80")).unwrap();
        for _ in [stream, second] {
            server.accept().unwrap();
        }
        // Another range takes the first one's place.
        let (_node, pods) = node(folder.path(), "10.42.7.0/24");
        assert!(listen(&pods, socket("10.42.3.2:81")).is_err());
        let server = listen(&pods, socket("10.42.7.2:81")).unwrap();
        let _stream = connect(None, socket("10.42.7.2:81")).unwrap();
        server.accept().unwrap();
    });
}

#[test]
fn tearing_down_leaves_nothing() {
    on_a_machine_of_its_own(|| {
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let nothing = (Vec::new(), Vec::new(), false);
        assert_eq!(ours(&table), nothing);
        PodNamespace::tear_down(folder.path()).unwrap();
        let (_node, pods) = node(folder.path(), "10.42.3.0/24");
        let (links, files, there) = ours(&table);
        assert_eq!((links.len(), files.len(), there), (1, 1, true));
        // A guest that still has a socket in it does not hold it.
        let _server = listen(&pods, socket("10.42.3.2:80")).unwrap();
        PodNamespace::tear_down(folder.path()).unwrap();
        assert_eq!(ours(&table), nothing);
        assert!(connect(None, socket("10.42.3.2:80")).is_err());
        PodNamespace::tear_down(folder.path()).unwrap();
        // It can be made again at once.
        drop(node(folder.path(), "10.42.3.0/24"));
    });
}

#[test]
fn ranges_in_use_are_refused_and_nothing_is_left() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let refused = |cluster: &str, range: &str| {
            let error = open(folders[1].path(), cluster, range).unwrap_err();
            assert!(error.to_string().contains("--cluster-cidr"), "{error}");
        };
        drop(open(folders[0].path(), "c1", CLUSTER).unwrap());
        // Another cluster with the same range, before either has a route.
        refused("c2", CLUSTER);
        // A machine or a network that is there already.
        inside_out();
        refused("c2", "172.16.0.0/12");
        refused("c2", "fd00:42::/56");
        let (links, files, _) = ours(&table(folders[1].path()));
        assert_eq!((links.len(), files.len()), (1, 1));
        // The first cluster is gone without a word, and its range is free.
        let [gone, second] = folders;
        gone.close().unwrap();
        drop(open(second.path(), "c2", CLUSTER).unwrap());
    });
}

/// A route by somebody else's link.
fn inside_out() {
    let mut links = Links::open().unwrap();
    let uplink = links.index("uplink").unwrap().unwrap();
    let route = links::Route {
        destination: "172.20.0.0/16".parse().unwrap(),
        way: links::Way::Gateway {
            gateway: Some(OUTSIDE),
            source: None,
        },
        link: uplink,
    };
    links.set_route(&route).unwrap();
}

#[test]
fn forwarding_is_the_own_machines_alone() {
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let before = forwarding();
    on_a_machine_of_its_own(move || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        drop(node(folder.path(), "10.42.3.0/24"));
        assert_eq!(forwarding().trim(), "1");
    });
    let after = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(before, after);
}

/// Somebody's answer to somebody's call: the caller's address.
fn called(server: &TcpListener, stream: io::Result<std::net::TcpStream>) -> std::net::IpAddr {
    let _stream = stream.unwrap();
    server.accept().unwrap().1.ip()
}

/// The namespace of a Pod with containers.
fn attach(node: &PodNamespace, address: &str) -> File {
    let address = address.parse().unwrap();
    let file = node.attach(address, None).unwrap();
    node.settle(address).unwrap();
    File::open(file).unwrap()
}

#[test]
fn the_namespace_of_a_pod_belongs_to_its_users_and_keeps_them() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let folder = tempfile::tempdir().unwrap();
        let (node, _guests) = node(folder.path(), "10.42.3.0/24");
        let users = Some(coracle_runtime::IdRange {
            first: 2_100_000_000,
        });
        let owner = |address: &str, users| {
            let file = node.attach(address.parse().unwrap(), users).unwrap();
            let owner = coracle_runtime::users::owner(File::open(file).unwrap()).unwrap();
            owner.map(|owner| rustix::fs::fstat(owner).unwrap().st_ino)
        };
        let first = owner("10.42.3.130", users);
        assert!(first.is_some());
        assert_eq!(owner("10.42.3.130", users), first);
        assert_eq!(owner("10.42.3.131", None), None);
        // It is joined to the network like any other.
        let one = attach(&node, "10.42.3.130");
        let other = attach(&node, "10.42.3.131");
        let at = SocketAddr::from(([10, 42, 3, 130], 80));
        let server = listen(&one, at).unwrap();
        let caller = called(&server, connect_inside(&other, None, at));
        assert_eq!(caller.to_string(), "10.42.3.131");
    });
}

#[test]
fn pods_with_namespaces_of_their_own_meet_everybody_under_their_addresses() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (node_one, guests) = node(folders[0].path(), "10.42.3.0/24");
        let (node_two, _) = node(folders[1].path(), "10.42.4.0/24");
        let one = attach(&node_one, "10.42.3.130");
        let two = attach(&node_one, "10.42.3.131");
        let sibling = attach(&node_two, "10.42.4.130");
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        // In a namespace of one's own everything may be bound, by two Pods alike.
        let (at_one, at_two) = (
            listen(&one, any(80)).unwrap(),
            listen(&two, any(80)).unwrap(),
        );
        let at_sibling = listen(&sibling, any(80)).unwrap();
        let at_guest = listen(&guests, socket("10.42.3.2:80")).unwrap();
        let at_machine = TcpListener::bind((UPLINK, 0)).unwrap();
        let at_outside = listen(&outside, SocketAddr::from((OUTSIDE, 443))).unwrap();

        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let dial = |from, source, to: &str| connect_inside(from, source, socket(to));
        // Container to container, also of another node on the machine, without NAT.
        assert_eq!(
            called(&at_two, dial(&one, None, "10.42.3.131:80")),
            ip("10.42.3.130")
        );
        assert_eq!(
            called(&at_sibling, dial(&one, None, "10.42.4.130:80")),
            ip("10.42.3.130")
        );
        // Container to guest and back.
        assert_eq!(
            called(&at_guest, dial(&one, None, "10.42.3.2:80")),
            ip("10.42.3.130")
        );
        let as_guest = Some(socket("10.42.3.2:0"));
        assert_eq!(
            called(&at_one, dial(&guests, as_guest, "10.42.3.130:80")),
            ip("10.42.3.2")
        );
        // Machine to container and back, and the container to itself.
        assert_eq!(
            called(&at_one, connect(None, socket("10.42.3.130:80"))),
            UPLINK
        );
        let machine = at_machine.local_addr().unwrap();
        assert_eq!(
            called(&at_machine, connect_inside(&one, None, machine)),
            ip("10.42.3.130")
        );
        for own in ["10.42.3.130:80", "127.0.0.1:80"] {
            drop(dial(&one, None, own).unwrap());
            at_one.accept().unwrap();
        }
        // What is outside sees the machine.
        let dialled = connect_inside(&one, None, SocketAddr::from((OUTSIDE, 443)));
        assert_eq!(called(&at_outside, dialled), UPLINK);
        // Nobody's addresses are refused, and go round in no circle.
        for stream in [
            connect(None, socket("10.42.3.200:80")),
            dial(&two, None, "10.42.3.201:80"),
            dial(&guests, as_guest, "10.42.3.202:80"),
        ] {
            assert_eq!(stream.unwrap_err().kind(), io::ErrorKind::HostUnreachable);
        }
        let unserved = dial(&guests, as_guest, "10.42.3.130:81").unwrap_err();
        assert_eq!(unserved.kind(), io::ErrorKind::ConnectionRefused);
        // One that is gone is nobody.
        node_one.detach(ip("10.42.3.130")).unwrap();
        let gone = connect(None, socket("10.42.3.130:80")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::HostUnreachable);
        drop(connect(None, socket("10.42.3.131:80")).unwrap());
    });
}

#[test]
fn links_are_in_their_group_also_where_they_were_there() {
    on_a_machine_of_its_own(|| {
        let folder = tempfile::tempdir().unwrap();
        let names = Names::of(&absolute(folder.path()).unwrap());
        let pod = Ipv4Addr::new(10, 42, 3, 130);
        let ends = [
            (names.link.clone(), &names.namespace),
            (names.pod_link(pod), &names.pod_namespace(pod)),
        ];
        let mut links = Links::open().unwrap();
        let peer = links::NewLink {
            name: plan::INSIDE,
            ..links::NewLink::default()
        };
        for (name, namespace) in &ends {
            let namespace = apply::namespace(namespace, None).unwrap();
            let link = links::NewLink { name, ..peer };
            links.add_pair(link, peer, &namespace).unwrap();
            assert_eq!(links.group(name).unwrap(), Some(0));
        }
        let (node, _) = node(folder.path(), "10.42.3.0/24");
        drop(attach(&node, "10.42.3.130"));
        drop(attach(&node, "10.42.3.131"));
        let new = names.pod_link(Ipv4Addr::new(10, 42, 3, 131));
        for name in [&ends[0].0, &ends[1].0, &new] {
            assert_eq!(links.group(name).unwrap(), Some(LINK_GROUP), "{name}");
        }
    });
}

#[test]
fn an_agent_that_comes_back_keeps_the_namespaces_of_pods_that_are_left() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let folder = tempfile::tempdir().unwrap();
        let table = table(folder.path());
        let (first, _) = node(folder.path(), "10.42.3.0/24");
        let stays = attach(&first, "10.42.3.130");
        let server = listen(&stays, socket("0.0.0.0:80")).unwrap();
        let stream = connect(None, socket("10.42.3.130:80")).unwrap();
        drop(attach(&first, "10.42.3.131"));
        drop(first);
        let (again, _) = node(folder.path(), "10.42.3.0/24");
        let stay: IpAddr = "10.42.3.130".parse().unwrap();
        again.keep(|address| address == stay).unwrap();
        let (links, files, _) = ours(&table);
        assert_eq!((links.len(), files.len()), (2, 2), "{links:?} {files:?}");
        drop(attach(&again, "10.42.3.130"));
        drop(stream);
        let second = connect(None, socket("10.42.3.130:80"));
        server.accept().unwrap();
        assert_eq!(called(&server, second), UPLINK);
        // A namespace that has lost its links, as after a restart of the machine, gets new ones.
        let mut links = Links::open().unwrap();
        let link = links
            .index(&again.names.pod_link(Ipv4Addr::new(10, 42, 3, 130)))
            .unwrap();
        links.delete(link.unwrap()).unwrap();
        drop(attach(&again, "10.42.3.130"));
        assert_eq!(
            called(&server, connect(None, socket("10.42.3.130:80"))),
            UPLINK
        );
        PodNamespace::tear_down(folder.path()).unwrap();
        assert_eq!(ours(&table), (Vec::new(), Vec::new(), false));
    });
}
