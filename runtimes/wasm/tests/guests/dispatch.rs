//! Ports of the node, accepted inside the host that serves what is behind them.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use coracle_runtime::{PortBackends, PortDispatcher, RuntimeService};
use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::{HOST, get, hello};
use crate::node::{DEADLINE, Node, Pod, kill};

/// A port of the node, as the agent holds it.
struct NodePort {
    address: SocketAddr,
    /// What is handed over.
    socket: OwnedFd,
    /// The agent's own.
    listener: tokio::net::TcpListener,
}

impl NodePort {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            socket: listener.try_clone().unwrap().into(),
            listener: tokio::net::TcpListener::from_std(listener).unwrap(),
        }
    }

    fn backends(&self, endpoints: &[SocketAddr]) -> PortBackends {
        PortBackends {
            port: self.address.port(),
            endpoints: endpoints.to_vec(),
            affinity: false,
        }
    }

    /// Nobody but the agent accepts: a new connection is the agent's own.
    async fn is_free(&self) {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let accepted = tokio::time::timeout(DEADLINE, self.listener.accept());
        let (_, peer) = accepted.await.unwrap().unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
    }
}

async fn address(node: &Node, pod: &Pod) -> SocketAddr {
    node.listener(pod).await.0
}

/// Who answers several requests, each on a connection of its own.
async fn answers(port: &NodePort) -> HashSet<String> {
    let mut names = HashSet::new();
    for _ in 0..10 {
        let (status, body) = get(port.address, "/").await;
        assert_eq!(status, 200);
        let name = body.split([' ', ',']).nth(2).unwrap();
        names.insert(name.to_owned());
    }
    names
}

fn names(of: &[&str]) -> HashSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

async fn ends(served: impl Future<Output = ()>) {
    tokio::time::timeout(DEADLINE, served).await.unwrap();
}

pub(crate) async fn a_port_is_served_inside_the_host() {
    let node = Node::new().await;
    let (one, two) = tokio::join!(hello(&node, "one"), hello(&node, "two"));
    let endpoints = [address(&node, &one).await, address(&node, &two).await];
    let port = NodePort::new();
    let dispatched = node
        .runtime
        .dispatch(&port.socket, port.backends(&endpoints))
        .await;
    let mut served = dispatched.unwrap().expect("one host serves both");
    assert_eq!(answers(&port).await, names(&["one", "two"]));

    let stop = node.runtime.stop_container(&one.container, Duration::ZERO);
    stop.await.unwrap();
    assert_eq!(
        answers(&port).await,
        names(&["two"]),
        "who is gone is passed over"
    );
    assert!((&mut served).now_or_never().is_none());

    let stop = node.runtime.stop_container(&two.container, Duration::ZERO);
    stop.await.unwrap();
    ends(served).await;
    port.is_free().await;
}

pub(crate) async fn a_client_with_affinity_stays() {
    let node = Node::new().await;
    let mut pods = Vec::new();
    for name in ["a", "b", "c", "d"] {
        pods.push((name, hello(&node, name).await));
    }
    let mut endpoints = Vec::new();
    for (_, pod) in &pods {
        endpoints.push(address(&node, pod).await);
    }
    let port = NodePort::new();
    let mut backends = port.backends(&endpoints);
    backends.affinity = true;
    let dispatched = node.runtime.dispatch(&port.socket, backends).await;
    let _served = dispatched.unwrap().expect("one host serves all");
    let first = answers(&port).await;
    assert_eq!(first.len(), 1, "one client, one endpoint: {first:?}");
    let (_, chosen) = pods.iter().find(|(name, _)| first.contains(*name)).unwrap();
    let stop = node
        .runtime
        .stop_container(&chosen.container, Duration::ZERO);
    stop.await.unwrap();
    let next = answers(&port).await;
    assert_eq!(next.len(), 1, "{next:?}");
    assert!(next.is_disjoint(&first));
}

pub(crate) async fn a_port_gets_new_endpoints_and_is_withdrawn() {
    let node = Node::new().await;
    let (one, two) = tokio::join!(hello(&node, "one"), hello(&node, "two"));
    let (one, two) = (address(&node, &one).await, address(&node, &two).await);
    let port = NodePort::new();
    let mut served = Vec::new();
    for (endpoints, expected) in [
        (&[one][..], &["one"][..]),
        (&[one, two], &["one", "two"]),
        (&[two], &["two"]),
    ] {
        let backends = port.backends(endpoints);
        let dispatched = node.runtime.dispatch(&port.socket, backends).await;
        served.push(dispatched.unwrap().expect("the host serves them"));
        assert_eq!(answers(&port).await, names(expected));
    }
    assert!(
        served
            .iter_mut()
            .all(|served| served.now_or_never().is_none())
    );
    node.runtime.withdraw(port.address.port()).await;
    port.is_free().await;
    for served in served {
        ends(served).await;
    }
    // To withdraw what is not dispatched is no fault.
    node.runtime.withdraw(port.address.port()).await;
}

pub(crate) async fn a_port_goes_only_to_a_host_that_serves_it_all() {
    let node = Node::new().await;
    let pod = hello(&node, "web").await;
    let own = address(&node, &pod).await;
    let server = node
        .start(&node.sample("tcp-echo/tcp-echo.wasm"), |_| ())
        .await;
    let command = address(&node, &server).await;
    let elsewhere: SocketAddr = "10.42.9.9:80".parse().unwrap();
    let port = NodePort::new();
    for endpoints in [&[own, elsewhere][..], &[own, command], &[command], &[]] {
        // What was served before is withdrawn.
        let dispatched = node
            .runtime
            .dispatch(&port.socket, port.backends(&[own]))
            .await;
        let served = dispatched.unwrap().expect("the host serves it");
        let backends = port.backends(endpoints);
        let dispatched = node.runtime.dispatch(&port.socket, backends).await.unwrap();
        assert!(dispatched.is_none(), "{endpoints:?}");
        ends(served).await;
        port.is_free().await;
    }
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = node
        .runtime
        .dispatch(&deaf.into(), port.backends(&[own]))
        .await;
    let error = refused
        .err()
        .expect("a socket that does not listen")
        .to_string();
    assert!(error.contains("does not listen"), "{error}");
}

pub(crate) async fn a_port_ends_with_its_host_and_with_its_agent() {
    let mut node = Node::new().await;
    let pod = hello(&node, "first").await;
    let endpoint = address(&node, &pod).await;
    let port = NodePort::new();
    let dispatch = node
        .runtime
        .dispatch(&port.socket, port.backends(&[endpoint]));
    let served = dispatch.await.unwrap().expect("the host serves it");
    assert_eq!(answers(&port).await, names(&["first"]));

    // The host lives on, and accepts nothing for an agent that is gone.
    let mut kept = tokio::net::TcpStream::connect(port.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: pod\r\n\r\n";
    kept.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    kept.read_exact(&mut answer).await.unwrap();
    node.restart().await;
    ends(served).await;
    // The next agent asks a process for its listeners when it connects, and a host takes back
    // what an earlier one dispatched as soon as it sees the end of its connection.
    let free = async {
        loop {
            let stream = tokio::net::TcpStream::connect(port.address).await.unwrap();
            let accept = tokio::time::timeout(Duration::from_millis(100), port.listener.accept());
            if let Ok(accepted) = accept.await {
                assert_eq!(accepted.unwrap().1, stream.local_addr().unwrap());
                return;
            }
        }
    };
    ends(free).await;
    kept.write_all(request).await.unwrap();
    kept.read_exact(&mut answer).await.unwrap();
    assert!(answer.len() == 12, "what was accepted goes on");

    let dispatch = node
        .runtime
        .dispatch(&port.socket, port.backends(&[endpoint]));
    let served = dispatch.await.unwrap().expect("the adopted host serves it");
    assert_eq!(answers(&port).await, names(&["first"]));
    assert!(kill(&node.folder.path().join(HOST)));
    ends(served).await;
    port.is_free().await;
}
