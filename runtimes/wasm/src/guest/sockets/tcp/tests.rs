//! Real sockets, driven as a guest's calls drive them.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_runtime::{GuestNetwork, NetworkError, Peer};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::bindings::sockets::instance_network;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use super::super::{GuestSockets, Listening, Reach};
use super::*;
use crate::guest::quota::{MAX_SOCKETS, Quota};

const DEADLINE: Duration = Duration::from_secs(20);

/// A Pod whose address is virtual, and who reaches everybody.
struct Virtual;

#[async_trait::async_trait]
impl GuestNetwork for Virtual {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError> {
        Err(NetworkError::NameUnresolvable(name.into()))
    }

    fn bind(&self, _: Protocol, _: SocketAddr) -> Result<SocketAddr, NetworkError> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn bound(&self, _: Protocol, local: SocketAddr, actual: SocketAddr) -> (SocketAddr, bool) {
        let view = SocketAddr::new(local.ip(), actual.port());
        (view, !view.ip().is_loopback())
    }

    fn connect(&self, _: Protocol, actual: SocketAddr) -> Result<Peer, NetworkError> {
        Ok(Peer {
            actual,
            source: None,
        })
    }

    fn peer(&self, _: Protocol, actual: SocketAddr) -> Result<SocketAddr, NetworkError> {
        Ok(actual)
    }

    fn listening(&self, _: Protocol, _: SocketAddr, _: Option<SocketAddr>) {}
}

struct Nobody;

impl Listening for Nobody {
    fn bound(&self, _: Protocol, _: SocketAddr, _: SocketAddr) {}
    fn unbound(&self, _: Protocol, _: SocketAddr, _: SocketAddr) {}
}

struct Instance {
    ctx: WasiCtx,
    table: ResourceTable,
    state: GuestSockets,
}

impl Instance {
    fn new() -> Self {
        let mut ctx = WasiCtxBuilder::new();
        ctx.allow_tcp(true)
            .socket_addr_check(|_, _| Box::pin(std::future::ready(true)));
        Self {
            ctx: ctx.build(),
            table: ResourceTable::new(),
            state: GuestSockets::new(Arc::new(Reach {
                network: Arc::new(Virtual),
                listening: Arc::new(Nobody),
                quota: Quota::new(MAX_SOCKETS),
            })),
        }
    }

    fn view(&mut self) -> Sockets<'_> {
        Sockets {
            wasi: WasiSocketsCtxView {
                ctx: self.ctx.sockets(),
                table: &mut self.table,
            },
            state: &mut self.state,
        }
    }
}

/// Binds `local`, sets something, and connects to `remote`.
async fn call(local: &str, remote: SocketAddr) {
    let mut instance = Instance::new();
    let mut guest = instance.view();
    let network = instance_network::Host::instance_network(&mut guest).unwrap();
    let network = || Resource::<Network>::new_borrow(network.rep());
    let family = IpAddressFamily::Ipv4;
    let socket = tcp_create_socket::Host::create_tcp_socket(&mut guest, family).unwrap();
    let this = || Socket::new_borrow(socket.rep());
    let local: SocketAddr = local.parse().unwrap();
    guest
        .start_bind(this(), network(), local.into())
        .await
        .unwrap();
    guest.finish_bind(this()).unwrap();
    let bound = guest.local_address(this()).unwrap();
    guest.set_hop_limit(this(), 7).unwrap();
    guest
        .start_connect(this(), network(), remote.into())
        .unwrap();
    let start = Instant::now();
    loop {
        match guest.finish_connect(this()) {
            Ok(_) => break,
            Err(error) if error.downcast_ref() == Some(&ErrorCode::WouldBlock) => {
                assert!(start.elapsed() < DEADLINE);
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{local} to {remote}: {error:?}"),
        }
    }
    assert_eq!(guest.hop_limit(this()).unwrap(), 7);
    let (bound, seen) = (
        SocketAddr::from(bound),
        SocketAddr::from(guest.local_address(this()).unwrap()),
    );
    assert_eq!(bound.port(), seen.port());
}

/// An address of this machine that is no loopback, if it has one.
fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[tokio::test]
async fn a_socket_that_is_bound_connects_outside() {
    let at = |ip: IpAddr| TcpListener::bind((ip, 0)).unwrap();
    let inside = at(IpAddr::from([127, 0, 0, 1]));
    let remote = inside.local_addr().unwrap();
    call("0.0.0.0:0", remote).await;
    call("127.0.0.1:0", remote).await;
    let Some(outside) = outside() else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    let beyond = at(outside);
    let remote = beyond.local_addr().unwrap();
    call("0.0.0.0:0", remote).await;
    let (_, caller) = beyond.accept().unwrap();
    // From loopback no other machine is reached; this one is, which tells where it was bound.
    assert_eq!(caller.ip(), outside);
    // Who says localhost means it.
    call("127.0.0.1:0", remote).await;
    assert!(beyond.accept().unwrap().1.ip().is_loopback());
}

#[tokio::test]
async fn no_name_is_kept_that_is_none() {
    use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup;
    let mut instance = Instance::new();
    let mut guest = instance.view();
    let network = instance_network::Host::instance_network(&mut guest).unwrap();
    let mut ask = |name: String| {
        let network = Resource::<Network>::new_borrow(network.rep());
        ip_name_lookup::Host::resolve_addresses(&mut guest, network, name).map(drop)
    };
    ask("a".repeat(253)).unwrap();
    let error = ask("a".repeat(64 << 10)).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&ErrorCode::InvalidArgument));
}
