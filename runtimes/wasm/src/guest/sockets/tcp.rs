//! `wasi:sockets/tcp`: where addresses pass there is logic, the rest is handed on.

use std::net::SocketAddr;

use coracle_runtime::Protocol;
use futures::FutureExt;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, SocketError, SocketResult, TcpSocket,
};

use super::{Sockets, address, refused};

type Socket = Resource<TcpSocket>;

impl Sockets<'_> {
    /// Puts a socket that is not bound in the place of one that is, with its settings. Outside it
    /// is seen under whatever port the host finds, as behind any NAT.
    fn renew(&mut self, rep: u32) -> SocketResult<()> {
        let old = || Socket::new_borrow(rep);
        let family = self.wasi.address_family(old()).map_err(SocketError::trap)?;
        let fresh = tcp_create_socket::Host::create_tcp_socket(&mut self.wasi, family)?;
        let new = || Socket::new_borrow(fresh.rep());
        // One that is as it was made is left alone: to set the size of a buffer fixes it.
        macro_rules! carry {
            ($($get:ident $set:ident),*) => {$(
                let value = HostTcpSocket::$get(&mut self.wasi, old())?;
                if value != HostTcpSocket::$get(&mut self.wasi, new())? {
                    HostTcpSocket::$set(&mut self.wasi, new(), value)?;
                }
            )*};
        }
        carry!(
            keep_alive_enabled set_keep_alive_enabled,
            keep_alive_idle_time set_keep_alive_idle_time,
            keep_alive_interval set_keep_alive_interval,
            keep_alive_count set_keep_alive_count,
            hop_limit set_hop_limit,
            receive_buffer_size set_receive_buffer_size,
            send_buffer_size set_send_buffer_size
        );
        let fresh = self.wasi.table.delete(fresh)?;
        *self.wasi.table.get_mut(&old())? = fresh;
        Ok(())
    }
}

impl Host for Sockets<'_> {}

impl HostTcpSocket for Sockets<'_> {
    async fn start_bind(
        &mut self,
        this: Socket,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        let rep = this.rep();
        let actual = self.state.bind(rep, Protocol::Tcp, local.into())?;
        self.wasi.start_bind(this, network, actual.into()).await?;
        self.state.binding(rep, local.into());
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        let rep = this.rep();
        self.wasi.finish_bind(Resource::new_borrow(rep))?;
        let actual = self.wasi.local_address(this)?;
        self.state.bound(rep, actual.into());
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Socket,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let rep = this.rep();
        let remote = address::dialable(Protocol::Tcp, remote.into())?;
        let peer = self
            .state
            .reach
            .network
            .connect(Protocol::Tcp, remote)
            .map_err(refused)?;
        if self.state.is_kept_from(rep, peer.actual) {
            self.renew(rep)?;
        }
        let bound = self.wasi.local_address(Resource::new_borrow(rep)).is_ok();
        if let Some(source) = peer.source
            && !bound
        {
            // This takes a port at once: the socket's descriptor, for IP_BIND_ADDRESS_NO_PORT,
            // is wasmtime's alone. Its only wait is for the address check, which answers at once.
            self.wasi
                .start_bind(
                    Resource::new_borrow(rep),
                    Resource::new_borrow(network.rep()),
                    source.into(),
                )
                .now_or_never()
                .ok_or(ErrorCode::WouldBlock)??;
            self.wasi.finish_bind(Resource::new_borrow(rep))?;
        }
        self.wasi.start_connect(this, network, peer.actual.into())?;
        self.state.connected(rep, Some(remote));
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Socket,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.wasi.finish_connect(this)
    }

    async fn start_listen(&mut self, this: Socket) -> SocketResult<()> {
        if self.state.is_in_use(this.rep()) {
            return Err(ErrorCode::AddressInUse.into());
        }
        self.wasi.start_listen(this).await
    }

    fn finish_listen(&mut self, this: Socket) -> SocketResult<()> {
        let rep = this.rep();
        self.wasi.finish_listen(this)?;
        self.state.serve(rep);
        Ok(())
    }

    fn accept(
        &mut self,
        this: Socket,
    ) -> SocketResult<(Socket, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let listener = this.rep();
        // A guest that has no room leaves the connection in the queue.
        let permit = self.state.permit()?;
        let (socket, input, output) = self.wasi.accept(this)?;
        self.state.accepted(socket.rep(), listener, permit);
        Ok((socket, input, output))
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = SocketAddr::from(self.wasi.local_address(this)?);
        Ok(self.state.local(rep, Protocol::Tcp, actual).into())
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = SocketAddr::from(self.wasi.remote_address(this)?);
        Ok(self.state.remote(rep, Protocol::Tcp, actual)?.into())
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        self.state.closed(this.rep());
        HostTcpSocket::drop(&mut self.wasi, this)
    }

    fn is_listening(&mut self, this: Socket) -> wasmtime::Result<bool> {
        self.wasi.is_listening(this)
    }

    fn address_family(&mut self, this: Socket) -> wasmtime::Result<IpAddressFamily> {
        self.wasi.address_family(this)
    }

    fn set_listen_backlog_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.wasi.set_listen_backlog_size(this, value)
    }

    fn keep_alive_enabled(&mut self, this: Socket) -> SocketResult<bool> {
        self.wasi.keep_alive_enabled(this)
    }

    fn set_keep_alive_enabled(&mut self, this: Socket, value: bool) -> SocketResult<()> {
        self.wasi.set_keep_alive_enabled(this, value)
    }

    fn keep_alive_idle_time(&mut self, this: Socket) -> SocketResult<u64> {
        self.wasi.keep_alive_idle_time(this)
    }

    fn set_keep_alive_idle_time(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.wasi.set_keep_alive_idle_time(this, value)
    }

    fn keep_alive_interval(&mut self, this: Socket) -> SocketResult<u64> {
        self.wasi.keep_alive_interval(this)
    }

    fn set_keep_alive_interval(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        self.wasi.set_keep_alive_interval(this, value)
    }

    fn keep_alive_count(&mut self, this: Socket) -> SocketResult<u32> {
        self.wasi.keep_alive_count(this)
    }

    fn set_keep_alive_count(&mut self, this: Socket, value: u32) -> SocketResult<()> {
        self.wasi.set_keep_alive_count(this, value)
    }

    fn hop_limit(&mut self, this: Socket) -> SocketResult<u8> {
        self.wasi.hop_limit(this)
    }

    fn set_hop_limit(&mut self, this: Socket, value: u8) -> SocketResult<()> {
        self.wasi.set_hop_limit(this, value)
    }

    fn receive_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        HostTcpSocket::receive_buffer_size(&mut self.wasi, this)
    }

    fn set_receive_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        HostTcpSocket::set_receive_buffer_size(&mut self.wasi, this, value)
    }

    fn send_buffer_size(&mut self, this: Socket) -> SocketResult<u64> {
        HostTcpSocket::send_buffer_size(&mut self.wasi, this)
    }

    fn set_send_buffer_size(&mut self, this: Socket, value: u64) -> SocketResult<()> {
        HostTcpSocket::set_send_buffer_size(&mut self.wasi, this, value)
    }

    fn subscribe(&mut self, this: Socket) -> wasmtime::Result<Resource<DynPollable>> {
        HostTcpSocket::subscribe(&mut self.wasi, this)
    }

    fn shutdown(&mut self, this: Socket, how: ShutdownType) -> SocketResult<()> {
        self.wasi.shutdown(this, how)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
