//! The namespace of one Pod with containers: the `Netns` form.
//!
//! A pair of links of the Pod's own joins it to the machine, with nothing between them that could
//! refuse, learn or age: no bridge, and no neighbour that has to be asked for.
//!
//! ```text
//!  namespace of the Pod                     machine
//!  eth0 10.42.3.130/32 ──────────────────── corXXXXXX2a0382 (no address)
//!  default via 169.254.1.1                  10.42.3.130 dev corXXXXXX2a0382
//!  neighbour 169.254.1.1: HOST              neighbour 10.42.3.130: 0a:58 and the address
//! ```
//!
//! The machine's link never answers for 169.254.1.1: the Pod is told its hardware address, which is
//! the same on all such links. What is there already is kept, and set again.
//!
//! The namespace of a Pod with users of its own (`hostUsers: false`) is made among them and belongs
//! to them: whoever is root in the Pod may do there what root of the machine may do in another. Its
//! file keeps them, so that a sandbox that is made anew finds the same.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use coracle_runtime::IdRange;
use ipnet::Ipv4Net;

use super::apply;
use super::links::{Hardware, Links, NewLink, RT_SCOPE_UNIVERSE, Route, Way};
use super::plan::{Claim, HOST_END, INSIDE, LINK_GROUP, NAMESPACES, Names, Setting};

/// The machine's end of every pair, as Calico has it.
const HOST: Hardware = [0xee; 6];

/// One end of the pair.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    link: String,
    hardware: Hardware,
    /// Settings of the kernel that are there before the link.
    before: Vec<Setting>,
    settings: Vec<Setting>,
    address: Option<Ipv4Addr>,
    neighbour: (Ipv4Addr, Hardware),
    destination: Ipv4Net,
    way: Way,
}

impl End {
    fn new_link(&self) -> NewLink<'_> {
        NewLink {
            name: &self.link,
            hardware: Some(self.hardware),
            ..NewLink::default()
        }
    }

    fn index(&self, links: &Links) -> io::Result<u32> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no link {}", self.link));
        links.index(&self.link)?.ok_or_else(missing)
    }
}

/// What is wanted for a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    namespace: PathBuf,
    machine: End,
    pod: End,
}

/// The plan for the Pod of an address; `node` is the node's, if it is one of this machine.
fn plan(names: &Names, address: Ipv4Addr, node: Option<Ipv4Addr>) -> Plan {
    let [a, b, c, d] = address.octets();
    // As the CNI's plugins make one of an address.
    let hardware = [0x0a, 0x58, a, b, c, d];
    let link = names.pod_link(address);
    Plan {
        namespace: names.pod_namespace(address),
        machine: End {
            before: Vec::new(),
            settings: vec![Setting::no_ipv6(&link)],
            link,
            hardware: HOST,
            address: None,
            neighbour: (address, hardware),
            destination: address.into(),
            way: Way::Gateway {
                gateway: None,
                source: Some(node.unwrap_or(HOST_END)),
            },
        },
        pod: End {
            // The link is made without IPv6, and need not look for others with its address. The
            // loopback interface keeps `::1`.
            before: vec![Setting::no_ipv6("default"), Setting::low_ports()],
            settings: Vec::new(),
            link: INSIDE.to_owned(),
            hardware,
            address: Some(address),
            neighbour: (HOST_END, HOST),
            destination: Ipv4Net::default(),
            way: Way::Gateway {
                gateway: Some(HOST_END),
                source: None,
            },
        },
    }
}

/// Makes or completes the namespace of a Pod: its file.
pub(super) fn attach(
    names: &Names,
    claim: &Claim,
    address: Ipv4Addr,
    node: Option<Ipv4Addr>,
    users: Option<IdRange>,
) -> io::Result<PathBuf> {
    let Plan {
        namespace,
        machine,
        pod,
    } = plan(names, address, node);
    let file = apply::namespace(&namespace, users)?;
    let whole = apply::inside(&file, || {
        apply::set_all(&pod.before)?;
        let mut links = Links::open()?;
        let lo = links.index("lo")?.ok_or(io::ErrorKind::NotFound)?;
        links.set_up(lo)?;
        Ok(links.index(&pod.link)?.is_some())
    })?;
    let mut links = Links::open()?;
    if !whole {
        if let Some(left) = links.index(&machine.link)? {
            // Its other end went with an earlier namespace, and it is about to.
            links.delete(left)?;
        }
        let link = NewLink {
            group: LINK_GROUP,
            ..machine.new_link()
        };
        links.add_pair(link, pod.new_link(), &file)?;
    }
    // Before there is a route: another node that opens meanwhile is to see whose range it is in.
    let link = machine.index(&links)?;
    links.mark(link, LINK_GROUP, &claim.encode())?;
    set_up(&mut links, &machine)?;
    apply::inside(&file, || set_up(&mut Links::open()?, &pod))?;
    Ok(namespace)
}

/// Waits until both ends of a Pod's pair send what they are given. A Pod with rights to its network may
/// hold its own end back: nobody else is to wait meanwhile.
pub(super) fn settle(names: &Names, address: Ipv4Addr) -> io::Result<()> {
    let file = File::open(names.pod_namespace(address))?;
    apply::inside(&file, || apply::carries(INSIDE))?;
    apply::carries(&names.pod_link(address))
}

/// Brings an end in line, in the namespace of the calling thread.
fn set_up(links: &mut Links, end: &End) -> io::Result<()> {
    let link = end.index(links)?;
    apply::set_all(&end.settings)?;
    if let Some(address) = end.address {
        links.add_address(link, address, RT_SCOPE_UNIVERSE)?;
    }
    links.set_up(link)?;
    let (neighbour, hardware) = end.neighbour;
    links.set_neighbour(link, neighbour, hardware)?;
    links.set_route(&Route {
        destination: end.destination,
        way: end.way,
        link,
    })
}

/// Removes the namespace of a Pod. That there is none is no error.
pub(super) fn detach(names: &Names, address: Ipv4Addr) -> io::Result<()> {
    let mut links = Links::open()?;
    // The namespace lives as long as anything is in it, and its links with it.
    if let Some(link) = links.index(&names.pod_link(address))? {
        links.delete(link)?;
    }
    apply::remove_namespace(&names.pod_namespace(address))
}

/// The Pods of a node that have a namespace, or some of it.
pub(super) fn attached(names: &Names, links: &mut Links) -> io::Result<BTreeSet<Ipv4Addr>> {
    let files = match std::fs::read_dir(NAMESPACES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        files => files?,
    };
    let mut found = BTreeSet::new();
    for file in files {
        let name = file?.file_name();
        found.extend(name.to_str().and_then(|name| names.pod_of(name)));
    }
    // A link alone has lost its namespace, and ends by itself; that of a Pod by an old name does
    // not.
    let routes = links.routes()?;
    let owned: Vec<u32> = links
        .list()?
        .into_iter()
        .filter(|link| link.name != names.link && names.owns(&link.name))
        .map(|link| link.index)
        .collect();
    let led = routes.iter().map(|found| &found.route);
    let led = led.filter(|route| owned.contains(&route.link));
    found.extend(led.map(|route| route.destination.network()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_pod_is_told_where_the_machine_is_and_the_other_way_round() {
        let names = Names::of(Path::new("/var/lib/coracle/agent/network"));
        let address = Ipv4Addr::new(10, 42, 3, 130);
        let node = Ipv4Addr::new(192, 0, 2, 1);
        let found = plan(&names, address, Some(node));
        let Plan { machine, pod, .. } = &found;
        assert_eq!(machine.neighbour, (address, pod.hardware));
        assert_eq!(pod.neighbour, (HOST_END, machine.hardware));
        assert_eq!(machine.link, names.pod_link(address));
        assert_eq!(machine.destination.to_string(), "10.42.3.130/32");
        let way = |source| Way::Gateway {
            gateway: None,
            source: Some(source),
        };
        assert_eq!(machine.way, way(node));
        assert_eq!(plan(&names, address, None).machine.way, way(HOST_END));
        assert_eq!((machine.address, pod.address), (None, Some(address)));
        // Multicast and group addresses are none that a link may have.
        assert_eq!((pod.hardware[0] & 1, machine.hardware[0] & 1), (0, 0));
        let another = plan(&names, Ipv4Addr::new(10, 42, 3, 131), Some(node));
        assert_ne!(another.namespace, found.namespace);
        assert_ne!(another.machine.link, machine.link);
    }
}
