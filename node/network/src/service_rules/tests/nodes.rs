//! Several nodes on one machine.

use super::*;
use crate::namespace::machine::ours;

#[test]
fn nodes_of_two_clusters_share_a_machine_and_a_range_of_services() {
    on_a_machine_of_its_own(|| {
        let outside = outside();
        let elsewhere = inside(&outside, || {
            own("10.43.0.9".parse().unwrap());
            own("203.0.113.5".parse().unwrap());
            TcpListener::bind("0.0.0.0:80")
        })
        .unwrap();
        let mut one = Node::single();
        let mut two = Node::new("c2", "10.50.0.0/16", "10.50.1.0/24");
        let client_one = one.pod("10.42.3.130");
        let client_two = two.pod("10.50.1.130");
        let servers = [
            listen(&one.guests, socket("10.42.3.2:80")).unwrap(),
            listen(&two.guests, socket("10.50.1.2:80")).unwrap(),
        ];
        let servers = servers.each_ref();
        let to = |from: Option<&File>| called(&servers, call(from, "10.43.0.9:80").unwrap()).0;
        let service_of_two = ["10.43.0.9 80/tcp -> 10.50.1.2:80"];
        one.set(&[
            "10.43.0.9 80/tcp -> 10.42.3.2:80",
            "10.43.0.8,203.0.113.5 80/tcp -> 10.42.3.2:80",
        ]);
        // A node without a table yet: its Pods do not go by another's, those of guests neither.
        let past = |from: &File, address: &str| {
            let stream = call(Some(from), address).unwrap();
            let all = [servers[0], servers[1], &elsewhere];
            assert_eq!(called(&all, stream), (2, UPLINK), "{address}");
        };
        for from in [&client_two, &two.guests] {
            past(from, "10.43.0.9:80");
            past(from, "203.0.113.5:80");
        }
        two.set(&service_of_two);
        assert_eq!(
            (to(Some(&client_one)), to(Some(&client_two)), to(None)),
            (0, 1, 0)
        );
        // Nor what they call outside.
        past(&client_two, "203.0.113.5:80");
        let stream = call(Some(&client_two), "10.43.0.9:80").unwrap();
        let caller = Ipv4Addr::new(10, 50, 1, 130);
        assert_eq!(called(&servers, stream), (1, caller), "no NAT by the other");
        assert!(one.kernel.holder().is_none());
        let Some(Holder::Node(first)) = two.kernel.holder() else {
            panic!("{:?}", two.kernel.holder());
        };
        assert_eq!(first.folder, one.folder.path().canonicalize().ok());
        // What one has and the other has not is nobody's to the other's Pods.
        assert_eq!(
            refusal(Some(&client_two), "10.43.0.8:80"),
            ErrorKind::ConnectionRefused
        );
        // Each comes back, and nothing is taken from the other.
        for node in [&mut one, &mut two] {
            node.kernel = Kernel::default();
        }
        two.set(&service_of_two);
        one.set(&["10.43.0.9 80/tcp -> 10.42.3.2:80"]);
        assert_eq!(
            (to(Some(&client_one)), to(Some(&client_two)), to(None)),
            (0, 1, 0)
        );
        // The first one goes.
        one.tear_down();
        two.set(&service_of_two);
        assert!(two.kernel.holder().is_none());
        assert_eq!((to(Some(&client_two)), to(None)), (1, 1));
        two.tear_down();
        let tables = nftables::tables().unwrap();
        assert!(tables.is_empty(), "{tables:?}");
        assert_eq!(ours("none"), (Vec::new(), Vec::new(), false));
    });
}

#[test]
fn each_nodes_pods_find_their_own_dns_at_the_same_address() {
    on_a_machine_of_its_own(|| {
        let _outside = outside();
        let mut one = Node::single();
        let mut two = Node::new("c2", "10.50.0.0/16", "10.50.1.0/24");
        let known = "10.43.0.10:53";
        // As a node's server has them.
        let serve = |node: &mut Node| {
            let datagrams = udp(None, &format!("{HOST_END}:0"));
            let actual = datagrams.local_addr().unwrap();
            let connections = TcpListener::bind(actual).unwrap();
            let alias = |protocol| Alias {
                protocol,
                known: socket(known),
                actual,
            };
            node.aliases = [Protocol::Udp, Protocol::Tcp].map(alias).into();
            node.set(&[]);
            (datagrams, connections)
        };
        let (datagrams, connections): (Vec<_>, Vec<_>) =
            [serve(&mut one), serve(&mut two)].into_iter().unzip();
        let connections: Vec<&TcpListener> = connections.iter().collect();
        let pods = [one.pod("10.42.3.130"), two.pod("10.50.1.130")];
        for (from, server, address) in [
            (Some(&pods[0]), 0, Ipv4Addr::new(10, 42, 3, 130)),
            (Some(&pods[1]), 1, Ipv4Addr::new(10, 50, 1, 130)),
            // What a guest process asks for itself.
            (Some(&one.guests), 0, Ipv4Addr::new(10, 42, 3, 1)),
            (Some(&two.guests), 1, Ipv4Addr::new(10, 50, 1, 1)),
            // The machine asks the first.
            (None, 0, HOST_END),
        ] {
            let client = udp(from, "0.0.0.0:0");
            client.connect(known).unwrap();
            client.send(b"ahoy").unwrap();
            let sockets: Vec<&dyn std::os::fd::AsFd> = datagrams.iter().map(|s| s as _).collect();
            let position = ready(&sockets);
            let (_, caller) = datagrams[position].recv_from(&mut [0; 8]).unwrap();
            assert_eq!((position, caller.ip()), (server, address.into()));
            datagrams[position].send_to(b"aye", caller).unwrap();
            assert_eq!(client.recv(&mut [0; 8]).unwrap(), 3);
            let stream = call(from, known).unwrap();
            assert_eq!(called(&connections, stream), (server, address));
        }
    });
}
