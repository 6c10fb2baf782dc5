//! What a guest's sockets are bound to, as the guest and as the host see it: one mechanism for
//! TCP, where a listener serves, and for UDP, where every bound socket does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use coracle_runtime::{GuestNetwork, Protocol};
use wasmtime_wasi::p2::SocketResult;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

use super::{Listening, address, refused, udp, unspecified};
use crate::guest::quota::{Permit, Quota};

/// What a container has of the network, shared by all its instances.
pub(crate) struct Reach {
    pub network: Arc<dyn GuestNetwork>,
    pub listening: Arc<dyn Listening>,
    /// Of its sockets.
    pub quota: Quota,
}

/// A bound socket.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    /// Where the guest believes that it is bound.
    view: SocketAddr,
    actual: SocketAddr,
    published: bool,
}

impl Endpoint {
    /// Whether the agent hears of it. Nobody else may dial `localhost`, but the other processes
    /// of the Pod do.
    fn is_announced(&self) -> bool {
        self.published || self.view.ip().is_loopback()
    }

    /// Whether the host would let only one of the two serve.
    fn overlaps(&self, asked: SocketAddr) -> bool {
        let (own, other) = (self.view.ip(), asked.ip());
        self.view.port() == asked.port()
            && own.is_ipv4() == other.is_ipv4()
            && (own == other || own.is_unspecified() || other.is_unspecified())
    }
}

/// One socket.
struct Binding {
    protocol: Protocol,
    /// What the guest asked to bind.
    asked: Option<SocketAddr>,
    endpoint: Option<Endpoint>,
    /// Whether the endpoint is made known.
    serving: bool,
    /// Whether this is one end of a connection.
    connected: bool,
    /// Where the guest believes that it is connected, if it dialled.
    remote: Option<SocketAddr>,
    _permit: Permit,
}

impl Binding {
    fn new(protocol: Protocol, permit: Permit) -> Self {
        Self {
            protocol,
            asked: None,
            endpoint: None,
            serving: false,
            connected: false,
            remote: None,
            _permit: permit,
        }
    }
}

/// What is known of the sockets of one instance of a guest beyond what the host's sockets say.
/// Kept by the number of the resource.
pub(crate) struct GuestSockets {
    pub(super) reach: Arc<Reach>,
    bindings: HashMap<u32, Binding>,
    pub(super) streams: HashMap<u32, udp::Flows>,
}

impl GuestSockets {
    pub(crate) fn new(reach: Arc<Reach>) -> Self {
        Self {
            reach,
            bindings: HashMap::new(),
            streams: HashMap::new(),
        }
    }

    /// Room for one more socket.
    pub(super) fn permit(&self) -> SocketResult<Permit> {
        Ok(self.reach.quota.take().ok_or(ErrorCode::NewSocketLimit)?)
    }

    /// A socket was made.
    pub(super) fn opened(&mut self, rep: u32, protocol: Protocol, permit: Permit) {
        self.bindings.insert(rep, Binding::new(protocol, permit));
    }

    /// A connection was accepted.
    pub(super) fn accepted(&mut self, rep: u32, listener: u32, permit: Permit) {
        let listener = self.bindings.get(&listener);
        let binding = Binding {
            endpoint: listener.and_then(|listener| listener.endpoint),
            connected: true,
            ..Binding::new(Protocol::Tcp, permit)
        };
        self.bindings.insert(rep, binding);
    }

    /// The host's address to bind for a guest that asks for `local`.
    pub(super) fn bind(
        &self,
        rep: u32,
        protocol: Protocol,
        local: SocketAddr,
    ) -> SocketResult<SocketAddr> {
        let asked = address::bindable(local)?;
        if asked.port() != 0 && self.is_taken(rep, protocol, asked) {
            return Err(ErrorCode::AddressInUse.into());
        }
        self.reach.network.bind(protocol, asked).map_err(refused)
    }

    /// The host binds the socket.
    pub(super) fn binding(&mut self, rep: u32, local: SocketAddr) {
        if let Some(binding) = self.bindings.get_mut(&rep) {
            binding.asked = Some(local);
        }
    }

    /// The host has bound the socket to `actual`.
    pub(super) fn bound(&mut self, rep: u32, actual: SocketAddr) {
        if let Some(binding) = self.bindings.get_mut(&rep) {
            let asked = binding.asked.unwrap_or(actual);
            let (view, published) = self.reach.network.bound(binding.protocol, asked, actual);
            binding.endpoint = Some(Endpoint {
                view,
                actual,
                published,
            });
        }
    }

    /// Whether another socket of this instance serves what this one is to serve. Where a Pod's
    /// address is virtual, the host would find them two free ports.
    pub(super) fn is_in_use(&self, rep: u32) -> bool {
        self.bindings.get(&rep).is_some_and(|binding| {
            binding
                .endpoint
                .is_some_and(|endpoint| self.is_taken(rep, binding.protocol, endpoint.view))
        })
    }

    fn is_taken(&self, rep: u32, protocol: Protocol, asked: SocketAddr) -> bool {
        self.bindings.iter().any(|(other, binding)| {
            *other != rep
                && binding.serving
                && binding.protocol == protocol
                && binding.endpoint.is_some_and(|of| of.overlaps(asked))
        })
    }

    /// The socket takes what is sent to its endpoint from now on.
    pub(super) fn serve(&mut self, rep: u32) {
        if let Some(binding) = self.bindings.get_mut(&rep)
            && let Some(endpoint) = binding.endpoint
            && !binding.serving
        {
            binding.serving = true;
            let protocol = binding.protocol;
            self.reach
                .network
                .listening(protocol, endpoint.view, Some(endpoint.actual));
            if endpoint.is_announced() {
                self.reach
                    .listening
                    .bound(protocol, endpoint.view, endpoint.actual);
            }
        }
    }

    fn withdraw(&self, binding: &Binding) {
        if let Some(endpoint) = &binding.endpoint
            && binding.serving
        {
            self.reach
                .network
                .listening(binding.protocol, endpoint.view, None);
            if endpoint.is_announced() {
                self.reach
                    .listening
                    .unbound(binding.protocol, endpoint.view, endpoint.actual);
            }
        }
    }

    /// The guest dials; none dissolves what a datagram socket was connected to.
    pub(super) fn connected(&mut self, rep: u32, remote: Option<SocketAddr>) {
        if let Some(binding) = self.bindings.get_mut(&rep) {
            binding.connected = remote.is_some();
            binding.remote = remote;
        }
    }

    /// Whether the socket is bound on the host's loopback for want of the Pod's address, from
    /// where no way leads to `remote`.
    pub(super) fn is_kept_from(&self, rep: u32, remote: SocketAddr) -> bool {
        let endpoint = self.bindings.get(&rep).and_then(|binding| binding.endpoint);
        !remote.ip().is_loopback()
            && endpoint.is_some_and(|of| of.published && of.actual.ip().is_loopback())
    }

    /// What the guest sees as its own address.
    pub(super) fn local(&self, rep: u32, protocol: Protocol, actual: SocketAddr) -> SocketAddr {
        let binding = self.bindings.get(&rep);
        let endpoint = binding.and_then(|binding| binding.endpoint);
        let mut view = endpoint.map_or_else(
            || {
                self.reach
                    .network
                    .bound(protocol, unspecified(actual), actual)
                    .0
            },
            |endpoint| endpoint.view,
        );
        // An end of a connection has an address that is not the wildcard. One that is no
        // loopback address is the Pod's own.
        let connected = binding.is_some_and(|binding| binding.connected);
        if connected && view.ip().is_unspecified() && !actual.ip().is_loopback() {
            view.set_ip(actual.ip());
        }
        view
    }

    /// What the guest sees at the other end.
    pub(super) fn remote(
        &self,
        rep: u32,
        protocol: Protocol,
        actual: SocketAddr,
    ) -> SocketResult<SocketAddr> {
        match self.bindings.get(&rep).and_then(|binding| binding.remote) {
            Some(remote) => Ok(remote),
            None => self.reach.network.peer(protocol, actual).map_err(refused),
        }
    }

    /// The guest dropped the socket.
    pub(super) fn closed(&mut self, rep: u32) {
        if let Some(binding) = self.bindings.remove(&rep) {
            self.withdraw(&binding);
        }
    }
}

impl Drop for GuestSockets {
    fn drop(&mut self) {
        for binding in self.bindings.values() {
            self.withdraw(binding);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::IpAddr;

    use coracle_runtime::{NetworkError, Peer};
    use parking_lot::Mutex;

    use super::*;
    use crate::guest::quota::MAX_SOCKETS;

    /// A Pod's own address is the host's too, and localhost is not for others.
    struct Plain;

    #[async_trait::async_trait]
    impl GuestNetwork for Plain {
        async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetworkError> {
            Err(NetworkError::NameUnresolvable(name.into()))
        }

        fn bind(&self, _: Protocol, local: SocketAddr) -> Result<SocketAddr, NetworkError> {
            Ok(local)
        }

        fn bound(&self, _: Protocol, local: SocketAddr, actual: SocketAddr) -> (SocketAddr, bool) {
            let port = match local.port() {
                0 => actual.port(),
                port => port,
            };
            let view = SocketAddr::new(local.ip(), port);
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

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Listening for Heard {
        fn bound(&self, _: Protocol, address: SocketAddr, _: SocketAddr) {
            self.0.lock().push(format!("+{address}"));
        }

        fn unbound(&self, _: Protocol, address: SocketAddr, _: SocketAddr) {
            self.0.lock().push(format!("-{address}"));
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn sockets() -> (GuestSockets, Arc<Heard>) {
        let heard = Arc::new(Heard::default());
        let sockets = GuestSockets::new(Arc::new(Reach {
            network: Arc::new(Plain),
            listening: heard.clone(),
            quota: Quota::new(MAX_SOCKETS),
        }));
        (sockets, heard)
    }

    /// Opens and binds a socket as a guest does.
    fn bind(sockets: &mut GuestSockets, rep: u32, local: &str, actual: &str) -> bool {
        let permit = sockets.reach.quota.take().unwrap();
        sockets.opened(rep, Protocol::Tcp, permit);
        let local = address(local);
        let free = sockets.bind(rep, Protocol::Tcp, local).is_ok();
        if free {
            sockets.binding(rep, local);
            sockets.bound(rep, address(actual));
        }
        free
    }

    #[test]
    fn what_serves_is_told_until_it_is_closed() {
        let (mut sockets, heard) = sockets();
        bind(&mut sockets, 1, "0.0.0.0:80", "10.42.0.2:80");
        assert!(heard.0.lock().is_empty(), "bound is not serving");
        sockets.serve(1);
        sockets.serve(1);
        bind(&mut sockets, 2, "127.0.0.1:81", "127.42.0.2:81");
        sockets.serve(2);
        bind(&mut sockets, 3, "0.0.0.0:82", "10.42.0.2:82");
        sockets.closed(3);
        sockets.closed(1);
        drop(sockets);
        let expected = [
            "+0.0.0.0:80",
            "+127.0.0.1:81",
            "-0.0.0.0:80",
            "-127.0.0.1:81",
        ];
        assert_eq!(*heard.0.lock(), expected);
    }

    #[test]
    fn a_port_is_served_once() {
        let (mut sockets, _) = sockets();
        assert!(bind(&mut sockets, 1, "127.0.0.1:80", "127.0.0.1:40001"));
        // As long as neither serves, both may be bound.
        assert!(bind(&mut sockets, 2, "0.0.0.0:80", "127.0.0.1:40002"));
        assert!(!sockets.is_in_use(2));
        sockets.serve(1);
        assert!(!sockets.is_in_use(1));
        assert!(sockets.is_in_use(2));
        for (local, free) in [
            ("127.0.0.1:80", false),
            ("0.0.0.0:80", false),
            ("10.42.0.2:80", true),
            ("[::1]:80", true),
            ("127.0.0.1:81", true),
            ("127.0.0.1:0", true),
        ] {
            let found = bind(&mut sockets, 3, local, "127.0.0.1:40003");
            assert_eq!(found, free, "{local}");
            sockets.closed(3);
        }
        sockets.closed(1);
        assert!(!sockets.is_in_use(2));
    }

    #[test]
    fn an_end_of_a_connection_has_an_address() {
        for (actual, accepted) in [
            ("10.42.0.2:80", "10.42.0.2:80"),
            // The host's loopback says nothing of the Pod.
            ("127.0.0.1:40001", "0.0.0.0:80"),
        ] {
            let (mut sockets, _) = sockets();
            bind(&mut sockets, 1, "0.0.0.0:80", actual);
            let permit = sockets.reach.quota.take().unwrap();
            sockets.accepted(2, 1, permit);
            let local = |rep| sockets.local(rep, Protocol::Tcp, address(actual));
            assert_eq!(local(1), address("0.0.0.0:80"), "{actual}");
            assert_eq!(local(2), address(accepted), "{actual}");
        }
    }

    #[test]
    fn a_source_that_is_bound_is_what_the_guest_sees() {
        let (mut sockets, _) = sockets();
        let permit = sockets.reach.quota.take().unwrap();
        sockets.opened(1, Protocol::Tcp, permit);
        sockets.connected(1, Some(address("10.42.0.3:80")));
        let actual = address("10.42.0.2:40001");
        assert_eq!(sockets.local(1, Protocol::Tcp, actual), actual);
        let far = sockets.remote(1, Protocol::Tcp, address("127.0.0.1:1"));
        assert_eq!(far.unwrap(), address("10.42.0.3:80"));
    }
}
