//! Services that are another proxy's.

use std::collections::BTreeSet;

use coracle_runtime::{GuestNetwork, NetworkError};

use super::*;
use crate::guest::SnapshotNetwork;

#[test]
fn guests_dial_what_another_proxy_has_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let network = open(folder.path());
    let [theirs, nobodys, ours] = ["10.43.0.9:80", "10.43.0.9:81", "10.43.0.10:53"]
        .map(|address| address.parse::<SocketAddr>().unwrap());
    let left = [theirs, ours].map(|socket| (socket.ip(), socket.port(), Protocol::Tcp));
    let rules = Rules {
        left: BTreeSet::from(left),
        ..Rules::default()
    };
    network
        .contents(&rules, &Zone::unknown("cluster.local"))
        .publish(&network.snapshot_path())
        .unwrap();
    let own: [IpAddr; 1] = ["10.42.3.2".parse().unwrap()];
    let guest = SnapshotNetwork::open(&network.snapshot_path(), &own).unwrap();
    let dialled = |to| guest.connect(Protocol::Tcp, to).map(|peer| peer.actual);
    assert_eq!(dialled(theirs), Ok(theirs));
    assert_eq!(
        dialled(nobodys),
        Err(NetworkError::ConnectionRefused(nobodys))
    );
    // The node's own DNS server, whoever says to have its address.
    assert_eq!(dialled(ours).ok(), network.dial(Protocol::Tcp, ours));
}
