//! `wasi:sockets/udp`: addresses are rewritten per datagram.
//!
//! A conversation sticks to the endpoint that was chosen for its first datagram, and what comes
//! back from there carries the address to which the guest sent, as behind any Service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_runtime::{GuestNetwork, Protocol};
use parking_lot::Mutex;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::{DynPollable, SocketResult, UdpSocket};

use super::{Sockets, address, refused};

/// Conversations remembered per socket.
const MAX_FLOWS: usize = 1024;
/// How long an unused one is remembered, the kernel's default for UDP connection tracking.
const FLOW_IDLE: Duration = Duration::from_secs(30);

/// The conversations of a socket's streams: both streams of one `stream` call share them.
#[derive(Clone, Default)]
pub(super) struct Flows {
    /// The one conversation of a connected socket, which lasts as long as its streams.
    connected: Option<(SocketAddr, SocketAddr)>,
    recent: Arc<Mutex<Recent>>,
}

/// The conversations of a socket that is not connected, whoever began them.
#[derive(Default)]
struct Recent {
    /// By the address that the guest sees.
    flows: HashMap<SocketAddr, Flow>,
    /// The same, by the host's address.
    seen: HashMap<SocketAddr, SocketAddr>,
}

struct Flow {
    actual: SocketAddr,
    last: Instant,
}

impl Recent {
    /// The host's address of a conversation that is going on.
    fn actual(&mut self, apparent: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let flow = self.flows.get_mut(&apparent)?;
        if now.duration_since(flow.last) >= FLOW_IDLE {
            return None;
        }
        flow.last = now;
        Some(flow.actual)
    }

    /// The guest's address of a conversation.
    fn apparent(&mut self, actual: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let apparent = *self.seen.get(&actual)?;
        if let Some(flow) = self.flows.get_mut(&apparent) {
            flow.last = now;
        }
        Some(apparent)
    }

    fn remember(&mut self, apparent: SocketAddr, actual: SocketAddr, now: Instant) {
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&apparent) {
            self.make_room(now);
        }
        let flow = Flow { actual, last: now };
        if let Some(before) = self.flows.insert(apparent, flow)
            && self.seen.get(&before.actual) == Some(&apparent)
        {
            self.seen.remove(&before.actual);
        }
        self.seen.insert(actual, apparent);
    }

    /// Forgets the unused half, so that the next ones find room.
    fn make_room(&mut self, now: Instant) {
        let mut idle: Vec<Duration> = self
            .flows
            .values()
            .map(|flow| now.duration_since(flow.last))
            .collect();
        let middle = idle.len() / 2;
        let (_, median, _) = idle.select_nth_unstable(middle);
        let bound = FLOW_IDLE.min(*median);
        self.flows
            .retain(|_, flow| now.duration_since(flow.last) < bound);
        let flows = &self.flows;
        self.seen.retain(|actual, apparent| {
            flows
                .get(apparent)
                .is_some_and(|flow| flow.actual == *actual)
        });
    }
}

impl Flows {
    /// Conversations of a socket that is connected to `wanted`.
    fn connected(network: &dyn GuestNetwork, wanted: SocketAddr) -> SocketResult<Self> {
        let actual = choose(network, wanted)?;
        Ok(Self {
            connected: Some((wanted, actual)),
            recent: Arc::default(),
        })
    }

    /// Where a datagram to `wanted` goes.
    fn to(&self, network: &dyn GuestNetwork, wanted: SocketAddr) -> SocketResult<SocketAddr> {
        if let Some((connected, actual)) = self.connected
            && connected == wanted
        {
            return Ok(actual);
        }
        let mut recent = self.recent.lock();
        let now = Instant::now();
        if let Some(actual) = recent.actual(wanted, now) {
            return Ok(actual);
        }
        let actual = choose(network, wanted)?;
        recent.remember(wanted, actual, now);
        Ok(actual)
    }

    /// Whom the guest sees behind a datagram from `actual`; none whom the network denies. What
    /// the guest answers goes back there: `actual` may have no other way back to it.
    fn from(&self, network: &dyn GuestNetwork, actual: SocketAddr) -> Option<SocketAddr> {
        if let Some((wanted, connected)) = self.connected
            && connected == actual
        {
            return Some(wanted);
        }
        let mut recent = self.recent.lock();
        let now = Instant::now();
        if let Some(apparent) = recent.apparent(actual, now) {
            return Some(apparent);
        }
        let apparent = network.peer(Protocol::Udp, actual).ok()?;
        recent.remember(apparent, actual, now);
        Some(apparent)
    }
}

/// The endpoint of a new conversation. From where its datagrams come was decided before, when
/// the socket was bound: WASI 0.2 lets none send that is not.
fn choose(network: &dyn GuestNetwork, wanted: SocketAddr) -> SocketResult<SocketAddr> {
    let wanted = address::dialable(Protocol::Udp, wanted)?;
    let peer = network.connect(Protocol::Udp, wanted).map_err(refused)?;
    Ok(peer.actual)
}

type Socket = Resource<UdpSocket>;
type Incoming = Resource<IncomingDatagramStream>;
type Outgoing = Resource<OutgoingDatagramStream>;

impl Host for Sockets<'_> {}

impl HostUdpSocket for Sockets<'_> {
    async fn start_bind(
        &mut self,
        this: Socket,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let rep = this.rep();
        let actual = self.state.bind(rep, Protocol::Udp, local.into())?;
        HostUdpSocket::start_bind(&mut self.wasi, this, network, actual.into()).await?;
        self.state.binding(rep, local.into());
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        let rep = this.rep();
        HostUdpSocket::finish_bind(&mut self.wasi, Resource::new_borrow(rep))?;
        let actual = HostUdpSocket::local_address(&mut self.wasi, this)?;
        self.state.bound(rep, actual.into());
        self.state.serve(rep);
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Socket,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Incoming, Outgoing)> {
        let rep = this.rep();
        let wanted = remote.map(SocketAddr::from);
        let flows = match wanted {
            Some(wanted) => Flows::connected(&*self.state.reach.network, wanted)?,
            None => Flows::default(),
        };
        let actual = flows.connected.map(|(_, actual)| actual.into());
        let (incoming, outgoing) = HostUdpSocket::stream(&mut self.wasi, this, actual).await?;
        self.state.connected(rep, wanted);
        self.state.streams.insert(incoming.rep(), flows.clone());
        self.state.streams.insert(outgoing.rep(), flows);
        Ok((incoming, outgoing))
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = SocketAddr::from(HostUdpSocket::local_address(&mut self.wasi, this)?);
        Ok(self.state.local(rep, Protocol::Udp, actual).into())
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = SocketAddr::from(HostUdpSocket::remote_address(&mut self.wasi, this)?);
        Ok(self.state.remote(rep, Protocol::Udp, actual)?.into())
    }

    fn address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        HostUdpSocket::address_family(&mut self.wasi, this)
    }

    fn unicast_hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        self.wasi.unicast_hop_limit(this)
    }

    fn set_unicast_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.wasi.set_unicast_hop_limit(this, value)
    }

    fn receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        HostUdpSocket::receive_buffer_size(&mut self.wasi, this)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        HostUdpSocket::set_receive_buffer_size(&mut self.wasi, this, value)
    }

    fn send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        HostUdpSocket::send_buffer_size(&mut self.wasi, this)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        HostUdpSocket::set_send_buffer_size(&mut self.wasi, this, value)
    }

    fn subscribe(&mut self, this: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        HostUdpSocket::subscribe(&mut self.wasi, this)
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.state.closed(this.rep());
        HostUdpSocket::drop(&mut self.wasi, this)
    }
}

impl HostIncomingDatagramStream for Sockets<'_> {
    fn receive(&mut self, this: Incoming, max: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let flows = self
            .state
            .streams
            .get(&this.rep())
            .cloned()
            .unwrap_or_default();
        let network = self.state.reach.network.clone();
        let datagrams = self.wasi.receive(this, max)?;
        Ok(datagrams
            .into_iter()
            .filter_map(|datagram| {
                let actual = SocketAddr::from(datagram.remote_address);
                let remote = flows.from(&*network, actual)?;
                Some(IncomingDatagram {
                    data: datagram.data,
                    remote_address: remote.into(),
                })
            })
            .collect())
    }

    fn subscribe(&mut self, this: Incoming) -> wasmtime::Result<Resource<DynPollable>> {
        HostIncomingDatagramStream::subscribe(&mut self.wasi, this)
    }

    fn drop(&mut self, this: Incoming) -> wasmtime::Result<()> {
        self.state.streams.remove(&this.rep());
        HostIncomingDatagramStream::drop(&mut self.wasi, this)
    }
}

impl HostOutgoingDatagramStream for Sockets<'_> {
    fn check_send(&mut self, this: Outgoing) -> SocketResult<u64> {
        self.wasi.check_send(this)
    }

    fn send(&mut self, this: Outgoing, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let flows = self
            .state
            .streams
            .get(&this.rep())
            .cloned()
            .unwrap_or_default();
        let mut rewritten = Vec::with_capacity(datagrams.len());
        for datagram in datagrams {
            let remote = match datagram.remote_address {
                None => None,
                Some(wanted) => match flows.to(&*self.state.reach.network, wanted.into()) {
                    Ok(actual) => Some(actual.into()),
                    // What comes before is sent; the guest meets the error when it sends the
                    // rest again.
                    Err(_) if !rewritten.is_empty() => break,
                    Err(error) => return Err(error),
                },
            };
            rewritten.push(OutgoingDatagram {
                data: datagram.data,
                remote_address: remote,
            });
        }
        self.wasi.send(this, rewritten)
    }

    fn subscribe(&mut self, this: Outgoing) -> wasmtime::Result<Resource<DynPollable>> {
        HostOutgoingDatagramStream::subscribe(&mut self.wasi, this)
    }

    async fn drop(&mut self, this: Outgoing) -> wasmtime::Result<()> {
        self.state.streams.remove(&this.rep());
        HostOutgoingDatagramStream::drop(&mut self.wasi, this).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn address(port: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port as u16))
    }

    #[test]
    fn a_conversation_is_remembered_both_ways_until_it_is_idle() {
        let mut recent = Recent::default();
        let start = Instant::now();
        recent.remember(address(1), address(2), start);
        let later = start + FLOW_IDLE / 2;
        assert_eq!(recent.apparent(address(2), later), Some(address(1)));
        let later = later + FLOW_IDLE / 2;
        assert_eq!(recent.actual(address(1), later), Some(address(2)));
        let idle = later + FLOW_IDLE;
        assert_eq!(recent.actual(address(1), idle), None);
        // The next endpoint takes over, and late answers of the one before are strangers'.
        recent.remember(address(1), address(3), idle);
        assert_eq!(recent.apparent(address(3), idle), Some(address(1)));
        assert_eq!(recent.apparent(address(2), idle), None);
    }

    #[test]
    fn the_oldest_conversations_make_room() {
        let mut recent = Recent::default();
        let start = Instant::now();
        let at = |number: usize| start + Duration::from_micros(number as u64);
        for number in 0..4 * MAX_FLOWS {
            let (apparent, actual) = (address(number), address(30_000 + number));
            recent.remember(apparent, actual, at(number));
            assert!(recent.flows.len() <= MAX_FLOWS);
            assert_eq!(recent.flows.len(), recent.seen.len());
            assert_eq!(recent.actual(apparent, at(number)), Some(actual));
        }
        // All at the same time.
        let mut recent = Recent::default();
        for number in 0..2 * MAX_FLOWS {
            recent.remember(address(number), address(30_000 + number), start);
            assert!(recent.flows.len() <= MAX_FLOWS);
        }
    }
}
