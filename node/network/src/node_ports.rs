//! NodePorts, forwarded by the agent.
//!
//! One listener for each NodePort whose Service has endpoints: where there are none the port is
//! closed, so that a connection is refused at once. A port that somebody else holds is logged and
//! tried again until it is free or no longer wanted. Every connection is a task that ends with its
//! port's.
//!
//! HTTP guests on this node will be dispatched inside their host, without this hop; the listener
//! then moves there and this module keeps the others.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::Protocol;
use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::balance::pick;
use crate::node::Listeners;
use crate::rules::Rules;

/// Connections through one port at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// Clients of one UDP port at a time.
const FLOWS: usize = 1024;
/// A UDP client that is quiet for so long starts anew, as with conntrack.
const FLOW_IDLE: Duration = Duration::from_secs(60);
/// How long a port that is taken is left alone.
const RETRY: Duration = Duration::from_secs(3);
/// Endpoints that are tried for one connection.
const ATTEMPTS: usize = 3;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Target {
    endpoints: Vec<SocketAddr>,
    affinity: bool,
}

/// The open NodePorts of a node.
pub(crate) struct NodePorts {
    address: IpAddr,
    listeners: Arc<RwLock<Listeners>>,
    open: HashMap<(u16, Protocol), watch::Sender<Target>>,
    tasks: JoinSet<()>,
}

impl NodePorts {
    pub(crate) fn new(address: IpAddr, listeners: Arc<RwLock<Listeners>>) -> Self {
        Self {
            address,
            listeners,
            open: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens, closes and redirects ports so that they are those of the rules.
    pub(crate) fn update(&mut self, rules: &Rules) {
        let wanted: HashMap<_, _> = rules
            .ports
            .iter()
            .filter(|port| !port.endpoints.is_empty())
            .filter_map(|port| {
                let target = Target {
                    endpoints: port.endpoints.clone(),
                    affinity: port.affinity.is_some(),
                };
                Some(((port.node_port?, port.protocol), target))
            })
            .collect();
        // A sender that is dropped ends its port's task.
        self.open.retain(|port, _| wanted.contains_key(port));
        while self.tasks.try_join_next().is_some() {}
        for ((port, protocol), target) in wanted {
            if let Some(sender) = self.open.get(&(port, protocol)) {
                sender.send_if_modified(|current| {
                    let differs = *current != target;
                    *current = target;
                    differs
                });
                continue;
            }
            let (sender, receiver) = watch::channel(target);
            let forwarder = Forwarder {
                address: SocketAddr::new(self.address, port),
                listeners: self.listeners.clone(),
                target: receiver,
            };
            self.tasks.spawn(forwarder.run(protocol));
            self.open.insert((port, protocol), sender);
        }
    }

    /// Closes everything.
    pub(crate) async fn close(mut self) {
        self.open.clear();
        self.tasks.shutdown().await;
    }
}

#[derive(Clone)]
struct Forwarder {
    address: SocketAddr,
    listeners: Arc<RwLock<Listeners>>,
    target: watch::Receiver<Target>,
}

impl Forwarder {
    async fn run(self, protocol: Protocol) {
        let mut closed = self.target.clone();
        let gone = async move { while closed.changed().await.is_ok() {} };
        let serve = async {
            loop {
                let result = match protocol {
                    Protocol::Tcp => self.serve_tcp().await,
                    Protocol::Udp => self.serve_udp().await,
                };
                if let Err(error) = result {
                    tracing::warn!(address = %self.address, %error, "a NodePort cannot be served; trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = gone => {}
            () = serve => {}
        }
    }

    /// Sockets to dial for a client, the best first.
    fn candidates(&self, protocol: Protocol, client: IpAddr) -> Vec<SocketAddr> {
        let target = self.target.borrow().clone();
        let listeners = self.listeners.read();
        let mut reachable: Vec<(SocketAddr, SocketAddr)> = target
            .endpoints
            .iter()
            .filter_map(|endpoint| Some((*endpoint, listeners.dial(protocol, *endpoint)?)))
            .collect();
        drop(listeners);
        let mut chosen = Vec::new();
        while chosen.len() < ATTEMPTS {
            let client = target.affinity.then_some(client);
            match pick(reachable.iter().map(|(endpoint, _)| *endpoint), client) {
                Some(position) => chosen.push(reachable.swap_remove(position).1),
                None => break,
            }
        }
        chosen
    }

    async fn serve_tcp(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return Ok(());
            };
            let (stream, client) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    // Of that connection, or for want of descriptors: neither ends the port.
                    Err(error) => {
                        tracing::debug!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next() => continue,
            };
            let forwarder = self.clone();
            connections.spawn(async move {
                let _slot = slot;
                forwarder.forward(stream, client.ip()).await;
            });
        }
    }

    async fn forward(&self, mut stream: TcpStream, client: IpAddr) {
        for actual in self.candidates(Protocol::Tcp, client) {
            match TcpStream::connect(actual).await {
                Ok(mut endpoint) => {
                    // Both ends are interactive as far as we know.
                    let _ = stream.set_nodelay(true);
                    let _ = endpoint.set_nodelay(true);
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut endpoint).await;
                    return;
                }
                Err(error) => tracing::debug!(%actual, %error, "an endpoint did not answer"),
            }
        }
    }

    async fn serve_udp(&self) -> io::Result<()> {
        let socket = Arc::new(UdpSocket::bind(self.address).await?);
        let flows: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>> = Arc::default();
        let mut replies = JoinSet::new();
        let mut datagram = vec![0; 65_535];
        loop {
            let (length, client) = tokio::select! {
                received = socket.recv_from(&mut datagram) => match received {
                    Ok(received) => received,
                    // An ICMP error of an earlier datagram.
                    Err(_) => continue,
                },
                Some(_) = replies.join_next() => continue,
            };
            let known = flows.lock().get(&client).cloned();
            let upstream = match known {
                Some(upstream) => upstream,
                None if flows.lock().len() >= FLOWS => continue,
                None => {
                    let Some(actual) = self.candidates(Protocol::Udp, client.ip()).first().copied()
                    else {
                        continue;
                    };
                    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                    if upstream.connect(actual).await.is_err() {
                        continue;
                    }
                    let upstream = Arc::new(upstream);
                    flows.lock().insert(client, upstream.clone());
                    let (socket, flows, from) = (socket.clone(), flows.clone(), upstream.clone());
                    replies.spawn(async move {
                        relay_replies(&from, &socket, client).await;
                        flows.lock().remove(&client);
                    });
                    upstream
                }
            };
            if upstream.send(&datagram[..length]).await.is_err() {
                // The endpoint is gone; the client's next datagram finds another.
                flows.lock().remove(&client);
            }
        }
    }
}

async fn relay_replies(upstream: &UdpSocket, socket: &UdpSocket, client: SocketAddr) {
    let mut datagram = vec![0; 65_535];
    while let Ok(Ok(length)) = tokio::time::timeout(FLOW_IDLE, upstream.recv(&mut datagram)).await {
        if socket.send_to(&datagram[..length], client).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ServicePort;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A port that was free a moment ago.
    async fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    }

    fn rules_for(port: u16, protocol: Protocol, endpoints: &[SocketAddr]) -> Rules {
        Rules {
            ports: vec![ServicePort {
                namespace: "default".into(),
                service: "web".into(),
                port_name: String::new(),
                port: 80,
                protocol,
                addresses: Vec::new(),
                node_port: Some(port),
                affinity: None,
                endpoints: endpoints.to_vec(),
            }],
        }
    }

    async fn ask(port: u16) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"x").await?;
        stream.shutdown().await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    async fn answering(text: &'static str) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = String::new();
                let _ = stream.read_to_string(&mut asked).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        (address, tasks)
    }

    /// Asks until the answer is the expected one; `None` is a refused connection.
    async fn until(port: u16, expected: Option<&str>) {
        tokio::time::timeout(Duration::from_secs(20), async {
            while ask(port).await.ok().as_deref() != expected {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{expected:?} did not come"));
    }

    #[tokio::test]
    async fn a_port_follows_its_endpoints() {
        let (one, _one) = answering("one").await;
        let (two, _two) = answering("two").await;
        let port = free_port().await;
        let mut node_ports = NodePorts::new([127, 0, 0, 1].into(), Arc::default());
        node_ports.update(&rules_for(port, Protocol::Tcp, &[one]));
        until(port, Some("one")).await;
        node_ports.update(&rules_for(port, Protocol::Tcp, &[two]));
        until(port, Some("two")).await;
        node_ports.update(&rules_for(port, Protocol::Tcp, &[]));
        until(port, None).await;
        node_ports.update(&rules_for(port, Protocol::Tcp, &[one]));
        until(port, Some("one")).await;
        node_ports.close().await;
        assert!(ask(port).await.is_err());
    }

    #[tokio::test]
    async fn an_endpoint_that_is_gone_is_passed_over() {
        let (one, _one) = answering("one").await;
        let gone = SocketAddr::from(([127, 0, 0, 1], free_port().await));
        let port = free_port().await;
        let mut node_ports = NodePorts::new([127, 0, 0, 1].into(), Arc::default());
        node_ports.update(&rules_for(port, Protocol::Tcp, &[gone, one]));
        until(port, Some("one")).await;
        for _ in 0..20 {
            assert_eq!(ask(port).await.unwrap(), "one");
        }
        node_ports.close().await;
    }

    #[tokio::test]
    async fn datagrams_go_there_and_back() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = server.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut datagram = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut datagram).await {
                let _ = server.send_to(&datagram[..length], from).await;
            }
        });
        let port = free_port().await;
        let mut node_ports = NodePorts::new([127, 0, 0, 1].into(), Arc::default());
        node_ports.update(&rules_for(port, Protocol::Udp, &[endpoint]));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.1", port)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), async {
            let mut reply = [0; 64];
            loop {
                // Refused until the port is open.
                let _ = client.send(b"ahoy").await;
                let wait = Duration::from_millis(100);
                if let Ok(Ok(length)) = tokio::time::timeout(wait, client.recv(&mut reply)).await {
                    assert_eq!(&reply[..length], b"ahoy");
                    break;
                }
            }
        })
        .await
        .unwrap();
        node_ports.close().await;
    }
}
