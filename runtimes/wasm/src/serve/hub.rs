//! The agents that are connected to a process, and what it tells them.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use coracle_runtime::{Protocol, SandboxId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::guest::sockets::Listening;
use crate::protocol::{Bound, Event, FromProcess, GuestSpec};

/// An agent that is connected.
pub(crate) struct Agent {
    /// Tells the connections of this process apart.
    pub id: u64,
    outbox: mpsc::Sender<FromProcess>,
    /// Cancelled when the agent must be disconnected.
    pub(super) cut: CancellationToken,
}

impl Agent {
    /// Tells of an event. An agent that does not listen is disconnected: it asks anew when it is
    /// back, and would miss what it was not told.
    pub(crate) fn event(&self, event: Event) {
        if self.outbox.try_send(FromProcess::Event(event)).is_err() {
            self.cut.cancel();
        }
    }
}

/// The connections of a process, and what every new one must learn.
#[derive(Default)]
pub(crate) struct Hub {
    agents: Mutex<Vec<Arc<Agent>>>,
    last: AtomicU64,
    pub(super) connected: AtomicUsize,
    pub(super) changed: Notify,
    bound: Mutex<HashSet<Bound>>,
}

impl Hub {
    pub(crate) fn event(&self, event: &Event) {
        for agent in self.agents.lock().iter() {
            agent.event(event.clone());
        }
    }

    pub(super) fn connect(&self, outbox: mpsc::Sender<FromProcess>) -> Arc<Agent> {
        let agent = Arc::new(Agent {
            id: self.last.fetch_add(1, Ordering::Relaxed),
            outbox,
            cut: CancellationToken::new(),
        });
        self.agents.lock().push(agent.clone());
        agent
    }

    /// An agent that nobody writes to, for tests.
    #[cfg(test)]
    pub(crate) fn unheard(&self) -> Arc<Agent> {
        self.connect(mpsc::channel(1).0)
    }

    pub(super) fn disconnect(&self, agent: &Arc<Agent>) {
        self.agents
            .lock()
            .retain(|other| !Arc::ptr_eq(other, agent));
    }

    pub(super) fn came(&self) {
        self.connected.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    pub(super) fn went(&self) {
        self.connected.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    pub(super) fn listeners(&self) -> Vec<Bound> {
        self.bound.lock().iter().cloned().collect()
    }
}

/// Tells the agent of the sockets of one sandbox.
pub(crate) struct Announcer {
    hub: Arc<Hub>,
    sandbox: SandboxId,
    ips: Vec<IpAddr>,
}

impl Announcer {
    pub(crate) fn new(hub: Arc<Hub>, spec: &GuestSpec) -> Self {
        Self {
            hub,
            sandbox: spec.sandbox.clone(),
            ips: spec.ips.clone(),
        }
    }

    /// Others know a wildcard listener by the Pod's address of that family. One on `localhost` is
    /// told as the guest sees it: the agent lets nobody but the Pod's own processes have it.
    fn entry(&self, protocol: Protocol, mut address: SocketAddr, actual: SocketAddr) -> Bound {
        if address.ip().is_unspecified() {
            let same = |ip: &&IpAddr| ip.is_ipv4() == address.is_ipv4();
            if let Some(ip) = self.ips.iter().find(same).or(self.ips.first()) {
                address.set_ip(*ip);
            }
        }
        Bound {
            sandbox: self.sandbox.clone(),
            protocol,
            address,
            actual,
        }
    }
}

impl Listening for Announcer {
    fn bound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr) {
        let bound = self.entry(protocol, address, actual);
        self.hub.bound.lock().insert(bound.clone());
        self.hub.event(&Event::Bound(bound));
    }

    fn unbound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr) {
        let bound = self.entry(protocol, address, actual);
        self.hub.bound.lock().remove(&bound);
        self.hub.event(&Event::Unbound(bound));
    }
}
