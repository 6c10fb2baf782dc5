//! NodePorts, served by the agent or by whoever has the endpoints; and ports of the machine that lead
//! to one Pod, as far as the agent listens for them (`host_ports`).
//!
//! One listening socket for each NodePort whose Service has endpoints: where there are none the
//! port is closed, so that a connection is refused at once. A port that somebody else holds is
//! logged and tried again until it is free or no longer wanted. Every port is a task, and every
//! connection one that ends with its port's.
//!
//! The agent forwards connections. A [`PortDispatcher`] that has all endpoints of a TCP port in
//! one process accepts them there, from the same socket, which saves the hop:
//!
//! ```text
//!            rules change: offer                   taken
//! Forwarded ─────────────────────► (dispatch) ───────────────► Dispatched
//!     ▲                               │ not taken, error           │  │ rules change: offer
//!     ├───────────────────────────────┘                            │  ▼
//!     └────────────────────────────────────────────────────────────┘ (dispatch)
//!                                          its serving ended
//! ```
//!
//! With `externalTrafficPolicy: Local` the node's own calls, and those of its Pods, go to any
//! endpoint, and others to those on the node, if it has any. Where the kernel translates, it has
//! sent those others on already, with their source addresses (`service_rules`); who comes to the
//! agent is passed on under the node's. Of several nodes on one machine the first that opens a
//! port has it.

mod dispatch;
mod tcp;
mod udp;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{PortDispatcher, Protocol};
use ipnet::IpNet;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::balance::pick;
use crate::host_ports::Published;
use crate::node::Listeners;
use crate::rules::{Lead, Rules, ServicePort};
use crate::snapshot::Form;
use dispatch::Dispatch;

/// How long a port that is taken is left alone.
const RETRY: Duration = Duration::from_secs(3);
/// Endpoints that are tried for one connection.
const ATTEMPTS: usize = 3;
/// How long ports may take to end: a dispatcher is to be told.
const CLOSE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Target {
    /// Not none.
    endpoints: Vec<SocketAddr>,
    /// Those for who calls from elsewhere, where they are not all.
    for_elsewhere: Option<Vec<SocketAddr>>,
    affinity: bool,
}

impl Target {
    /// None where nobody serves.
    fn of(port: &ServicePort) -> Option<Self> {
        let Lead::To(endpoints) = port.external_from_here() else {
            return None;
        };
        let for_elsewhere = match port.external() {
            Lead::To(some) => some,
            Lead::Refused | Lead::Dropped => &[],
        };
        Some(Self {
            endpoints: endpoints.to_vec(),
            for_elsewhere: (for_elsewhere != endpoints).then(|| for_elsewhere.to_vec()),
            affinity: port.affinity.is_some(),
        })
    }
}

/// Who calls from the node itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    /// The node's address, which need not be one that the machine knows.
    pub(crate) node: IpAddr,
    /// The range of its Pods.
    pub(crate) pods: Option<IpNet>,
}

impl Here {
    fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_loopback()
            || client == self.node
            || self.pods.is_some_and(|pods| pods.contains(&client))
            || is_of_machine(client)
    }
}

/// Whether an address is one of the machine's: what the machine sends there comes from there.
fn is_of_machine(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = || -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        // Nothing is sent, and so any port does.
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    source().is_ok_and(|source| source.ip() == address)
}

/// The open NodePorts of a node.
pub(crate) struct NodePorts {
    address: IpAddr,
    here: Here,
    listeners: Arc<RwLock<Listeners>>,
    dispatcher: Option<Arc<dyn PortDispatcher>>,
    open: HashMap<(SocketAddr, Protocol), watch::Sender<Target>>,
    tasks: JoinSet<()>,
}

impl NodePorts {
    pub(crate) fn new(
        address: IpAddr,
        here: Here,
        listeners: Arc<RwLock<Listeners>>,
        dispatcher: Option<Arc<dyn PortDispatcher>>,
    ) -> Self {
        Self {
            address,
            here,
            listeners,
            dispatcher,
            open: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens, closes and redirects ports so that they are those of the rules and of Pods. A NodePort
    /// goes before a Pod's port.
    pub(crate) fn update(&mut self, rules: &Rules, host_ports: &[Published], form: Form) {
        let mut wanted: HashMap<_, _> = rules
            .ports
            .iter()
            .filter_map(|port| {
                let address = SocketAddr::new(self.address, port.node_port?);
                let target = Target::of(port)?;
                Some(((address, port.protocol), (target, Some(port))))
            })
            .collect();
        for port in host_ports {
            if let Some(address) = port.listened(form) {
                let target = Target {
                    endpoints: vec![port.target()],
                    for_elsewhere: None,
                    affinity: false,
                };
                let wanted = wanted.entry((address, port.port.protocol));
                wanted.or_insert((target, None));
            }
        }
        // A sender that is dropped ends its port's task.
        self.open.retain(|port, _| wanted.contains_key(port));
        while self.tasks.try_join_next().is_some() {}
        for ((address, protocol), (target, service)) in wanted {
            if let Some(sender) = self.open.get(&(address, protocol)) {
                sender.send_if_modified(|current| {
                    let differs = *current != target;
                    *current = target;
                    differs
                });
                continue;
            }
            if let Some(port) = service.filter(|port| port.external_is_local)
                && form == Form::Virtual
            {
                let ServicePort {
                    namespace, service, ..
                } = port;
                tracing::warn!(%address, %namespace, %service, "externalTrafficPolicy is Local, and clients go to the node's own endpoints; but Pods have virtual addresses, so that they may see the node's address in the place of the clients'");
            }
            let (sender, receiver) = watch::channel(target);
            let forwarder = Forwarder {
                address,
                here: self.here,
                listeners: self.listeners.clone(),
                target: receiver,
            };
            match protocol {
                Protocol::Tcp => {
                    // Dispatches are named by ports of Services.
                    let dispatcher = self.dispatcher.clone().filter(|_| service.is_some());
                    let dispatch = Dispatch::new(address.port(), dispatcher);
                    self.tasks.spawn(tcp::run(forwarder, dispatch));
                }
                Protocol::Udp => {
                    self.tasks.spawn(udp::run(forwarder));
                }
            }
            self.open.insert((address, protocol), sender);
        }
    }

    /// Closes everything.
    pub(crate) async fn close(mut self) {
        self.open.clear();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE, ended).await.is_err() {
            tracing::warn!("some NodePorts did not close in time");
        }
        self.tasks.shutdown().await;
    }
}

/// One port's way to its endpoints.
#[derive(Clone)]
struct Forwarder {
    address: SocketAddr,
    here: Here,
    listeners: Arc<RwLock<Listeners>>,
    target: watch::Receiver<Target>,
}

impl Forwarder {
    /// Sockets to dial for a client, the best first.
    fn candidates(&self, protocol: Protocol, client: IpAddr) -> Vec<SocketAddr> {
        let target = self.target.borrow().clone();
        let listeners = self.listeners.read();
        let mut reachable: Vec<(SocketAddr, SocketAddr)> = self
            .endpoints(&target, client)
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

    /// Whether a socket is still one to dial for a client.
    fn serves(&self, protocol: Protocol, client: IpAddr, actual: SocketAddr) -> bool {
        let target = self.target.borrow();
        let listeners = self.listeners.read();
        let mut endpoints = self.endpoints(&target, client).iter();
        endpoints.any(|endpoint| listeners.dial(protocol, *endpoint) == Some(actual))
    }

    /// The endpoints that are for a client.
    fn endpoints<'a>(&self, target: &'a Target, client: IpAddr) -> &'a [SocketAddr] {
        match &target.for_elsewhere {
            Some(endpoints) if !self.here.contains(client) => endpoints,
            _ => &target.endpoints,
        }
    }

    /// Says once that the port cannot be served now, for another node of the machine may have it for
    /// long, and waits a while.
    async fn pause(&self, error: &std::io::Error, is_said: &mut bool) {
        if std::mem::replace(is_said, true) {
            tracing::debug!(address = %self.address, %error, "a port of the machine can still not be served");
        } else {
            tracing::warn!(address = %self.address, %error, "a port of the machine cannot be served; trying again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests;
