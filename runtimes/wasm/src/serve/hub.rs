//! The agents that are connected to a process, and what it tells them.
//!
//! On what guests listen is told as a state, not as a history: a guest that listens and stops to,
//! over and over, would drown its agent in events, and have the agent cut off that could not keep
//! up, with all the guests of the process. So what changed back before it was told is not told at
//! all, and the rest in batches with a pause between them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use coracle_runtime::{Protocol, SandboxId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::guest::sockets::Listening;
use crate::protocol::{Bound, Event, FromProcess, GuestSpec};

/// Changes of listeners that are told at a time.
const BATCH: usize = 256;
/// How long the next ones wait.
const PAUSE: Duration = Duration::from_millis(20);

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
    listeners: Mutex<Listeners>,
    /// That listeners changed.
    moved: Notify,
}

/// On what guests listen.
#[derive(Default)]
struct Listeners {
    /// As agents know it.
    told: HashSet<Bound>,
    /// Those of which the contrary is true by now, and their places in the order in which that came.
    untold: HashMap<Bound, u64>,
    /// The same by their places. Who came first is told first: a guest that listens over and over keeps
    /// no other's from being told, and what gives way is told before what comes in its place.
    order: BTreeMap<u64, Bound>,
    next: u64,
}

impl Listeners {
    fn set(&mut self, bound: Bound, listens: bool) {
        if self.told.contains(&bound) == listens {
            self.take(&bound);
        } else if let Entry::Vacant(vacant) = self.untold.entry(bound) {
            self.order.insert(self.next, vacant.key().clone());
            vacant.insert(self.next);
            self.next += 1;
        }
    }

    /// Whether it was still to be told.
    fn take(&mut self, bound: &Bound) -> bool {
        let place = self.untold.remove(bound);
        place.is_some_and(|place| self.order.remove(&place).is_some())
    }

    /// Takes what is to be told now, so much at most.
    fn tell(&mut self, most: usize) -> Vec<Event> {
        let next: Vec<Bound> = self.order.values().take(most).cloned().collect();
        let tell = |bound| self.tell_one(bound);
        next.into_iter().filter_map(tell).collect()
    }

    fn tell_one(&mut self, bound: Bound) -> Option<Event> {
        if !self.take(&bound) {
            return None;
        }
        if self.told.remove(&bound) {
            return Some(Event::Unbound(bound));
        }
        self.told.insert(bound.clone());
        Some(Event::Bound(bound))
    }
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

    /// The listeners that agents were told of.
    pub(super) fn listeners(&self) -> Vec<Bound> {
        self.listeners.lock().told.iter().cloned().collect()
    }

    /// Tells of listeners, for ever; a task of the process.
    pub(super) async fn tell_listeners(&self) {
        loop {
            self.moved.notified().await;
            loop {
                let events = self.listeners.lock().tell(BATCH);
                if events.is_empty() {
                    break;
                }
                events.iter().for_each(|event| self.event(event));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A guest listens, or does no longer, as often as it likes.
    fn moved(&self, bound: Bound, listens: bool) {
        self.listeners.lock().set(bound, listens);
        self.moved.notify_one();
    }

    /// The same, told at once.
    fn tell(&self, bound: Bound, listens: bool) {
        let event = {
            let mut listeners = self.listeners.lock();
            listeners.set(bound.clone(), listens);
            listeners.tell_one(bound)
        };
        if let Some(event) = event {
            self.event(&event);
        }
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

    /// What the process itself listens on for a guest is known before the guest is said to be
    /// served.
    pub(crate) fn serves(&self, address: SocketAddr, actual: SocketAddr, listens: bool) {
        let bound = self.entry(Protocol::Tcp, address, actual);
        self.hub.tell(bound, listens);
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
        self.hub.moved(self.entry(protocol, address, actual), true);
    }

    fn unbound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr) {
        self.hub.moved(self.entry(protocol, address, actual), false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn listener(port: u16) -> Bound {
        let address = SocketAddr::from(([10, 42, 0, 1], port));
        Bound {
            sandbox: SandboxId("pod".into()),
            protocol: Protocol::Tcp,
            address,
            actual: address,
        }
    }

    fn told(events: &[Event]) -> Vec<(u16, bool)> {
        let mut told: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Bound(bound) => Some((bound.address.port(), true)),
                Event::Unbound(bound) => Some((bound.address.port(), false)),
                _ => None,
            })
            .collect();
        told.sort_unstable();
        told
    }

    #[test]
    fn only_what_is_news_is_told() {
        let mut listeners = Listeners::default();
        listeners.set(listener(1), true);
        listeners.set(listener(2), true);
        listeners.set(listener(2), false);
        assert_eq!(told(&listeners.tell(9)), [(1, true)]);
        assert!(listeners.tell(9).is_empty());
        listeners.set(listener(1), false);
        listeners.set(listener(1), true);
        assert!(listeners.tell(9).is_empty());
        listeners.set(listener(1), false);
        listeners.set(listener(3), true);
        assert_eq!(told(&listeners.tell(9)), [(1, false), (3, true)]);
        for port in 4..8 {
            listeners.set(listener(port), true);
        }
        assert_eq!(listeners.tell(3).len(), 3);
        assert_eq!(listeners.tell(3).len(), 1);
    }

    #[test]
    fn who_listens_over_and_over_keeps_nobody_from_being_told() {
        let mut listeners = Listeners::default();
        for port in 1..=100 {
            listeners.set(listener(port), true);
        }
        listeners.set(listener(1000), true);
        let mut heard = Vec::new();
        for _ in 0..11 {
            let events = told(&listeners.tell(10));
            for (port, listens) in &events {
                listeners.set(listener(*port), !listens);
            }
            heard.extend(events);
        }
        assert!(heard.contains(&(1000, true)), "{heard:?}");
    }

    #[test]
    fn what_gives_way_is_told_before_what_comes_in_its_place() {
        let mut listeners = Listeners::default();
        for port in 1..=9 {
            listeners.set(listener(port), true);
            listeners.tell(1);
            listeners.set(listener(port), false);
            listeners.set(listener(port + 1), true);
            let events = listeners.tell(2);
            assert!(matches!(&*events, [Event::Unbound(_), Event::Bound(_)]));
        }
    }

    /// An agent that is slow by a little is not cut off for what a guest does.
    #[tokio::test]
    async fn a_guest_that_listens_over_and_over_drowns_no_agent() {
        let hub = Arc::new(Hub::default());
        let (outbox, mut frames) = mpsc::channel(BATCH * 2);
        let agent = hub.connect(outbox);
        let telling = hub.clone();
        let telling = tokio::spawn(async move { telling.tell_listeners().await });
        for round in 0..100_000_u32 {
            hub.moved(listener(1 + (round % 7) as u16), round % 2 == 0);
        }
        hub.moved(listener(80), true);
        let known = async {
            while let Some(FromProcess::Event(event)) = frames.recv().await {
                if told(&[event]) == [(80, true)] {
                    return true;
                }
            }
            false
        };
        let known = tokio::time::timeout(Duration::from_secs(30), known).await;
        assert!(known.unwrap());
        assert!(!agent.cut.is_cancelled());
        assert!(frames.len() <= 7);
        telling.abort();
    }

    #[test]
    fn what_the_process_serves_is_told_at_once() {
        let hub = Hub::default();
        let (outbox, mut frames) = mpsc::channel(4);
        let _agent = hub.connect(outbox);
        hub.tell(listener(80), true);
        assert_eq!(hub.listeners(), [listener(80)]);
        hub.tell(listener(80), true);
        hub.tell(listener(80), false);
        let mut events = Vec::new();
        while let Ok(FromProcess::Event(event)) = frames.try_recv() {
            events.push(event);
        }
        assert_eq!(told(&events), [(80, false), (80, true)]);
        assert!(hub.listeners().is_empty());
    }
}
