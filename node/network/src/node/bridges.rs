//! Pods that listen by IPv6, for callers by IPv4.
//!
//! A Pod has an IPv4 address only. A guest that listens on `[::]:80` has a socket on `::1` (WASI's
//! sockets of that family are for IPv6 alone), which other guests of the node find in the
//! snapshot. In the namespaced form whoever is not a guest dials (Pod, 80) itself: probes,
//! NodePorts, other nodes. There the agent listens in the guest's stead, inside the namespace, and
//! passes connections and datagrams on. Who called is lost on that way.
//!
//! Sockets are in the namespace of the thread that makes them, so that all of this runs on a
//! thread of its own, with a scheduler of its own:
//!
//! ```text
//! Listeners ──► bridges (which are wanted) ──► watch ──► the thread: a task for each
//! ```
//!
//! A bridge that is no longer wanted accepts no more, and its connections end by themselves; all
//! end with the agent.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coracle_runtime::Protocol;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::namespace::inside;
use crate::relay::{self, Slots};
use crate::snapshot::Socket;

/// Bridges of one Pod: one guest must not take the agent's descriptors.
const OF_ONE_POD: usize = 16;
/// Bridges of a node.
const IN_ALL: usize = 1024;
/// Connections over one bridge at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// A guest that listens by both families has both sockets after this time, and then needs no
/// bridge; one that is there would hold its port.
const SETTLE: Duration = Duration::from_millis(250);
/// How long an address that is taken is left alone.
const RETRY: Duration = Duration::from_secs(3);

/// What is dialled, and where it is passed on.
pub(crate) type Wanted = BTreeMap<Socket, SocketAddr>;

/// The bridges that listeners need.
pub(crate) fn bridges(listeners: &BTreeMap<Socket, SocketAddr>) -> Wanted {
    let mut of_pods: HashMap<IpAddr, usize> = HashMap::new();
    let needed = listeners.iter().filter(|((pod, port, protocol), actual)| {
        // A socket for datagrams that has the host's own choice of port sends, and waits for
        // answers alone.
        let sends = *protocol == Protocol::Udp && *port == actual.port();
        pod.is_ipv4() && actual.is_ipv6() && !sends
    });
    let granted = needed.filter(|((pod, ..), _)| {
        let count = of_pods.entry(*pod).or_default();
        *count += 1;
        *count <= OF_ONE_POD
    });
    granted
        .take(IN_ALL)
        .map(|(socket, actual)| (*socket, *actual))
        .collect()
}

/// The thread with the bridges.
pub(crate) struct Bridges {
    wanted: watch::Sender<Wanted>,
    thread: JoinHandle<io::Result<()>>,
}

impl Bridges {
    /// Starts without any, in this namespace.
    pub(crate) fn start(namespace: File) -> Self {
        let (wanted, receiver) = watch::channel(Wanted::new());
        let thread = tokio::task::spawn_blocking(move || {
            inside(&namespace, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(serve(receiver));
                Ok(())
            })
        });
        Self { wanted, thread }
    }

    /// Makes these the bridges.
    pub(crate) fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|current| {
            let differs = *current != wanted;
            *current = wanted;
            differs
        });
    }

    /// Ends all.
    pub(crate) async fn close(self) {
        drop(self.wanted);
        let ended = self.thread.await.map_err(io::Error::other);
        if let Err(error) | Ok(Err(error)) = ended {
            tracing::error!(%error, "Pods that listen by IPv6 alone were not reached from outside the node's guests");
        }
    }
}

/// Keeps the bridges as they are wanted, until nobody can want any.
async fn serve(mut wanted: watch::Receiver<Wanted>) {
    let mut open: HashMap<Socket, (SocketAddr, CancellationToken)> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        open.retain(|socket, (actual, stop)| {
            let stays = now.get(socket) == Some(actual);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for (socket, actual) in now {
            if open.contains_key(&socket) {
                continue;
            }
            let stop = CancellationToken::new();
            open.insert(socket, (actual, stop.clone()));
            tasks.spawn(bridge(socket, actual, stop));
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn bridge((ip, port, protocol): Socket, actual: SocketAddr, stop: CancellationToken) {
    let address = SocketAddr::new(ip, port);
    let mut connections = JoinSet::new();
    let serving = async {
        tokio::time::sleep(SETTLE).await;
        loop {
            let served = match protocol {
                Protocol::Tcp => connect(address, actual, &mut connections).await,
                Protocol::Udp => pass(address, actual).await,
            };
            if let Err(error) = served {
                tracing::debug!(%address, %error, "a Pod that listens by IPv6 cannot be called by IPv4; trying again");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(serving).await;
    while connections.join_next().await.is_some() {}
}

async fn connect(
    address: SocketAddr,
    actual: SocketAddr,
    connections: &mut JoinSet<()>,
) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let slots = Slots::new(CONNECTIONS);
    relay::accept(&listener, &slots, connections, |stream, _| async move {
        let passed = match TcpStream::connect(actual).await {
            Ok(target) => relay::join(stream, target).await,
            Err(error) => Err(error),
        };
        if let Err(error) = passed {
            tracing::debug!(%error, %actual, "a connection to a Pod by IPv6 broke");
        }
    })
    .await;
    Ok(())
}

async fn pass(address: SocketAddr, actual: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address).await?;
    relay::datagrams::pass(socket, |_| Some(actual), |_, _| true).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_by_ipv6_alone_has_a_bridge() {
        use Protocol::{Tcp, Udp};
        let entry = |protocol, address: &str, actual: &str| {
            let address: SocketAddr = address.parse().unwrap();
            (
                (address.ip(), address.port(), protocol),
                actual.parse().unwrap(),
            )
        };
        let wanted = [
            entry(Tcp, "10.42.0.2:80", "[::1]:40001"),
            entry(Udp, "10.42.0.2:53", "[::1]:40002"),
            entry(Tcp, "10.42.0.2:40003", "[::1]:40003"),
        ];
        let unwanted = [
            entry(Tcp, "10.42.0.3:80", "10.42.0.3:80"),
            // A client's.
            entry(Udp, "10.42.0.2:40004", "[::1]:40004"),
            entry(Tcp, "[fd00::2]:80", "[::1]:40005"),
        ];
        let listeners = wanted.into_iter().chain(unwanted).collect();
        assert_eq!(bridges(&listeners), wanted.into());
    }

    #[test]
    fn nobody_has_them_all() {
        let listener = |pod: u8, port: u16| {
            let key = (IpAddr::from([10, 42, 0, pod]), port, Protocol::Tcp);
            (key, SocketAddr::new("::1".parse().unwrap(), 1))
        };
        let greedy = (1..1000).map(|port| listener(2, port));
        let listeners = greedy.chain([listener(3, 80)]).collect();
        let granted = bridges(&listeners);
        assert_eq!(granted.len(), OF_ONE_POD + 1);
        assert!(granted.contains_key(&listener(3, 80).0));
        let all = (0..=255).flat_map(|pod| (1..=10).map(move |port| listener(pod, port)));
        assert_eq!(bridges(&all.collect()).len(), IN_ALL);
    }
}
