//! Calls that stay on their node, and Services that are another proxy's.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::*;
use crate::rules::ServicePort;

const OF_OUTSIDE: &str = "203.0.113.5";

impl Node {
    fn bring(&mut self, ports: Vec<ServicePort>) {
        let table = plan(&of(ports), &[], &[], &self.frame);
        self.kernel.bring(table).unwrap();
    }
}

/// A Service with an address for outside and the port 30080 on nodes.
fn external(text: &str, is_local: bool) -> ServicePort {
    let mut service = service(text);
    service.external_addresses = vec![OF_OUTSIDE.parse().unwrap()];
    service.external_is_local = is_local;
    service
}

/// Whether a call is neither taken nor refused by the time that another one is refused.
fn is_dropped(from: Option<&File>, to: &str) -> bool {
    let to = socket(to);
    let begin = || -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    };
    let begun = match from {
        Some(namespace) => inside(namespace, begin),
        None => begin(),
    };
    let begun = begun.unwrap();
    assert_eq!(refusal(from, "10.43.7.7:80"), ErrorKind::ConnectionRefused);
    let mut polled = [PollFd::new(&begun, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let is_settled = poll(&mut polled, Some(&at_once)).unwrap() != 0;
    let error = sockopt::socket_error(&begun).unwrap();
    !is_settled && error.is_ok()
}

#[test]
fn what_is_to_stay_on_the_node_is_dropped_where_nobody_is_there() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let here = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        let mut service = service("10.43.0.9 80/tcp -> 10.42.3.2:80 10.42.9.9:80");
        service.internal_is_local = true;
        node.bring(vec![service.clone()]);
        for from in [Some(&client), None] {
            for _ in 0..16 {
                called(&[&here], call(from, "10.43.0.9:80").unwrap());
            }
        }
        service.local_endpoints.clear();
        node.bring(vec![service.clone()]);
        for from in [Some(&client), None] {
            assert!(is_dropped(from, "10.43.0.9:80"));
        }
        service.endpoints.clear();
        node.bring(vec![service]);
        for from in [Some(&client), None] {
            let refused = refusal(from, "10.43.0.9:80");
            assert_eq!(refused, ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn who_comes_from_elsewhere_reaches_the_nodes_endpoints_and_is_seen() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        let other = node.pod("10.42.3.131");
        let here = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        // As if it were on another node.
        let there = listen(&other, socket("10.42.3.131:80")).unwrap();
        let agent = TcpListener::bind("0.0.0.0:30080").unwrap();
        inside(&outside, || {
            route("down", "203.0.113.0/24", Some(UPLINK));
            route("down", SERVICES, Some(UPLINK));
            Ok(())
        })
        .unwrap();
        let all = [&here, &there, &agent];
        let node_port = format!("{UPLINK}:30080");
        let outwards = [format!("{OF_OUTSIDE}:80"), node_port.clone()];
        for affinity in ["", "600 "] {
            let text = format!("10.43.0.9 80/tcp {affinity}-> 10.42.3.2:80 10.42.3.131:80");
            let mut service = external(&text, true);
            service.local_endpoints = vec![socket("10.42.3.2:80")];
            node.bring(vec![service]);
            for to in &outwards {
                for _ in 0..16 {
                    let stream = call(Some(&outside), to).unwrap();
                    assert_eq!(called(&all, stream), (0, OUTSIDE), "{to}");
                }
            }
        }
        // The node and its Pods go anywhere, by the agent where the port is the node's.
        for from in [Some(&client), None] {
            assert_eq!(called(&all, call(from, &node_port).unwrap()).0, 2);
        }
        let text = "10.43.0.9 80/tcp -> 10.42.3.131:80";
        let mut service = external(text, true);
        service.local_endpoints.clear();
        node.bring(vec![service.clone()]);
        for from in [Some(&client), None] {
            assert_eq!(called(&all, call(from, &outwards[0]).unwrap()).0, 1);
            assert_eq!(called(&all, call(from, &node_port).unwrap()).0, 2);
        }
        for to in &outwards {
            assert!(is_dropped(Some(&outside), to), "{to}");
        }
        // An address of the cluster knows no such policy.
        let stream = call(Some(&outside), "10.43.0.9:80").unwrap();
        assert_eq!(called(&all, stream).0, 1);
        service.external_is_local = false;
        node.bring(vec![service]);
        let stream = call(Some(&outside), &outwards[0]).unwrap();
        assert_eq!(called(&all, stream).0, 1);
        let stream = call(Some(&outside), &node_port).unwrap();
        assert_eq!(called(&all, stream).0, 2);
    });
}

#[test]
fn a_client_with_affinity_follows_the_policy() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let other = node.pod("10.42.3.131");
        let here = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        // As if it were on another node.
        let there = listen(&other, socket("10.42.3.131:80")).unwrap();
        inside(&outside, || {
            route("down", "203.0.113.0/24", Some(UPLINK));
            Ok(())
        })
        .unwrap();
        let to = format!("{OF_OUTSIDE}:80");
        let chosen = || called(&[&here, &there], call(Some(&outside), &to).unwrap()).0;
        let text = "10.43.0.9 80/tcp 600 -> 10.42.3.131:80";
        node.bring(vec![external(text, false)]);
        assert_eq!(chosen(), 1);
        let text = "10.43.0.9 80/tcp 600 -> 10.42.3.2:80 10.42.3.131:80";
        let mut service = external(text, true);
        service.local_endpoints = vec![socket("10.42.3.2:80")];
        node.bring(vec![service.clone()]);
        assert!((0..8).all(|_| chosen() == 0));
        // That one is for it as well when it may go anywhere.
        service.external_is_local = false;
        node.bring(vec![service]);
        assert!((0..8).all(|_| chosen() == 0));
    });
}

#[test]
fn datagrams_to_a_port_of_the_machine_follow_the_policy() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let here = udp(Some(&node.guests), "10.42.3.2:53");
        let agent = udp(None, "0.0.0.0:30080");
        // Of a Pod with the machine's network.
        let hosted_at = SocketAddr::from((UPLINK, 5353));
        let hosted = udp(None, &hosted_at.to_string());
        let client = udp(Some(&outside), "0.0.0.0:0");
        client.connect((UPLINK, 30080)).unwrap();
        // One flow, for its port stays the same.
        let reached = || {
            client.send(b"ahoy").unwrap();
            ready(&[&here, &agent, &hosted])
        };
        let taken = |server: &UdpSocket| server.recv_from(&mut [0; 8]).unwrap().1.ip();
        let text = "10.43.0.9 53/udp -> 10.42.3.2:53";
        node.bring(vec![external(text, false)]);
        assert_eq!(reached(), 1);
        taken(&agent);
        node.bring(vec![external(text, true)]);
        assert_eq!(reached(), 0);
        assert_eq!(taken(&here), OUTSIDE);
        let mut service = external(&format!("10.43.0.9 53/udp -> {hosted_at}"), true);
        service.local_endpoints = vec![hosted_at];
        node.bring(vec![service]);
        assert_eq!(reached(), 2);
        assert_eq!(taken(&hosted), OUTSIDE);
        node.bring(vec![external(text, true)]);
        assert_eq!(reached(), 0);
        taken(&here);
        node.bring(vec![external(text, false)]);
        assert_eq!(reached(), 1);
    });
}

#[test]
fn another_proxys_address_is_left_to_it() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let client = node.pod("10.42.3.130");
        // Whoever has it is beyond the machine.
        let other = inside(&outside, || {
            own("10.43.0.9".parse().unwrap());
            TcpListener::bind("10.43.0.9:80")
        })
        .unwrap();
        let socket = ("10.43.0.9".parse().unwrap(), 80, Protocol::Tcp);
        let rules = Rules {
            left: BTreeSet::from([socket]),
            ..Rules::default()
        };
        let table = plan(&rules, &[], &[], &node.frame);
        node.kernel.bring(table).unwrap();
        for from in [Some(&client), None] {
            called(&[&other], call(from, "10.43.0.9:80").unwrap());
            let refused = refusal(from, "10.43.0.9:81");
            assert_eq!(refused, ErrorKind::ConnectionRefused);
        }
    });
}
