//! Addresses as guests write them, made fit to be judged.
//!
//! [`coracle_runtime::GuestNetwork`] tells a Pod's own `localhost` from other places, and lets
//! what is elsewhere through as it is. So an address with a second spelling must not come to it:
//! on the host 0.0.0.0 and ::ffff:127.0.0.1 are the host's loopback too. What is refused here is
//! what the WASI 0.2 description of `wasi:sockets` refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use coracle_runtime::Protocol;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;

/// The address to bind for a guest that asks for `local`.
pub(super) fn bindable(local: SocketAddr) -> Result<SocketAddr, ErrorCode> {
    if embeds_v4(local.ip()) {
        return Err(ErrorCode::InvalidArgument);
    }
    Ok(plain(local))
}

/// The address to dial for a guest that asks for `remote`.
pub(super) fn dialable(protocol: Protocol, remote: SocketAddr) -> Result<SocketAddr, ErrorCode> {
    let ip = remote.ip();
    if remote.port() == 0 || ip.is_unspecified() || embeds_v4(ip) {
        return Err(ErrorCode::InvalidArgument);
    }
    if is_for_many(ip) {
        return Err(match protocol {
            Protocol::Tcp => ErrorCode::InvalidArgument,
            // A Pod's network has neither; on the host's, others would hear it.
            Protocol::Udp => ErrorCode::AccessDenied,
        });
    }
    Ok(plain(remote))
}

/// The address to dial for a URL's host that resolved to `ip`; none leads to many or to port 0.
/// Unlike a socket, a URL may name 0.0.0.0: as on any Linux, that is localhost.
pub(crate) fn of_url(ip: IpAddr, port: u16) -> Option<SocketAddr> {
    let ip = match ip.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    dialable(Protocol::Tcp, SocketAddr::new(ip, port)).ok()
}

/// Without what names an interface of the host: a guest has none.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Whether this is an IPv4 address in IPv6's clothes, mapped or (deprecated) compatible.
fn embeds_v4(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.to_ipv4().is_some() && !ip.is_loopback() && !ip.is_unspecified(),
    }
}

fn is_for_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddrV6;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_one_spelling() {
        use ErrorCode::{AccessDenied, InvalidArgument};
        for (text, tcp, udp) in [
            ("192.0.2.1:80", None, None),
            ("127.0.0.1:80", None, None),
            ("[2001:db8::1]:80", None, None),
            ("[::1]:80", None, None),
            ("192.0.2.1:0", Some(InvalidArgument), Some(InvalidArgument)),
            ("0.0.0.0:80", Some(InvalidArgument), Some(InvalidArgument)),
            ("[::]:80", Some(InvalidArgument), Some(InvalidArgument)),
            (
                "[::ffff:127.0.0.1]:80",
                Some(InvalidArgument),
                Some(InvalidArgument),
            ),
            (
                "[::ffff:192.0.2.1]:80",
                Some(InvalidArgument),
                Some(InvalidArgument),
            ),
            (
                "[::127.0.0.1]:80",
                Some(InvalidArgument),
                Some(InvalidArgument),
            ),
            ("224.0.0.1:80", Some(InvalidArgument), Some(AccessDenied)),
            ("[ff02::1]:80", Some(InvalidArgument), Some(AccessDenied)),
            (
                "255.255.255.255:80",
                Some(InvalidArgument),
                Some(AccessDenied),
            ),
        ] {
            let remote = address(text);
            assert_eq!(dialable(Protocol::Tcp, remote).err(), tcp, "{text}");
            assert_eq!(dialable(Protocol::Udp, remote).err(), udp, "{text}");
        }
    }

    #[test]
    fn an_interface_of_the_host_is_not_named() {
        let scoped = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 7, 1));
        assert_eq!(dialable(Protocol::Tcp, scoped), Ok(address("[::1]:80")));
        assert_eq!(bindable(scoped), Ok(address("[::1]:80")));
    }

    #[test]
    fn a_url_may_name_any_spelling() {
        for (ip, expected) in [
            ("0.0.0.0", Some("127.0.0.1:80")),
            ("::", Some("[::1]:80")),
            ("::ffff:127.0.0.1", Some("127.0.0.1:80")),
            ("::ffff:0.0.0.0", Some("127.0.0.1:80")),
            ("::ffff:10.42.0.7", Some("10.42.0.7:80")),
            ("192.0.2.1", Some("192.0.2.1:80")),
            ("224.0.0.1", None),
            ("255.255.255.255", None),
            ("::127.0.0.1", None),
        ] {
            let found = of_url(ip.parse().unwrap(), 80);
            assert_eq!(found, expected.map(address), "{ip}");
        }
        assert_eq!(of_url(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), None);
    }

    /// Addresses as an attacker would choose them, and any others.
    fn ips() -> impl Strategy<Value = IpAddr> {
        let v4 = prop_oneof![
            any::<[u8; 4]>(),
            any::<[u8; 3]>().prop_map(|[b, c, d]| [127, b, c, d]),
            Just([0; 4]),
            Just([255; 4]),
        ]
        .prop_map(Ipv4Addr::from);
        prop_oneof![
            v4.clone().prop_map(IpAddr::V4),
            v4.clone().prop_map(|ip| IpAddr::V6(ip.to_ipv6_mapped())),
            v4.prop_map(|ip| IpAddr::V6(ip.to_ipv6_compatible())),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ]
    }

    proptest! {
        /// Whoever judges by `is_loopback` is right about where the host would connect.
        #[test]
        fn what_passes_leads_where_it_says(ip in ips(), port: u16, scope: u32, udp: bool) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let remote = match ip {
                IpAddr::V4(_) => SocketAddr::new(ip, port),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, scope, scope).into(),
            };
            let dialled = [dialable(protocol, remote).ok(), of_url(ip, port)];
            for passed in dialled.into_iter().flatten() {
                prop_assert!(passed.port() != 0);
                prop_assert!(!passed.ip().is_unspecified());
                prop_assert!(!is_for_many(passed.ip()));
                prop_assert_eq!(passed.ip().to_canonical(), passed.ip());
                prop_assert_eq!(passed, SocketAddr::new(passed.ip(), passed.port()));
            }
            if let Ok(local) = bindable(remote) {
                prop_assert_eq!(local.ip().to_canonical(), local.ip());
            }
        }
    }
}
