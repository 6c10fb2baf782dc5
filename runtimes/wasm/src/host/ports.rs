//! Ports of the node whose connections come to this process without a hop.
//!
//! The agent hands over a listening socket when all the endpoints behind a port are Pods of this
//! process. Each connection goes to one of them, as the agent would choose. A port is served until
//! the agent takes it back, replaces it or goes away, or until no endpoint is left; of the last
//! the agent is told, which then accepts by itself again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::acceptor::{Acceptor, Ticket};
use crate::protocol::{Dispatch, Event};
use crate::serve::Agent;

/// A port of the node.
pub(super) struct Port {
    dispatch: Dispatch,
    turn: AtomicUsize,
    agent: Arc<Agent>,
}

impl Port {
    pub(super) fn endpoints(&self) -> &[SocketAddr] {
        &self.dispatch.endpoints
    }

    /// What is alive at one of the endpoints.
    pub(super) fn choose<T>(
        &self,
        client: IpAddr,
        alive: impl Fn(&SocketAddr) -> Option<T>,
    ) -> Option<T> {
        let endpoints = self.endpoints();
        if self.dispatch.affinity {
            return favourite(endpoints, client, alive);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = endpoints.len();
        (0..count).find_map(|step| alive(&endpoints[turn.wrapping_add(step) % count]))
    }

    /// Tells the agent that no endpoint is left.
    pub(super) fn unserved(&self) {
        let Dispatch { port, number, .. } = self.dispatch;
        self.agent.event(Event::Unserved { port, number });
    }
}

/// The endpoint that ranks highest for a client among those that are alive (rendezvous hashing):
/// the client stays there while it lives, and moves nobody else when another comes or goes. The
/// rank is that of the node's own forwarding, so that a client keeps its endpoint when a port
/// moves from there to here or back.
fn favourite<T>(
    endpoints: &[SocketAddr],
    client: IpAddr,
    alive: impl Fn(&SocketAddr) -> Option<T>,
) -> Option<T> {
    endpoints
        .iter()
        .filter_map(|endpoint| {
            let mut hasher = DefaultHasher::new();
            (client, endpoint).hash(&mut hasher);
            alive(endpoint).map(|found| (hasher.finish(), found))
        })
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, found)| found)
}

/// The ports that are dispatched to this process, by connection of an agent and number.
pub(super) struct Ports {
    acceptor: Arc<Acceptor>,
    tickets: Mutex<HashMap<(u64, u16), Ticket>>,
}

impl Ports {
    pub(super) fn new(acceptor: Arc<Acceptor>) -> Self {
        Self {
            acceptor,
            tickets: Mutex::default(),
        }
    }

    /// Serves a port from now on. If it cannot be, it is not served as before either.
    pub(super) fn dispatch(
        &self,
        agent: &Arc<Agent>,
        dispatch: Dispatch,
        socket: OwnedFd,
    ) -> io::Result<()> {
        let key = (agent.id, dispatch.port);
        let port = Arc::new(Port {
            dispatch,
            turn: AtomicUsize::new(0),
            agent: agent.clone(),
        });
        let added = self.acceptor.add_port(socket, port);
        let mut tickets = self.tickets.lock();
        let before = match &added {
            Ok(ticket) => tickets.insert(key, *ticket),
            Err(_) => tickets.remove(&key),
        };
        drop(tickets);
        if let Some(ticket) = before {
            self.acceptor.remove(ticket);
        }
        added.map(drop)
    }

    pub(super) fn withdraw(&self, agent: &Agent, port: u16) {
        let ticket = self.tickets.lock().remove(&(agent.id, port));
        if let Some(ticket) = ticket {
            self.acceptor.remove(ticket);
        }
    }

    /// Withdraws all that an agent dispatched.
    pub(super) fn disconnected(&self, agent: &Agent) {
        let tickets: Vec<Ticket> = {
            let mut tickets = self.tickets.lock();
            let own = tickets.extract_if(|(id, _), _| *id == agent.id);
            own.map(|(_, ticket)| ticket).collect()
        };
        for ticket in tickets {
            self.acceptor.remove(ticket);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<SocketAddr> {
        (1..=5)
            .map(|n| SocketAddr::from(([10, 42, 0, n], 80)))
            .collect()
    }

    fn port(affinity: bool) -> Port {
        Port {
            dispatch: Dispatch {
                number: 1,
                port: 30_080,
                endpoints: endpoints(),
                affinity,
            },
            turn: AtomicUsize::new(0),
            agent: crate::serve::Hub::default().unheard(),
        }
    }

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn endpoints_take_turns_and_the_gone_are_passed_over() {
        let port = port(false);
        let mut counts = HashMap::new();
        for number in 0..100 {
            let chosen = port.choose(client(number), |endpoint| Some(*endpoint));
            *counts.entry(chosen.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 5);
        assert!(counts.values().all(|&count| count == 20), "{counts:?}");
        let last = endpoints()[4];
        for number in 0..10 {
            let only = |endpoint: &SocketAddr| (*endpoint == last).then_some(*endpoint);
            assert_eq!(port.choose(client(number), only), Some(last));
        }
        assert_eq!(port.choose(client(1), |_| None::<()>), None);
    }

    #[test]
    fn a_client_with_affinity_stays_while_its_endpoint_lives() {
        let port = port(true);
        for number in 0..50 {
            let client = client(number);
            let chosen = port.choose(client, |endpoint| Some(*endpoint)).unwrap();
            for gone in endpoints() {
                let alive = |endpoint: &SocketAddr| (*endpoint != gone).then_some(*endpoint);
                let now = port.choose(client, alive).unwrap();
                assert_eq!(now == chosen, gone != chosen, "{client} without {gone}");
            }
        }
        let all = |endpoint: &SocketAddr| Some(*endpoint);
        let used: std::collections::HashSet<_> = (0..50)
            .filter_map(|number| port.choose(client(number), all))
            .collect();
        assert_eq!(used.len(), 5, "clients spread over the endpoints");
    }
}
