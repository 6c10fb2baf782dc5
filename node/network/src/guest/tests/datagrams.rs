//! Datagrams: what replies carry, and what comes from outside.

use super::*;

#[test]
fn a_reply_to_a_datagram_carries_the_address_that_was_dialled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let mut contents = contents();
    let udp = |text: &str| (socket(text).ip(), socket(text).port(), Protocol::Udp);
    contents
        .listeners
        .insert(udp("10.42.0.3:53"), socket("127.0.0.1:40053"));
    contents.services.insert(
        udp("10.43.0.20:53"),
        Virtual {
            affinity: false,
            endpoints: vec![socket("10.42.0.3:53")],
            elsewhere: false,
        },
    );
    contents.publish(&path).unwrap();
    let network = SnapshotNetwork::open(&path, &[address("10.42.0.2")]).unwrap();
    let peer = network
        .connect(Protocol::Udp, socket("10.43.0.20:53"))
        .unwrap();
    assert_eq!(
        network.peer(Protocol::Udp, peer.actual),
        Ok(socket("10.43.0.20:53"))
    );
    assert_eq!(
        network.peer(Protocol::Udp, socket("127.0.0.1:5")),
        Ok(socket("10.42.0.1:5"))
    );
}

#[test]
fn from_outside_a_socket_takes_answers_alone() {
    let (_folder, network) = network();
    let (asked, stranger) = (socket("192.0.2.1:53"), socket("192.0.2.1:54"));
    let denied = |of| Err(NetworkError::AccessDenied(of));
    let hears = |of| network.peer(Protocol::Udp, of);
    assert_eq!(hears(asked), denied(asked));
    network.connect(Protocol::Tcp, asked).unwrap();
    assert_eq!(hears(asked), denied(asked));
    network.connect(Protocol::Udp, asked).unwrap();
    assert_eq!(hears(asked), Ok(asked));
    assert_eq!(hears(stranger), denied(stranger));
    // Connections are accepted where nobody outside comes, or were handed over.
    assert_eq!(network.peer(Protocol::Tcp, stranger), Ok(stranger));
    let (_folder, namespaced) = network_of(&namespaced());
    assert_eq!(namespaced.peer(Protocol::Udp, stranger), Ok(stranger));
}

#[test]
fn a_socket_on_everything_is_dialled_by_loopback() {
    let (_folder, network) = network();
    let view = socket("0.0.0.0:40123");
    let actual = network.bind(Protocol::Udp, socket("0.0.0.0:0")).unwrap();
    let actual = SocketAddr::new(actual.ip(), 40_123);
    let bound = network.bound(Protocol::Udp, socket("0.0.0.0:0"), actual);
    assert_eq!(bound, (view, true));
    network.listening(Protocol::Udp, view, Some(actual));
    for remote in ["127.0.0.1:40123", "10.42.0.2:40123"] {
        let peer = network.connect(Protocol::Udp, socket(remote)).unwrap();
        assert_eq!(peer.actual, socket("127.0.0.1:40123"), "{remote}");
    }
}

/// Two Pods with virtual addresses, and somebody outside, with real sockets.
#[test]
fn datagrams_pass_between_pods_and_to_outside_by_one_socket() {
    use crate::namespace::inside;
    use crate::namespace::machine::{OUTSIDE, on_a_machine_of_its_own, outside};
    use std::net::UdpSocket;

    const PATIENCE: Option<std::time::Duration> = Some(std::time::Duration::from_secs(10));
    on_a_machine_of_its_own(|| {
        let beyond = outside();
        let far = |port| inside(&beyond, || UdpSocket::bind((OUTSIDE, port))).unwrap();
        let (server, stranger) = (far(53), far(54));
        let mut contents = contents();
        let open = |network: &SnapshotNetwork| {
            let asked = socket("0.0.0.0:0");
            let actual = network.bind(Protocol::Udp, asked).unwrap();
            let own = UdpSocket::bind(actual).unwrap();
            own.set_read_timeout(PATIENCE).unwrap();
            let actual = own.local_addr().unwrap();
            let (view, _) = network.bound(Protocol::Udp, asked, actual);
            (own, view.port(), actual)
        };
        let (_folder, b) = network_of(&contents);
        let (b_socket, b_port, b_actual) = open(&b);
        contents.listeners.insert(
            (address("10.42.0.3"), b_port, Protocol::Udp),
            dialable(b_actual),
        );
        let (_folder, a) = network_of(&contents);
        let (a_socket, a_port, _) = open(&a);
        let mut buffer = [0; 16];

        let to_b = SocketAddr::new(address("10.42.0.3"), b_port);
        let peer = a.connect(Protocol::Udp, to_b).unwrap();
        a_socket.send_to(b"ahoy", peer.actual).unwrap();
        let (_, from) = b_socket.recv_from(&mut buffer).unwrap();
        b.peer(Protocol::Udp, from).unwrap();
        b_socket.send_to(b"aye", from).unwrap();
        let (_, from) = a_socket.recv_from(&mut buffer).unwrap();
        assert_eq!(a.peer(Protocol::Udp, from), Ok(to_b));

        let to_server = server.local_addr().unwrap();
        let peer = a.connect(Protocol::Udp, to_server).unwrap();
        a_socket.send_to(b"who?", peer.actual).unwrap();
        server.set_read_timeout(PATIENCE).unwrap();
        let (_, machine) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(machine.port(), a_port);
        stranger.send_to(b"me!", machine).unwrap();
        server.send_to(b"me", machine).unwrap();
        let heard: Vec<_> = (0..2)
            .map(|_| a.peer(Protocol::Udp, a_socket.recv_from(&mut buffer).unwrap().1))
            .collect();
        let denied = Err(NetworkError::AccessDenied(stranger.local_addr().unwrap()));
        assert_eq!(heard, [denied, Ok(to_server)]);
    });
}
