//! Links, addresses and routes by rtnetlink (`linux/rtnetlink.h`, `linux/if_link.h`).

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

use super::netlink::{
    Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket, attribute, attributes, number,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_UNREACHABLE: u8 = 7;
/// The metric of routes to nowhere: behind any other to the same range. With the kind of route it
/// tells ours from others'.
const LAST: u32 = 0xc0ac_1e00;
/// Everywhere.
pub(super) const RT_SCOPE_UNIVERSE: u8 = 0;
/// On the link alone: nothing is called from there unless it is said.
pub(super) const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;
const RTNH_F_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;

const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;

/// How long the ends of a pair may take to see each other, and how often one looks.
const CARRIER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(1));

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    /// Free text that goes with it (`ip link set … alias`).
    pub(super) alias: Option<String>,
}

/// An address of a link itself, as Ethernet has them.
pub(super) type Hardware = [u8; 6];

/// A link that is to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewLink<'a> {
    pub(super) name: &'a str,
    /// Without one the kernel makes it up.
    pub(super) hardware: Option<Hardware>,
    /// Rules of nftables may ask for it; links that are of none in particular have 0.
    pub(super) group: u32,
}

impl NewLink<'_> {
    fn describe(&self, message: Message) -> Message {
        let message = message
            .text(IFLA_IFNAME, self.name)
            .native(IFLA_GROUP, self.group);
        match self.hardware {
            Some(hardware) => message.attribute(IFLA_ADDRESS, &hardware),
            None => message,
        }
    }
}

/// Where packets to a range go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) destination: Ipv4Net,
    pub(super) way: Way,
    /// Index of the link.
    pub(super) link: u32,
}

/// How they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// All addresses of the range are this namespace's own.
    Local,
    /// To a neighbour.
    Gateway {
        /// The neighbour; none where each address is one.
        gateway: Option<Ipv4Addr>,
        /// The address from which one calls if nothing else is said.
        source: Option<Ipv4Addr>,
    },
}

/// A route that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) route: Route,
    /// Made by a program for good, as ours are, and not by the kernel for an address.
    pub(super) fixed: bool,
}

/// Links, addresses and routes of a network namespace: that of the thread which opened this.
pub(super) struct Links(Socket);

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is the family's number 0.
        Socket::open(None).map(Self)
    }

    pub(super) fn list(&mut self) -> io::Result<Vec<Link>> {
        let found = self
            .0
            .dump(|| Message::new(RTM_GETLINK, 0).put(&link_header(0, 0)))?;
        Ok(found.iter().filter_map(|payload| link(payload)).collect())
    }

    /// The index of a link.
    pub(super) fn index(&self, name: &str) -> io::Result<Option<u32>> {
        // Any socket of the namespace does, and this one is.
        match rustix::net::netdevice::name_to_index(&self.0, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The group of a link.
    #[cfg(test)]
    pub(super) fn group(&mut self, name: &str) -> io::Result<Option<u32>> {
        let asked = || Message::new(RTM_GETLINK, 0).put(&link_header(0, 0));
        let found = self.0.dump(asked)?;
        let named = |payload: &&Vec<u8>| link(payload).is_some_and(|link| link.name == name);
        let found = found.iter().find(named);
        Ok(found.and_then(|payload| number(attribute(payload, LINK_HEADER, IFLA_GROUP)?, 0)))
    }

    /// Makes a pair of links: one here and its `peer` in the other namespace.
    pub(super) fn add_pair(
        &mut self,
        link: NewLink<'_>,
        peer: NewLink<'_>,
        namespace: impl AsFd,
    ) -> io::Result<()> {
        let namespace = namespace.as_fd().as_raw_fd().cast_unsigned();
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL).put(&link_header(0, 0));
        let message = link.describe(message).nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth")
                .nested(IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |end| {
                        peer.describe(end.put(&link_header(0, 0)))
                            .native(IFLA_NET_NS_FD, namespace)
                    })
                })
        });
        self.0.request(message)
    }

    /// Says for good which link has an address that is next to one of ours, so that nobody asks.
    pub(super) fn set_neighbour(
        &mut self,
        link: u32,
        address: Ipv4Addr,
        hardware: Hardware,
    ) -> io::Result<()> {
        let mut header = vec![AF_INET, 0, 0, 0];
        header.extend(link.to_ne_bytes());
        header.extend(NUD_PERMANENT.to_ne_bytes());
        header.extend([0, 0]);
        let message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
            .put(&header)
            .attribute(NDA_DST, &address.octets())
            .attribute(NDA_LLADDR, &hardware);
        self.0.request(message)
    }

    /// Says of a link whose it is, and of which group.
    pub(super) fn mark(&mut self, link: u32, group: u32, alias: &str) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, 0)
            .put(&link_header(link, 0))
            .native(IFLA_GROUP, group)
            .attribute(IFLA_IFALIAS, alias.as_bytes());
        self.0.request(message)
    }

    pub(super) fn set_up(&mut self, link: u32) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, 0).put(&link_header(link, IFF_UP));
        self.0.request(message)
    }

    /// Waits until an end of a pair, both of which are up, sends what it is given. The kernel sees to
    /// that some time after (`linkwatch`; kernels from 6.9 on when they are asked), and what is sent
    /// before is lost without a word: a Pod's first question to DNS, and 5 s with it.
    pub(super) fn wait_for_carrier(&mut self, link: u32) -> io::Result<()> {
        let (patience, pause) = CARRIER;
        let deadline = Instant::now() + patience;
        loop {
            let asked = Message::new(RTM_GETLINK, 0).put(&link_header(link, 0));
            let found = self.0.get(asked)?;
            if attribute(&found, LINK_HEADER, IFLA_OPERSTATE) == Some(&[IF_OPER_UP]) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let text = format!("link {link} is up and has no carrier after {patience:?}");
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            std::thread::sleep(pause);
        }
    }

    pub(super) fn delete(&mut self, link: u32) -> io::Result<()> {
        let message = Message::new(RTM_DELLINK, 0).put(&link_header(link, 0));
        match self.0.request(message) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Gives a link an address, which is known as far as `scope` says.
    pub(super) fn add_address(
        &mut self,
        link: u32,
        address: Ipv4Addr,
        scope: u8,
    ) -> io::Result<()> {
        let mut header = vec![AF_INET, 32, 0, scope];
        header.extend(link.to_ne_bytes());
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)
            .put(&header)
            .attribute(IFA_LOCAL, &address.octets())
            .attribute(IFA_ADDRESS, &address.octets());
        self.0.request(message)
    }

    /// Sets a route, in the place of one to the same range.
    pub(super) fn set_route(&mut self, route: &Route) -> io::Result<()> {
        self.0.request(route_message(
            RTM_NEWROUTE,
            NLM_F_CREATE | NLM_F_REPLACE,
            route,
        ))
    }

    pub(super) fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        match self.0.request(route_message(RTM_DELROUTE, 0, route)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Refuses what goes to a range and has no better route. That it is refused already is no
    /// error.
    pub(super) fn refuse(&mut self, range: Ipv4Net) -> io::Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        unless_there(self.0.request(refusal(RTM_NEWROUTE, flags, range)))
    }

    /// Takes a refusal back.
    pub(super) fn refuse_no_longer(&mut self, range: Ipv4Net) -> io::Result<()> {
        match self.0.request(refusal(RTM_DELROUTE, 0, range)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// The ranges that are refused.
    pub(super) fn refused(&mut self) -> io::Result<Vec<Ipv4Net>> {
        let found = self.dump_routes()?;
        Ok(found
            .iter()
            .filter_map(|payload| refused(payload))
            .collect())
    }

    fn dump_routes(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut header = [0; ROUTE_HEADER];
        header[0] = AF_INET;
        self.0.dump(|| Message::new(RTM_GETROUTE, 0).put(&header))
    }

    /// The routes of the tables `main` and `local` that lead to a link.
    pub(super) fn routes(&mut self) -> io::Result<Vec<Found>> {
        let found = self.dump_routes()?;
        Ok(found.iter().filter_map(|payload| route(payload)).collect())
    }
}

/// Makes an error of what is there already good.
pub(super) fn unless_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn link_header(index: u32, flags: u32) -> Vec<u8> {
    let mut header = vec![AF_UNSPEC, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    // Which of the flags are meant.
    header.extend(flags.to_ne_bytes());
    header
}

fn link(payload: &[u8]) -> Option<Link> {
    let text = |kind| {
        let bytes = attribute(payload, LINK_HEADER, kind)?;
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        String::from_utf8(bytes.to_vec()).ok()
    };
    Some(Link {
        index: number(payload, 4)?,
        name: text(IFLA_IFNAME)?,
        alias: text(IFLA_IFALIAS),
    })
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let (table, scope, way, header_flags) = match route.way {
        Way::Local => (RT_TABLE_LOCAL, RT_SCOPE_HOST, RTN_LOCAL, 0),
        Way::Gateway { gateway: None, .. } => (RT_TABLE_MAIN, RT_SCOPE_LINK, RTN_UNICAST, 0),
        // The neighbour's address is in no range of the link's.
        Way::Gateway { .. } => (RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK),
    };
    let prefix = route.destination.prefix_len();
    let mut header = vec![AF_INET, prefix, 0, 0, table, RTPROT_STATIC, scope, way];
    header.extend(header_flags.to_ne_bytes());
    let mut message = Message::new(kind, flags)
        .put(&header)
        .attribute(RTA_DST, &route.destination.network().octets())
        .native(RTA_OIF, route.link);
    if let Way::Gateway { gateway, source } = route.way {
        if let Some(gateway) = gateway {
            message = message.attribute(RTA_GATEWAY, &gateway.octets());
        }
        if let Some(source) = source {
            message = message.attribute(RTA_PREFSRC, &source.octets());
        }
    }
    message
}

fn refusal(kind: u16, flags: u16, range: Ipv4Net) -> Message {
    let (prefix, scope) = (range.prefix_len(), RT_SCOPE_UNIVERSE);
    let (table, way) = (RT_TABLE_MAIN, RTN_UNREACHABLE);
    let mut header = vec![AF_INET, prefix, 0, 0, table, RTPROT_STATIC, scope, way];
    header.extend(0_u32.to_ne_bytes());
    Message::new(kind, flags)
        .put(&header)
        .attribute(RTA_DST, &range.network().octets())
        .native(RTA_PRIORITY, LAST)
}

fn refused(payload: &[u8]) -> Option<Ipv4Net> {
    let (prefix, kind) = (*payload.get(1)?, *payload.get(7)?);
    let (mut destination, mut metric) = (None, None);
    for (attribute, value) in attributes(payload, ROUTE_HEADER) {
        match attribute {
            RTA_DST => destination = address(value),
            RTA_PRIORITY => metric = number(value, 0),
            _ => {}
        }
    }
    if kind != RTN_UNREACHABLE || metric != Some(LAST) {
        return None;
    }
    Ipv4Net::new(destination?, prefix).ok()
}

fn route(payload: &[u8]) -> Option<Found> {
    let (prefix, protocol, kind) = (*payload.get(1)?, *payload.get(5)?, *payload.get(7)?);
    let mut table = u32::from(*payload.get(4)?);
    let (mut destination, mut link) = (Ipv4Addr::UNSPECIFIED, None);
    let (mut gateway, mut source) = (None, None);
    for (attribute, value) in attributes(payload, ROUTE_HEADER) {
        match attribute {
            RTA_DST => destination = address(value)?,
            RTA_OIF => link = number(value, 0),
            RTA_GATEWAY => gateway = address(value),
            RTA_PREFSRC => source = address(value),
            RTA_TABLE => table = number(value, 0)?,
            _ => {}
        }
    }
    let way = match (kind, table) {
        (RTN_LOCAL, table) if table == u32::from(RT_TABLE_LOCAL) => Way::Local,
        (RTN_UNICAST, table) if table == u32::from(RT_TABLE_MAIN) => {
            Way::Gateway { gateway, source }
        }
        _ => return None,
    };
    Some(Found {
        route: Route {
            destination: Ipv4Net::new(destination, prefix).ok()?,
            way,
            link: link?,
        },
        fixed: protocol == RTPROT_STATIC,
    })
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    Some(octets.into())
}
