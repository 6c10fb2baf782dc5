//! Where sockets of Pods really are, on the agent's side.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use coracle_runtime::{Listener, Protocol};
use ipnet::IpNet;

use super::bridges::{Wanted, bridges};
use crate::aliases::Alias;
use crate::guest::dialable;
use crate::snapshot::{Form, Socket, localhost_of};

/// The sockets that are known to the node.
#[derive(Debug)]
pub(crate) struct Listeners {
    form: Form,
    cluster_range: IpNet,
    service_range: IpNet,
    /// Sockets that are known under another address than their own.
    aliases: BTreeMap<Socket, SocketAddr>,
    /// Those that others may dial.
    pods: BTreeMap<Socket, SocketAddr>,
    /// Those on Pods' localhosts, for the other processes of the same Pod.
    localhosts: BTreeMap<Socket, SocketAddr>,
}

impl Listeners {
    pub(crate) fn new(
        form: Form,
        cluster_range: IpNet,
        service_range: IpNet,
        aliases: &[Alias],
    ) -> Self {
        Self {
            form,
            cluster_range,
            service_range,
            aliases: by_socket(aliases),
            pods: BTreeMap::new(),
            localhosts: BTreeMap::new(),
        }
    }

    /// Takes what runtimes report in the place of what they reported before; whether it differs.
    pub(crate) fn set(&mut self, mut listeners: Vec<Listener>) -> bool {
        // Where a Pod listens on an address by both families, IPv4 stays: in the namespaced form
        // only that is dialled without a detour.
        listeners.sort_by_key(|listener| listener.actual.is_ipv4());
        let (mut pods, mut localhosts) = (BTreeMap::new(), BTreeMap::new());
        for listener in listeners {
            let address = listener.address.ip().to_canonical();
            let key = |address| (address, listener.address.port(), listener.protocol);
            // One that sends outside is bound to everything; it is dialled like the others.
            let actual = dialable(listener.actual);
            if address.is_loopback() {
                let homes = listener.pod_ips.iter().map(|pod| localhost_of(*pod).into());
                localhosts.extend(homes.map(|home| (key(home), actual)));
            } else {
                pods.insert(key(address), actual);
            }
        }
        let differs = self.pods != pods || self.localhosts != localhosts;
        self.pods = pods;
        self.localhosts = localhosts;
        differs
    }

    /// Where the agent dials an address; none if it is a Pod's or a Service's and nobody serves
    /// it. A Pod's localhost is nobody's business but its own.
    pub(crate) fn dial(&self, protocol: Protocol, address: SocketAddr) -> Option<SocketAddr> {
        let ip = address.ip().to_canonical();
        let key = (ip, address.port(), protocol);
        if let Some(actual) = self.aliases.get(&key) {
            return Some(*actual);
        }
        if self.form == Form::Virtual
            && let Some(actual) = self.pods.get(&key)
        {
            return Some(*actual);
        }
        let refused = self
            .refused_ranges()
            .iter()
            .any(|range| range.contains(&ip));
        (!refused).then_some(address)
    }

    /// Ranges in which an address that nobody serves leads nowhere: in the namespaced form the
    /// kernel knows that of Pods.
    pub(crate) fn refused_ranges(&self) -> Vec<IpNet> {
        match self.form {
            Form::Virtual => vec![self.cluster_range, self.service_range],
            Form::Namespaced => vec![self.service_range],
        }
    }

    /// The bridges that Pods need to be called at their addresses.
    pub(crate) fn bridges(&self) -> Wanted {
        match self.form {
            // There they are dialled where they are.
            Form::Virtual => Wanted::new(),
            Form::Namespaced => bridges(&self.pods),
        }
    }

    /// What guests are told, with the aliases as they reach them.
    pub(crate) fn published(&self, aliases: &[Alias]) -> BTreeMap<Socket, SocketAddr> {
        let mut published = by_socket(aliases);
        published.extend(&self.pods);
        published.extend(&self.localhosts);
        published
    }
}

fn by_socket(aliases: &[Alias]) -> BTreeMap<Socket, SocketAddr> {
    aliases
        .iter()
        .map(|alias| {
            let known = (alias.known.ip(), alias.known.port(), alias.protocol);
            (known, alias.actual)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_runtime::SandboxId;

    fn alias(actual: &str) -> Alias {
        Alias {
            protocol: Protocol::Tcp,
            known: "192.0.2.1:6443".parse().unwrap(),
            actual: actual.parse().unwrap(),
        }
    }

    fn listeners(form: Form) -> Listeners {
        let alias = alias("127.0.0.1:6443");
        Listeners::new(
            form,
            "10.42.0.0/16".parse().unwrap(),
            "10.43.0.0/16".parse().unwrap(),
            &[alias],
        )
    }

    fn listener(address: &str, actual: &str) -> Listener {
        Listener {
            sandbox: SandboxId("s".into()),
            pod_ips: vec!["10.42.0.2".parse().unwrap()],
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            actual: actual.parse().unwrap(),
        }
    }

    #[test]
    fn the_node_dials_pods_where_they_listen() {
        for (form, expected) in [
            (
                Form::Virtual,
                [
                    ("10.42.0.2:80", Some("127.0.0.1:40001")),
                    ("10.42.0.2:81", None),
                    ("10.43.0.9:80", None),
                    ("127.0.0.1:81", Some("127.0.0.1:81")),
                    ("127.42.0.2:81", Some("127.42.0.2:81")),
                    ("192.0.2.1:6443", Some("127.0.0.1:6443")),
                    ("198.51.100.1:443", Some("198.51.100.1:443")),
                ],
            ),
            (
                Form::Namespaced,
                [
                    ("10.42.0.2:80", Some("10.42.0.2:80")),
                    ("10.42.0.2:81", Some("10.42.0.2:81")),
                    ("10.43.0.9:80", None),
                    ("127.0.0.1:81", Some("127.0.0.1:81")),
                    ("127.42.0.2:81", Some("127.42.0.2:81")),
                    ("192.0.2.1:6443", Some("127.0.0.1:6443")),
                    ("198.51.100.1:443", Some("198.51.100.1:443")),
                ],
            ),
        ] {
            let mut listeners = listeners(form);
            assert!(listeners.set(vec![
                listener("10.42.0.2:80", "127.0.0.1:40001"),
                listener("127.0.0.1:81", "127.0.0.1:40002"),
            ]));
            for (address, expected) in expected {
                let found = listeners.dial(Protocol::Tcp, address.parse().unwrap());
                let expected = expected.map(|e| e.parse().unwrap());
                assert_eq!(found, expected, "{form:?} {address}");
            }
        }
    }

    #[test]
    fn localhost_is_published_under_the_pods_own_key() {
        let mut listeners = listeners(Form::Virtual);
        let reported = vec![
            listener("10.42.0.2:80", "127.0.0.1:40001"),
            listener("10.42.0.2:80", "[::1]:40003"),
            listener("10.42.0.2:82", "0.0.0.0:40004"),
            listener("[::1]:81", "[::1]:40002"),
        ];
        assert!(listeners.set(reported.clone()));
        assert!(!listeners.set(reported));
        let alias = alias("169.254.1.1:5");
        let published: Vec<_> = listeners
            .published(&[alias])
            .into_iter()
            .map(|((address, port, _), actual)| format!("{address}:{port} {actual}"))
            .collect();
        assert_eq!(
            published,
            [
                "10.42.0.2:80 127.0.0.1:40001",
                "10.42.0.2:82 127.0.0.1:40004",
                "127.42.0.2:81 [::1]:40002",
                "192.0.2.1:6443 169.254.1.1:5",
            ]
        );
    }
}
