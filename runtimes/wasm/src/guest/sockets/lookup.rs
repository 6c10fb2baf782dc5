//! `wasi:sockets/ip-name-lookup`, answered by [`coracle_runtime::GuestNetwork`] alone: the
//! host's resolver is never asked.

use std::net::IpAddr;

use coracle_runtime::NetworkError;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host, HostResolveAddressStream, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;

use super::{Sockets, code};

/// Bytes of a name: more than any can have, in whatever script. What waits for an answer is kept by
/// the host, beside the guest's memory.
const MAX_NAME: usize = 1024;

/// A look-up in the guest's table. The interface's resource is typed as wasmtime's own stream,
/// whose fields are private: the table holds this instead, under the same number.
struct Lookup(State);

enum State {
    Pending(AbortOnDropJoinHandle<Result<Vec<IpAddr>, NetworkError>>),
    Ready(Result<std::vec::IntoIter<IpAddr>, ErrorCode>),
}

impl Host for Sockets<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.wasi.table.get(&network)?;
        if name.len() > MAX_NAME {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let resolver = self.state.reach.network.clone();
        let pending = wasmtime_wasi::runtime::spawn(async move { resolver.resolve(&name).await });
        let lookup = self.wasi.table.push(Lookup(State::Pending(pending)))?;
        Ok(Resource::new_own(lookup.rep()))
    }
}

impl HostResolveAddressStream for Sockets<'_> {
    fn resolve_next_address(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self.wasi.table.get_mut(&own(&this))?;
        if let State::Pending(pending) = &mut lookup.0
            && let Some(answer) = futures::FutureExt::now_or_never(pending)
        {
            lookup.0 = ready(answer);
        }
        match &mut lookup.0 {
            State::Pending(_) => Err(ErrorCode::WouldBlock.into()),
            State::Ready(Ok(addresses)) => Ok(addresses.next().map(Into::into)),
            State::Ready(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.wasi.table, own(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.wasi
            .table
            .delete(Resource::<Lookup>::new_own(this.rep()))?;
        Ok(())
    }
}

fn own(stream: &Resource<ResolveAddressStream>) -> Resource<Lookup> {
    Resource::new_borrow(stream.rep())
}

fn ready(answer: Result<Vec<IpAddr>, NetworkError>) -> State {
    State::Ready(match answer {
        Ok(addresses) => Ok(addresses.into_iter()),
        Err(error) => Err(code(&error)),
    })
}

#[async_trait::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let State::Pending(pending) = &mut self.0 {
            let answer = pending.await;
            self.0 = ready(answer);
        }
    }
}
