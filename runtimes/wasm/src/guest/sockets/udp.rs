//! `wasi:sockets/udp`: addresses are rewritten per datagram.
//!
//! A conversation sticks to the endpoint that was chosen for its first datagram, and what comes
//! back from there carries the address to which the guest sent, as behind any Service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use coracle_runtime::{GuestNetwork, Protocol};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::{DynPollable, SocketResult, UdpSocket};

use super::{Endpoint, Sockets, refused};

/// Conversations remembered per socket.
const MAX_FLOWS: usize = 256;
/// How long an unused one is remembered, the kernel's default for UDP connection tracking.
const FLOW_IDLE: Duration = Duration::from_secs(30);

/// One socket.
#[derive(Default)]
pub(super) struct State {
    asked: Option<SocketAddr>,
    pub(super) endpoint: Option<Endpoint>,
    remote: Option<SocketAddr>,
}

/// The conversations of a socket's streams: both streams of one `stream` call share them.
#[derive(Clone, Default)]
pub(super) struct Flows(std::sync::Arc<parking_lot::Mutex<HashMap<SocketAddr, Flow>>>);

struct Flow {
    actual: SocketAddr,
    last: Instant,
}

impl Flows {
    fn to(&self, network: &dyn GuestNetwork, wanted: SocketAddr) -> SocketResult<SocketAddr> {
        let mut flows = self.0.lock();
        let now = Instant::now();
        if let Some(flow) = flows.get_mut(&wanted)
            && now.duration_since(flow.last) < FLOW_IDLE
        {
            flow.last = now;
            return Ok(flow.actual);
        }
        let peer = network.connect(Protocol::Udp, wanted).map_err(refused)?;
        if flows.len() >= MAX_FLOWS {
            flows.retain(|_, flow| now.duration_since(flow.last) < FLOW_IDLE);
        }
        if flows.len() >= MAX_FLOWS
            && let Some(oldest) = flows
                .iter()
                .min_by_key(|(_, flow)| flow.last)
                .map(|(address, _)| *address)
        {
            flows.remove(&oldest);
        }
        let actual = peer.actual;
        flows.insert(wanted, Flow { actual, last: now });
        Ok(actual)
    }

    fn from(&self, network: &dyn GuestNetwork, actual: SocketAddr) -> Option<SocketAddr> {
        let flows = self.0.lock();
        let known = flows.iter().find(|(_, flow)| flow.actual == actual);
        match known {
            Some((wanted, _)) => Some(*wanted),
            None => network.peer(Protocol::Udp, actual).ok(),
        }
    }
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
        let asked = SocketAddr::from(local);
        let actual = self
            .state
            .network
            .bind(Protocol::Udp, asked)
            .map_err(refused)?;
        HostUdpSocket::start_bind(&mut self.wasi, this, network, actual.into()).await?;
        self.state.udp.entry(rep).or_default().asked = Some(asked);
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        let rep = this.rep();
        HostUdpSocket::finish_bind(&mut self.wasi, this)?;
        let actual =
            HostUdpSocket::local_address(&mut self.wasi, Resource::new_borrow(rep))?.into();
        let state = self.state.udp.entry(rep).or_default();
        let asked = state.asked.unwrap_or(actual);
        let (view, published) = self.state.network.bound(Protocol::Udp, asked, actual);
        let endpoint = Endpoint {
            view,
            actual,
            published,
        };
        state.endpoint = Some(endpoint);
        self.state.publish(Protocol::Udp, &endpoint);
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Socket,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Incoming, Outgoing)> {
        let rep = this.rep();
        let flows = Flows::default();
        let wanted = remote.map(SocketAddr::from);
        let actual = match wanted {
            Some(wanted) => Some(flows.to(&*self.state.network, wanted)?.into()),
            None => None,
        };
        let (incoming, outgoing) = HostUdpSocket::stream(&mut self.wasi, this, actual).await?;
        self.state.udp.entry(rep).or_default().remote = wanted;
        self.state.streams.insert(incoming.rep(), flows.clone());
        self.state.streams.insert(outgoing.rep(), flows);
        Ok((incoming, outgoing))
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = HostUdpSocket::local_address(&mut self.wasi, this)?;
        let endpoint = self.state.udp.get(&rep).and_then(|state| state.endpoint);
        Ok(endpoint.map_or(actual, |endpoint| endpoint.view.into()))
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = HostUdpSocket::remote_address(&mut self.wasi, this)?;
        let remote = self.state.udp.get(&rep).and_then(|state| state.remote);
        Ok(remote.map_or(actual, Into::into))
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
        if let Some(state) = self.state.udp.remove(&this.rep())
            && let Some(endpoint) = &state.endpoint
        {
            self.state.withdraw(Protocol::Udp, endpoint);
        }
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
        let network = self.state.network.clone();
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
                Some(wanted) => match flows.to(&*self.state.network, wanted.into()) {
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
