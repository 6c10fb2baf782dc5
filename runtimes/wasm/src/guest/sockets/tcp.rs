//! `wasi:sockets/tcp`: four calls have logic, the rest is handed on.

use std::net::SocketAddr;

use coracle_runtime::Protocol;
use futures::FutureExt;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, SocketResult, TcpSocket};

use super::{Endpoint, Sockets, refused, unspecified};

/// One socket.
#[derive(Default)]
pub(super) struct State {
    /// What the guest asked to bind.
    asked: Option<SocketAddr>,
    endpoint: Option<Endpoint>,
    listening: bool,
    /// Where the guest believes that it is connected.
    remote: Option<SocketAddr>,
}

impl State {
    /// The endpoint, if the guest listens on it.
    pub(super) fn serving(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref().filter(|_| self.listening)
    }
}

type Socket = Resource<TcpSocket>;

impl Host for Sockets<'_> {}

impl HostTcpSocket for Sockets<'_> {
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
            .bind(Protocol::Tcp, asked)
            .map_err(refused)?;
        self.wasi.start_bind(this, network, actual.into()).await?;
        self.state.tcp.entry(rep).or_default().asked = Some(asked);
        Ok(())
    }

    fn finish_bind(&mut self, this: Socket) -> SocketResult<()> {
        let rep = this.rep();
        self.wasi.finish_bind(Resource::new_borrow(rep))?;
        let actual = self.wasi.local_address(Resource::new_borrow(rep))?.into();
        let state = self.state.tcp.entry(rep).or_default();
        let asked = state.asked.unwrap_or(actual);
        let (view, published) = self.state.network.bound(Protocol::Tcp, asked, actual);
        state.endpoint = Some(Endpoint {
            view,
            actual,
            published,
        });
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Socket,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        let rep = this.rep();
        let wanted = SocketAddr::from(remote);
        let peer = self
            .state
            .network
            .connect(Protocol::Tcp, wanted)
            .map_err(refused)?;
        let bound = self
            .state
            .tcp
            .get(&rep)
            .is_some_and(|state| state.endpoint.is_some());
        if let Some(source) = peer.source
            && !bound
        {
            // Its only wait is for the address check, which answers at once.
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
        self.state.tcp.entry(rep).or_default().remote = Some(wanted);
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Socket,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        self.wasi.finish_connect(this)
    }

    async fn start_listen(&mut self, this: Socket) -> SocketResult<()> {
        self.wasi.start_listen(this).await
    }

    fn finish_listen(&mut self, this: Socket) -> SocketResult<()> {
        let rep = this.rep();
        self.wasi.finish_listen(this)?;
        let endpoint = self.state.tcp.get_mut(&rep).and_then(|state| {
            state.listening = true;
            state.endpoint
        });
        if let Some(endpoint) = endpoint {
            self.state.publish(Protocol::Tcp, &endpoint);
        }
        Ok(())
    }

    fn accept(
        &mut self,
        this: Socket,
    ) -> SocketResult<(Socket, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let listener = self
            .state
            .tcp
            .get(&this.rep())
            .and_then(|state| state.endpoint);
        let (socket, input, output) = self.wasi.accept(this)?;
        let state = State {
            endpoint: listener,
            ..State::default()
        };
        self.state.tcp.insert(socket.rep(), state);
        Ok((socket, input, output))
    }

    fn local_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = SocketAddr::from(self.wasi.local_address(this)?);
        let known = self.state.tcp.get(&rep).and_then(|state| state.endpoint);
        let view = match known {
            Some(endpoint) => endpoint.view,
            None => {
                let any = unspecified(actual);
                self.state.network.bound(Protocol::Tcp, any, actual).0
            }
        };
        Ok(view.into())
    }

    fn remote_address(&mut self, this: Socket) -> SocketResult<IpSocketAddress> {
        let rep = this.rep();
        let actual = SocketAddr::from(self.wasi.remote_address(this)?);
        if let Some(remote) = self.state.tcp.get(&rep).and_then(|state| state.remote) {
            return Ok(remote.into());
        }
        let peer = self.state.network.peer(Protocol::Tcp, actual);
        Ok(peer.map_err(refused)?.into())
    }

    fn drop(&mut self, this: Socket) -> wasmtime::Result<()> {
        if let Some(state) = self.state.tcp.remove(&this.rep())
            && let Some(endpoint) = state.serving()
        {
            self.state.withdraw(Protocol::Tcp, endpoint);
        }
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
