//! Ports of the machine that lead to Pods.

use super::*;
use crate::host_ports::tests::published;

impl Node {
    /// Ports as their records have them, each with its Pod.
    fn publish(&mut self, ports: &[&str]) {
        self.host_ports = ports.iter().map(|text| published(text)).collect();
        self.set(&["10.43.0.9 80/tcp -> 10.42.3.2:80"]);
    }
}

#[test]
fn whoever_calls_the_machine_reaches_the_pod_and_is_seen() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let (client, own) = (node.pod("10.42.3.130"), node.pod("10.42.3.131"));
        let container = listen(&own, socket("10.42.3.131:80")).unwrap();
        let guest = listen(&node.guests, socket("10.42.3.2:80")).unwrap();
        node.publish(&[
            "TCP 0.0.0.0 8080 80 -> 10.42.3.131",
            "TCP 0.0.0.0 8081 80 -> 10.42.3.2",
            // A Pod of one address goes before that of all.
            "TCP 198.51.100.1 8082 80 -> 10.42.3.2",
            "TCP 0.0.0.0 8082 80 -> 10.42.3.131",
        ]);
        let servers = [&container, &guest];
        let of_client = Ipv4Addr::new(10, 42, 3, 130);
        for (from, caller) in [
            (Some(&outside), OUTSIDE),
            (None, UPLINK),
            (Some(&client), of_client),
        ] {
            for (port, expected) in [(8080, 0), (8081, 1), (8082, 1)] {
                let stream = call(from, &format!("{UPLINK}:{port}")).unwrap();
                assert_eq!(called(&servers, stream), (expected, caller), "{port}");
            }
        }
        let stream = call(Some(&client), &format!("{HOST_END}:8082")).unwrap();
        assert_eq!(called(&servers, stream), (0, of_client));
        // A Pod calls itself, and a guest its neighbours.
        let stream = call(Some(&own), &format!("{UPLINK}:8080")).unwrap();
        assert_eq!(called(&servers, stream), (0, UPLINK));
        let source = Some(socket("10.42.3.3:0"));
        let to_guest = socket(&format!("{UPLINK}:8081"));
        let stream = connect_inside(&node.guests, source, to_guest).unwrap();
        assert_eq!(called(&servers, stream), (1, UPLINK));
        // Services go on, also where a port of the machine has their number; and so does what is
        // elsewhere.
        node.publish(&["TCP 0.0.0.0 80 80 -> 10.42.3.131"]);
        let stream = call(Some(&client), "10.43.0.9:80").unwrap();
        assert_eq!(called(&servers, stream).0, 1);
        let there = listen(&outside, SocketAddr::from((OUTSIDE, 80))).unwrap();
        for from in [Some(&client), None] {
            let stream = call(from, &format!("{OUTSIDE}:80")).unwrap();
            assert_eq!(called(&[&there], stream).1, UPLINK);
        }
        // Those that have gone.
        for from in [Some(&outside), None, Some(&client)] {
            let gone = refusal(from, &format!("{UPLINK}:8080"));
            assert_eq!(gone, ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn the_loopback_interface_is_left_to_who_listens_there() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut node = Node::single();
        let own = node.pod("10.42.3.131");
        let pod = listen(&own, socket("10.42.3.131:80")).unwrap();
        node.publish(&["TCP 0.0.0.0 8080 80 -> 10.42.3.131"]);
        let agent = TcpListener::bind("127.0.0.1:8080").unwrap();
        let stream = call(None, "127.0.0.1:8080").unwrap();
        assert_eq!(called(&[&pod, &agent], stream), (1, Ipv4Addr::LOCALHOST));
        let stream = call(None, &format!("{UPLINK}:8080")).unwrap();
        assert_eq!(called(&[&pod, &agent], stream), (0, UPLINK));
    });
}

#[test]
fn each_node_of_a_machine_has_its_ports() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut one = Node::single();
        let mut two = Node::new("c2", "10.50.0.0/16", "10.50.1.0/24");
        let servers = [
            listen(&one.guests, socket("10.42.3.2:80")).unwrap(),
            listen(&two.guests, socket("10.50.1.2:80")).unwrap(),
        ];
        let servers = servers.each_ref();
        let clients = [one.pod("10.42.3.130"), two.pod("10.50.1.130")];
        one.publish(&["TCP 0.0.0.0 8080 80 -> 10.42.3.2"]);
        two.publish(&["TCP 0.0.0.0 8081 80 -> 10.50.1.2"]);
        assert!(two.kernel.holder().is_some());
        for from in [Some(&outside), None, Some(&clients[0]), Some(&clients[1])] {
            for (port, expected) in [(8080, 0), (8081, 1)] {
                let stream = call(from, &format!("{UPLINK}:{port}")).unwrap();
                assert_eq!(called(&servers, stream).0, expected);
            }
        }
    });
}

#[test]
fn datagrams_go_to_the_pod_that_has_the_port_now() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let mut node = Node::single();
        let pod = node.pod("10.42.3.131");
        let servers = [
            udp(Some(&node.guests), "10.42.3.2:53"),
            udp(Some(&pod), "10.42.3.131:53"),
        ];
        for from in [Some(&outside), None] {
            node.publish(&[]);
            let sender = udp(from, "0.0.0.0:0");
            sender.connect((UPLINK, 5353)).unwrap();
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
            let to = ["10.42.3.2", "10.42.3.131"];
            let to = to.map(|pod| format!("UDP 0.0.0.0 5353 53 -> {pod}"));
            node.publish(&[&to[0]]);
            assert!((0..4).all(|_| answered_by() == 0));
            node.publish(&[&to[1]]);
            assert!((0..4).all(|_| answered_by() == 1));
            // While no agent was there.
            node.kernel = Kernel::default();
            node.publish(&[&to[0]]);
            assert!((0..4).all(|_| answered_by() == 0));
            node.publish(&[]);
            assert_refused(&sender);
        }
    });
}
