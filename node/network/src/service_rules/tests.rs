//! Real packets through the kernel's table, on machines of their own.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use coracle_runtime::Protocol;
use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::encode::STICKY;
use super::kernel::{Holder, Kernel};
use super::plan::plan;
use super::plan::tests::{of, service};
use super::*;
use crate::aliases::Alias;
use crate::host_ports::Published;
use crate::namespace::machine::{
    OUTSIDE, UPLINK, connect, connect_inside, listen, on_a_machine_of_its_own, outside, own, route,
};
use crate::namespace::{HOST_END, PodNamespace, inside};
use crate::nftables;
use crate::rules::Rules;

const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
const SERVICES: &str = "10.43.0.0/16";

/// A node of a cluster, with its table.
struct Node {
    folder: tempfile::TempDir,
    namespace: PodNamespace,
    /// The namespace that guests share.
    guests: File,
    frame: Frame,
    kernel: Kernel,
    aliases: Vec<Alias>,
    host_ports: Vec<Published>,
}

impl Node {
    fn new(cluster: &str, cluster_range: &str, range: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster_range = cluster_range.parse().unwrap();
        let namespace =
            PodNamespace::open(folder.path(), cluster, cluster_range, UPLINK.into()).unwrap();
        let range: Ipv4Net = range.parse().unwrap();
        namespace.use_range(range.into()).unwrap();
        Self {
            guests: File::open(namespace.path()).unwrap(),
            frame: namespace.services(range, SERVICES.parse().unwrap()),
            kernel: Kernel::default(),
            aliases: Vec::new(),
            host_ports: Vec::new(),
            namespace,
            folder,
        }
    }

    /// The namespace of a Pod with containers.
    fn pod(&self, address: &str) -> File {
        let address = address.parse().unwrap();
        let attached = self.namespace.attach(address, None).unwrap();
        self.namespace.settle(address).unwrap();
        File::open(attached).unwrap()
    }

    fn single() -> Self {
        Self::new("c1", "10.42.0.0/16", "10.42.3.0/24")
    }

    fn set(&mut self, services: &[&str]) {
        let ports = services.iter().map(|text| service(text)).collect();
        let table = plan(&of(ports), &self.host_ports, &self.aliases, &self.frame);
        self.kernel.bring(table).unwrap();
    }

    fn tear_down(&self) {
        PodNamespace::tear_down(self.folder.path()).unwrap();
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Calls from a network, or from the machine.
fn call(from: Option<&File>, to: &str) -> io::Result<TcpStream> {
    match from {
        Some(namespace) => connect_inside(namespace, None, socket(to)),
        None => connect(None, socket(to)),
    }
}

fn refusal(from: Option<&File>, to: &str) -> ErrorKind {
    call(from, to).unwrap_err().kind()
}

/// Which of these has something to take.
fn ready(sockets: &[&dyn std::os::fd::AsFd]) -> usize {
    let mut polled: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
        .collect();
    assert_ne!(
        poll(&mut polled, Some(&PATIENCE)).unwrap(),
        0,
        "nobody is called"
    );
    let ready = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::IN);
    polled.iter().position(ready).unwrap()
}

/// Which of these is called, and by whom; a byte says that it answers.
fn called(listeners: &[&TcpListener], mut stream: TcpStream) -> (usize, Ipv4Addr) {
    use std::io::{Read, Write};
    let sockets: Vec<&dyn std::os::fd::AsFd> = listeners.iter().map(|l| *l as _).collect();
    let position = ready(&sockets);
    let (mut accepted, caller) = listeners[position].accept().unwrap();
    accepted.write_all(&[1]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    match caller {
        SocketAddr::V4(caller) => (position, *caller.ip()),
        SocketAddr::V6(_) => panic!("{caller}"),
    }
}

fn udp(namespace: Option<&File>, at: &str) -> UdpSocket {
    let socket = match namespace {
        Some(namespace) => inside(namespace, || UdpSocket::bind(at)),
        None => UdpSocket::bind(at),
    };
    let socket = socket.unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

/// A datagram is refused: with its answer, or to who is on the machine when it is sent.
fn assert_refused(sender: &UdpSocket) {
    let sent = sender.send(b"ahoy");
    let refused = sent.and_then(|_| sender.recv(&mut [0; 8])).unwrap_err();
    let kinds = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
    assert!(kinds.contains(&refused.kind()), "{refused}");
    // The answer, where sending has failed already.
    sender.take_error().unwrap();
}

#[test]
fn connections_spread_over_endpoints_of_both_kinds() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let (client, server) = (node.pod("10.42.3.130"), node.pod("10.42.3.131"));
        let guest = listen(&node.guests, socket("10.42.3.2:8080")).unwrap();
        let other = listen(&server, socket("10.42.3.131:8080")).unwrap();
        inside(&outside, || {
            route("down", SERVICES, Some(UPLINK));
            Ok(())
        })
        .unwrap();
        node.set(&["10.43.0.9 80/tcp -> 10.42.3.2:8080 10.42.3.131:8080"]);
        let from = [
            (Some(&client), Ipv4Addr::new(10, 42, 3, 130)),
            (None, UPLINK),
            (Some(&outside), OUTSIDE),
        ];
        for (from, expected) in from {
            let mut counts = [0; 2];
            for _ in 0..64 {
                let stream = call(from, "10.43.0.9:80").unwrap();
                let (position, caller) = called(&[&guest, &other], stream);
                assert_eq!(caller, expected, "no NAT of the caller");
                counts[position] += 1;
            }
            assert!(counts.iter().all(|count| *count > 4), "{counts:?}");
        }
    });
}

#[test]
fn a_client_with_affinity_stays_while_its_endpoint_does() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let addresses = ["10.42.3.2:80", "10.42.3.3:80", "10.42.3.4:80"];
        let servers = addresses.map(|address| listen(&node.guests, socket(address)).unwrap());
        let servers = servers.each_ref();
        let set = |node: &mut Node, addresses: &[&str]| {
            node.set(&[&format!("10.43.0.9 80/tcp 600 -> {}", addresses.join(" "))]);
        };
        let chosen = || called(&servers, call(Some(&client), "10.43.0.9:80").unwrap()).0;
        let stays = |at: usize| assert!((0..16).all(|_| chosen() == at));
        set(&mut node, &addresses);
        let first = chosen();
        stays(first);
        let known = nftables::elements(&node.frame.table, STICKY.name).unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].life.unwrap().0, Duration::from_secs(600));

        // Others come and go.
        let others: Vec<&str> = addresses
            .into_iter()
            .filter(|a| *a != addresses[first])
            .collect();
        for other in &others {
            set(&mut node, &[addresses[first], other]);
            stays(first);
        }
        // The next agent.
        node.kernel = Kernel::default();
        set(&mut node, &addresses);
        stays(first);
        // Its own goes, and it has another one from then on.
        set(&mut node, &others);
        let second = chosen();
        assert_ne!(second, first);
        set(&mut node, &addresses);
        stays(second);
        // The machine is another client.
        let machine = || called(&servers, call(None, "10.43.0.9:80").unwrap()).0;
        let of_machine = machine();
        assert!((0..8).all(|_| machine() == of_machine));
        assert_eq!(
            nftables::elements(&node.frame.table, STICKY.name)
                .unwrap()
                .len(),
            2
        );
    });
}

#[test]
fn what_has_no_endpoints_is_refused_at_once() {
    on_a_machine_of_its_own(|| {
        // It would swallow what it has never heard of.
        let _outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        node.set(&[
            "10.43.0.9,203.0.113.5 80/tcp ->",
            "10.43.0.9 80/udp ->",
            "10.43.0.10 80/tcp 60 ->",
        ]);
        for from in [Some(&client), Some(&node.guests), None] {
            for nobody in [
                "10.43.0.9:80",
                "203.0.113.5:80",
                "10.43.0.10:80",
                "10.43.0.9:81",
                "10.43.7.7:80",
            ] {
                assert_eq!(
                    refusal(from, nobody),
                    ErrorKind::ConnectionRefused,
                    "{nobody}"
                );
            }
            let sender = udp(from, "0.0.0.0:0");
            sender.connect("10.43.0.9:80").unwrap();
            assert_refused(&sender);
        }
    });
}

#[test]
fn a_pod_reaches_itself_and_its_neighbours_through_a_service() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let own = node.pod("10.42.3.130");
        let server = listen(&own, socket("10.42.3.130:8080")).unwrap();
        node.set(&[
            "10.43.0.9 80/tcp -> 10.42.3.130:8080",
            "10.43.0.10 80/tcp -> 10.42.3.3:8080",
        ]);
        let stream = call(Some(&own), "10.43.0.9:80").unwrap();
        assert_eq!(called(&[&server], stream).1, UPLINK);
        // Both in the namespace of guests.
        let neighbour = listen(&node.guests, socket("10.42.3.3:8080")).unwrap();
        let source = Some(socket("10.42.3.2:0"));
        let stream = connect_inside(&node.guests, source, socket("10.43.0.10:80")).unwrap();
        assert_eq!(called(&[&neighbour], stream).1, UPLINK);
    });
}

#[test]
fn datagrams_follow_their_endpoints() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let servers = [
            udp(Some(&node.guests), "10.42.3.2:53"),
            udp(Some(&node.guests), "10.42.3.3:53"),
        ];
        node.set(&[]);
        for from in [Some(&client), None] {
            // One flow, for the port stays the same.
            let sender = udp(from, "0.0.0.0:0");
            sender.connect("10.43.0.9:53").unwrap();
            let answered_by = || {
                sender.send(b"ahoy").unwrap();
                let sockets: Vec<&dyn std::os::fd::AsFd> = servers.iter().map(|s| s as _).collect();
                let position = ready(&sockets);
                let (_, from) = servers[position].recv_from(&mut [0; 8]).unwrap();
                servers[position].send_to(b"aye", from).unwrap();
                assert_eq!(sender.recv(&mut [0; 8]).unwrap(), 3);
                position
            };
            assert_refused(&sender);
            node.set(&["10.43.0.9 53/udp -> 10.42.3.2:53"]);
            assert_eq!(answered_by(), 0);
            node.set(&["10.43.0.9 53/udp -> 10.42.3.2:53 10.42.3.3:53"]);
            assert!((0..8).all(|_| answered_by() == 0), "a flow is kept");
            node.set(&["10.43.0.9 53/udp -> 10.42.3.3:53"]);
            assert!((0..8).all(|_| answered_by() == 1));
            // While no agent was there.
            node.kernel = Kernel::default();
            node.set(&["10.43.0.9 53/udp -> 10.42.3.2:53"]);
            assert!((0..8).all(|_| answered_by() == 0));
            node.set(&["10.43.0.9 53/udp ->"]);
            assert_refused(&sender);
            node.set(&[]);
        }
    });
}

#[test]
fn what_leaves_the_cluster_leaves_under_the_machines_address() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let server = listen(&outside, SocketAddr::from((OUTSIDE, 443))).unwrap();
        let here = TcpListener::bind((HOST_END, 0)).unwrap();
        node.aliases = vec![Alias {
            protocol: Protocol::Tcp,
            known: socket("192.0.2.9:6443"),
            actual: here.local_addr().unwrap(),
        }];
        node.set(&[
            &format!("10.43.0.9 443/tcp -> {OUTSIDE}:443"),
            "10.43.0.1 443/tcp -> 192.0.2.9:6443",
        ]);
        for from in [Some(&client), None] {
            let stream = call(from, "10.43.0.9:443").unwrap();
            assert_eq!(called(&[&server], stream).1, UPLINK);
        }
        // A socket of the agent, who has to tell Pods and the machine from others.
        let stream = call(Some(&client), "10.43.0.1:443").unwrap();
        assert_eq!(called(&[&here], stream).1, Ipv4Addr::new(10, 42, 3, 130));
        let stream = call(None, "10.43.0.1:443").unwrap();
        assert_eq!(called(&[&here], stream).1, HOST_END);
    });
}

#[test]
fn a_network_of_the_machine_stays_in_its_reach() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let server = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        route("uplink", "10.43.7.0/24", Some(OUTSIDE));
        inside(&outside, || {
            own("10.43.7.7".parse().unwrap());
            Ok(())
        })
        .unwrap();
        let there = listen(&outside, socket("10.43.7.7:80")).unwrap();
        node.set(&["10.43.0.9 80/tcp -> 10.42.3.2:80"]);
        assert!(matches!(node.kernel.holder(), Some(Holder::Route(_))));
        called(&[&there], call(None, "10.43.7.7:80").unwrap());
        called(&[&server], call(Some(&client), "10.43.0.9:80").unwrap());
    });
}

mod nodes;
mod policies;
mod ports;
mod upkeep;
