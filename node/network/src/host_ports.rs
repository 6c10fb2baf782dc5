//! Ports of the machine that lead to Pods (`hostPort`).
//!
//! Who has which is kept with the Pods' addresses, on disk, and so lasts as long as those do. Where
//! Pods have addresses that the kernel knows, the node's table translates (`service_rules`), and who
//! is called sees who calls. What a port of `127.0.0.1` is called with must not leave the loopback
//! interface: there the agent listens, as it does for all ports where Pods' addresses are virtual.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use coracle_runtime::Protocol;

use crate::snapshot::Form;

/// A port of the machine that a Pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The machine's address; `0.0.0.0` is all of them.
    pub address: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
    /// Its number on the machine.
    pub port: u16,
    /// That in the Pod.
    pub pod_port: u16,
}

/// One with the Pod's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Published {
    pub(crate) port: HostPort,
    pub(crate) pod: IpAddr,
}

impl Published {
    /// Where it leads.
    pub(crate) fn target(&self) -> SocketAddr {
        SocketAddr::new(self.pod, self.port.pod_port)
    }

    /// Where the agent listens for it, if it does.
    pub(crate) fn listened(&self, form: Form) -> Option<SocketAddr> {
        let HostPort { address, port, .. } = self.port;
        let at = match form {
            Form::Virtual => address,
            Form::Namespaced if address.is_unspecified() => Ipv4Addr::LOCALHOST,
            Form::Namespaced if address.is_loopback() => address,
            Form::Namespaced => return None,
        };
        Some(SocketAddr::from((at, port)))
    }

    /// Whether the kernel translates it.
    pub(crate) fn is_translated(&self) -> bool {
        !self.port.address.is_loopback()
    }
}

/// As a record has it: `TCP 0.0.0.0 8080 80`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        write!(
            f,
            "{protocol} {} {} {}",
            self.address, self.port, self.pod_port
        )
    }
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let [protocol, address, port, pod_port] = words[..] else {
            return Err(());
        };
        Ok(Self {
            address: address.parse().map_err(drop)?,
            protocol: match protocol {
                "TCP" => Protocol::Tcp,
                "UDP" => Protocol::Udp,
                _ => return Err(()),
            },
            port: port.parse().map_err(drop)?,
            pod_port: pod_port.parse().map_err(drop)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `TCP 0.0.0.0 8080 80 -> 10.42.3.2`
    pub(crate) fn published(text: &str) -> Published {
        let (port, pod) = text.split_once(" -> ").unwrap();
        Published {
            port: port.parse().unwrap(),
            pod: pod.parse().unwrap(),
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        for text in ["TCP 0.0.0.0 8080 80", "UDP 127.0.0.1 53 5353"] {
            let port: HostPort = text.parse().unwrap();
            assert_eq!(port.to_string(), text);
        }
        for text in ["", "TCP 0.0.0.0 8080", "SCTP 0.0.0.0 1 1", "TCP ::1 1 1"] {
            assert_eq!(text.parse::<HostPort>(), Err(()), "{text}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_translate_is_listened_for() {
        for (address, of_virtual, of_namespaced, translated) in [
            ("0.0.0.0", "0.0.0.0", Some("127.0.0.1"), true),
            ("127.0.0.1", "127.0.0.1", Some("127.0.0.1"), false),
            ("192.0.2.1", "192.0.2.1", None, true),
        ] {
            let port = published(&format!("TCP {address} 81 80 -> 10.42.3.2"));
            let at = |address: &str| SocketAddr::new(address.parse().unwrap(), 81);
            assert_eq!(port.listened(Form::Virtual), Some(at(of_virtual)));
            assert_eq!(port.listened(Form::Namespaced), of_namespaced.map(at));
            assert_eq!(port.is_translated(), translated);
            assert_eq!(port.target().to_string(), "10.42.3.2:80");
        }
    }
}
