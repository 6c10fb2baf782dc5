//! `wasi:sockets` with addresses that [`GuestNetwork`] decides.
//!
//! wasmtime's implementation owns the sockets; this module stands in front of it and rewrites
//! addresses on the way in (bind, connect, send) and out (local and remote address, receive),
//! and answers names. The interfaces are added to the linker over wasmtime's own: whatever is
//! not named here keeps its original, none of which takes an address.

pub(crate) mod address;
mod binding;
mod lookup;
pub(crate) mod source;
mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use coracle_runtime::{NetworkError, Protocol};
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, Network};
use wasmtime_wasi::p2::bindings::sockets::{
    instance_network, ip_name_lookup, tcp as tcp_interface, tcp_create_socket,
    udp as udp_interface, udp_create_socket,
};
use wasmtime_wasi::p2::{SocketError, SocketResult};
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use super::state::Guest;

pub(crate) use binding::{GuestSockets, Reach};

/// Hears of the sockets on which a guest listens: for others, or on `localhost` for the other
/// processes of its Pod.
pub(crate) trait Listening: Send + Sync {
    /// `actual` now serves `address`.
    fn bound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr);
    /// It does no longer.
    fn unbound(&self, protocol: Protocol, address: SocketAddr, actual: SocketAddr);
}

/// The guest's sockets for the length of a call.
pub(crate) struct Sockets<'a> {
    pub(super) wasi: WasiSocketsCtxView<'a>,
    pub(super) state: &'a mut GuestSockets,
}

struct HasSockets;

impl HasData for HasSockets {
    type Data<'a> = Sockets<'a>;
}

/// Adds the interfaces; the linker must allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let view = Guest::sockets_view;
    let options = network::LinkOptions::default();
    network::add_to_linker::<Guest, HasSockets>(linker, &options, view)?;
    instance_network::add_to_linker::<Guest, HasSockets>(linker, view)?;
    tcp_create_socket::add_to_linker::<Guest, HasSockets>(linker, view)?;
    tcp_interface::add_to_linker::<Guest, HasSockets>(linker, view)?;
    udp_create_socket::add_to_linker::<Guest, HasSockets>(linker, view)?;
    udp_interface::add_to_linker::<Guest, HasSockets>(linker, view)?;
    ip_name_lookup::add_to_linker::<Guest, HasSockets>(linker, view)?;
    Ok(())
}

impl network::Host for Sockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.wasi, error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.wasi, error)
    }
}

impl network::HostNetwork for Sockets<'_> {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.wasi, this)
    }
}

impl instance_network::Host for Sockets<'_> {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        instance_network::Host::instance_network(&mut self.wasi)
    }
}

impl tcp_create_socket::Host for Sockets<'_> {
    fn create_tcp_socket(
        &mut self,
        family: network::IpAddressFamily,
    ) -> SocketResult<Resource<wasmtime_wasi::p2::TcpSocket>> {
        let permit = self.state.permit()?;
        let socket = tcp_create_socket::Host::create_tcp_socket(&mut self.wasi, family)?;
        self.state.opened(socket.rep(), Protocol::Tcp, permit);
        Ok(socket)
    }
}

impl udp_create_socket::Host for Sockets<'_> {
    async fn create_udp_socket(
        &mut self,
        family: network::IpAddressFamily,
    ) -> SocketResult<Resource<wasmtime_wasi::p2::UdpSocket>> {
        let permit = self.state.permit()?;
        let socket = udp_create_socket::Host::create_udp_socket(&mut self.wasi, family).await?;
        self.state.opened(socket.rep(), Protocol::Udp, permit);
        Ok(socket)
    }
}

/// The WASI error code for what the network says.
fn code(error: &NetworkError) -> ErrorCode {
    match error {
        NetworkError::NameUnresolvable(_) => ErrorCode::NameUnresolvable,
        NetworkError::TemporaryResolverFailure { .. } => ErrorCode::TemporaryResolverFailure,
        NetworkError::AddressNotBindable(_) => ErrorCode::AddressNotBindable,
        NetworkError::ConnectionRefused(_) => ErrorCode::ConnectionRefused,
        NetworkError::AccessDenied(_) => ErrorCode::AccessDenied,
        NetworkError::RemoteUnreachable(_) => ErrorCode::RemoteUnreachable,
    }
}

fn refused(error: NetworkError) -> SocketError {
    tracing::debug!(%error, "refused to a guest");
    code(&error).into()
}

/// The wildcard address, any port, of a family.
fn unspecified(like: SocketAddr) -> SocketAddr {
    let ip = match like {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}
