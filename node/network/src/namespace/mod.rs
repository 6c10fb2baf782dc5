//! The network namespaces of a node's Pods, where the agent has the rights.
//!
//! All Pods of guests on a node share one namespace, in which their part of the range is local, so
//! that a Pod costs no link and no address (the `Address` form). One pair of links joins it to the
//! machine. A Pod with containers has a namespace and a pair of its own ([`pod`], the `Netns`
//! form), and an address of the other part:
//!
//! ```text
//!  namespace of Pods                     machine
//!  local 10.42.3.0/25 dev lo             10.42.3.0/24 via 169.254.1.2 dev coracle-XXXXXXX
//!  eth0 169.254.1.2  ────────────────────  coracle-XXXXXXX 169.254.1.1
//!  default via 169.254.1.1               unreachable 10.42.3.128/25 metric high
//!  local 10.43.0.10 dev lo               10.42.3.130 dev corXXXXXX2a0382, for each such Pod
//!                                        forwarding on; masquerading past the cluster's range
//!                                        unreachable 10.42.0.0/16 metric high
//! ```
//!
//! What is unreachable is sent to an address that no Pod has, or to one of the cluster's range
//! where no node is known: it is refused at once, and does not go round between machine and
//! namespace, or by way of a router outside that has never heard of it. The cluster's range is
//! refused by the nodes of one cluster on one machine together; Pods' namespaces refuse nothing,
//! for their way to each other is the machine. The kernel tells each Pod so about once in a second;
//! a Pod that tries more often learns it by a later repetition.
//!
//! The machine's links to Pods, those of all nodes, are in one group ([`LINK_GROUP`]), by which
//! rules tell what Pods send from what comes from elsewhere. Where Services are, DNS among them, is
//! no matter of routes: see [`crate::service_rules`].
//!
//! [`plan`] says what is wanted, [`apply`] makes it so; both know nothing of Pods and guests.
//! Whatever is there already is kept: an agent that comes back finds the namespace with its
//! guests in it. Nothing is removed before [`PodNamespace::tear_down`] but what is a Pod's alone.
//!
//! Deliberately absent: IPv6 between Pods, and ways to other machines. The machine's `ip_forward`
//! stays on after tearing down, for who else relies on it by then cannot be known.

mod apply;
mod links;
mod masquerade;
pub(crate) mod netlink;
mod plan;
mod pod;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use coracle_runtime::IdRange;
use ipnet::{IpNet, Ipv4Net};

use crate::nftables;
use crate::service_rules::{Frame, table_of};
use links::Links;
use plan::{Names, cluster_conflict, netns_part, node_conflict, plan};

pub(crate) use apply::{inside, lock};
pub(crate) use plan::{Claim, LINK_GROUP, overlap};

/// Under which address the machine is in Pods' sight.
pub(crate) const HOST_END: Ipv4Addr = plan::HOST_END;

/// Why Pods do not get a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The range is used otherwise.
    #[error("{0}: choose another range for the cluster with --cluster-cidr")]
    Conflict(String),
    /// A range of the other family.
    #[error("{0} is no IPv4 range: choose one with --cluster-cidr")]
    Family(IpNet),
    /// A step failed.
    #[error(
        "cannot {what}: {source} (this wants root with CAP_NET_ADMIN and CAP_SYS_ADMIN, and a kernel with network namespaces, veth and nftables)"
    )]
    Step {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Names the step that failed.
fn step(what: &'static str) -> impl Fn(io::Error) -> NamespaceError {
    move |source| NamespaceError::Step { what, source }
}

/// The namespace of a node's Pods. It outlives this value, which only knows it.
#[derive(Debug)]
pub(crate) struct PodNamespace {
    names: Names,
    claim: Claim,
    /// The node's address, if it is one of this machine.
    node: Option<Ipv4Addr>,
}

impl PodNamespace {
    /// Finds or makes the namespace of the node whose network has this folder, with all that does
    /// not depend on the node's range.
    pub(crate) fn open(
        folder: &Path,
        cluster: &str,
        range: IpNet,
        node: IpAddr,
    ) -> Result<Self, NamespaceError> {
        let IpNet::V4(range) = range else {
            return Err(NamespaceError::Family(range));
        };
        let folder = absolute(folder).map_err(step("find the network's folder"))?;
        let names = Names::of(&folder);
        let claim = Claim {
            cluster: cluster.to_owned(),
            range,
            folder: Some(folder),
        };
        let _lock = apply::lock().map_err(step("lock the machine's network"))?;
        let mut links = Links::open().map_err(step("speak to the kernel's routing"))?;
        remove_abandoned(&mut links, &names).map_err(step("remove what a past node left"))?;
        let (there, routes) = (
            links.list().map_err(step("list links"))?,
            links.routes().map_err(step("list routes"))?,
        );
        if let Some(conflict) = cluster_conflict(&claim, &names, &there, &routes) {
            return Err(NamespaceError::Conflict(conflict.to_string()));
        }
        let found = names.namespace.exists();
        let this = Self {
            node: address_here(node),
            claim,
            names,
        };
        let made = this.make(&mut links);
        if made.is_err() && !found {
            // Nothing of what did not work stays behind.
            if let Err(error) = remove(&this.names) {
                tracing::warn!(%error, "what was begun of the Pods' namespace could not be removed");
            }
        }
        made.map(|()| this)
    }

    fn make(&self, links: &mut Links) -> Result<(), NamespaceError> {
        let Self { names, claim, .. } = self;
        let namespace = apply::namespace(&names.namespace, None)
            .map_err(step("make the network namespace of Pods"))?;
        apply::pair(links, names, &namespace, &claim.encode())
            .map_err(step("make the link to the namespace of Pods"))?;
        self.apply(None, &namespace)?;
        links
            .refuse(claim.range)
            .map_err(step("refuse what leads to no node of the cluster"))?;
        masquerade::set(&names.table, claim.range)
            .map_err(step("set the masquerading of what Pods send to elsewhere"))
    }

    /// Makes the node's range the Pods'.
    pub(crate) fn use_range(&self, range: IpNet) -> Result<(), NamespaceError> {
        let IpNet::V4(range) = range else {
            return Err(NamespaceError::Family(range));
        };
        let _lock = apply::lock().map_err(step("lock the machine's network"))?;
        let mut links = Links::open().map_err(step("speak to the kernel's routing"))?;
        let (there, routes) = (
            links.list().map_err(step("list links"))?,
            links.routes().map_err(step("list routes"))?,
        );
        if let Some(conflict) = node_conflict(range, &self.names, &there, &routes) {
            return Err(NamespaceError::Conflict(conflict.to_string()));
        }
        let namespace =
            File::open(&self.names.namespace).map_err(step("open the namespace of Pods"))?;
        for before in ranges(&self.names, &there, &routes) {
            if before != range {
                links
                    .refuse_no_longer(netns_part(before))
                    .map_err(step("give up an earlier range"))?;
            }
        }
        self.apply(Some(range), &namespace)
    }

    fn apply(&self, range: Option<Ipv4Net>, namespace: &File) -> Result<(), NamespaceError> {
        let plan = plan(&self.names, range, self.node);
        let link = &self.names.link;
        inside(namespace, || apply::side(plan::INSIDE, &plan.pods))
            .map_err(step("set up the network in the namespace of Pods"))?;
        apply::side(link, &plan.host)
            .and_then(|()| apply::beside(&plan))
            .map_err(step("set up the machine's way to Pods"))?;
        apply::carries(link)
            .and_then(|()| inside(namespace, || apply::carries(plan::INSIDE)))
            .map_err(step("join Pods and the machine"))
    }

    /// Gives the Pod of an address a namespace of its own, which belongs to these users of the Pod's
    /// if it has some, or brings the one that it has in line: its file.
    pub(crate) fn attach(&self, address: IpAddr, users: Option<IdRange>) -> io::Result<PathBuf> {
        let IpAddr::V4(address) = address else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        pod::attach(&self.names, &self.claim, address, self.node, users)
    }

    /// Waits until what is sent to the Pod of an address, and by it, arrives; for some seconds where it
    /// does not.
    pub(crate) fn settle(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => pod::settle(&self.names, address),
            IpAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Removes the namespace of a Pod. That there is none is no error.
    pub(crate) fn detach(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => pod::detach(&self.names, address),
            IpAddr::V6(_) => Ok(()),
        }
    }

    /// Removes the namespaces of all Pods but of those with these addresses.
    pub(crate) fn keep(&self, stay: impl Fn(IpAddr) -> bool) -> io::Result<()> {
        let there = pod::attached(&self.names, &mut Links::open()?)?;
        there
            .into_iter()
            .filter(|address| !stay(IpAddr::V4(*address)))
            .try_for_each(|address| pod::detach(&self.names, address))
    }

    /// How the machine's links to Pods with namespaces of their own begin.
    #[must_use]
    pub(crate) fn pod_links(&self) -> &str {
        &self.names.pod_links
    }

    /// What rules for Services are made for, where the node's Pods and Services have these ranges.
    pub(crate) fn services(&self, pods: Ipv4Net, services: Ipv4Net) -> Frame {
        Frame {
            table: table_of(&self.names.table),
            link: self.names.link.clone(),
            pods,
            node: self.node.unwrap_or(HOST_END),
            cluster: self.claim.range,
            claim: Claim {
                range: services,
                ..self.claim.clone()
            },
        }
    }

    /// The file of the namespace.
    pub(crate) fn path(&self) -> &Path {
        &self.names.namespace
    }

    /// Removes everything of the node whose network has this folder. That there is nothing is no
    /// error.
    pub(crate) fn tear_down(folder: &Path) -> io::Result<()> {
        let names = Names::of(&absolute(folder)?);
        let _lock = match apply::lock() {
            // Who may not lock has made nothing.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            lock => lock?,
        };
        remove(&names)
    }
}

/// The ranges that a node has routes to: one, but for moments.
fn ranges<'a>(
    names: &'a Names,
    links: &'a [links::Link],
    routes: &'a [links::Found],
) -> impl Iterator<Item = Ipv4Net> + 'a {
    let own = links.iter().find(|link| link.name == names.link);
    let fixed = routes.iter().filter(|found| found.fixed);
    let led = fixed.filter(move |found| own.is_some_and(|own| own.index == found.route.link));
    led.map(|found| found.route.destination)
}

/// A route of the machine to some of a range, but for those by this link and to everywhere.
pub(crate) fn route_into(range: Ipv4Net, link: &str) -> io::Result<Option<String>> {
    let mut links = Links::open()?;
    let (there, routes) = (links.list()?, links.routes()?);
    Ok(plan::route_by(range, link, &there, &routes).map(|(to, by)| format!("{to} by {by}")))
}

fn remove(names: &Names) -> io::Result<()> {
    let mut links = Links::open()?;
    for pod in pod::attached(names, &mut links)? {
        pod::detach(names, pod)?;
    }
    let (there, routes) = (links.list()?, links.routes()?);
    for range in ranges(names, &there, &routes) {
        links.refuse_no_longer(netns_part(range))?;
    }
    if let Some(link) = links.index(&names.link)? {
        links.delete(link)?;
    }
    apply::remove_namespace(&names.namespace)?;
    let there = links.list()?;
    for range in plan::unclaimed(&links.refused()?, &there) {
        links.refuse_no_longer(range)?;
    }
    for table in [table_of(&names.table), names.table.clone()] {
        match nftables::remove(&table) {
            // A kernel that cannot say whether the table is there has none.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes what nodes left whose folder is gone. A namespace that cannot be seen may belong to a
/// node with another view of the files, and stays.
fn remove_abandoned(links: &mut Links, own: &Names) -> io::Result<()> {
    for link in links.list()? {
        let Some(folder) = link
            .alias
            .as_deref()
            .and_then(Claim::decode)
            .and_then(|claim| claim.folder)
        else {
            continue;
        };
        let names = Names::of(&folder);
        let abandoned = names.link == link.name && names.link != own.link && !folder.exists();
        if abandoned && names.namespace.exists() {
            tracing::info!(folder = %folder.display(), "removing the network that a node without a folder left");
            remove(&names)?;
        }
    }
    Ok(())
}

/// The one path of a folder, whether it is there or was.
fn absolute(folder: &Path) -> io::Result<PathBuf> {
    match folder.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => std::path::absolute(folder),
    }
}

/// The node's address, if the machine can call from it.
fn address_here(node: IpAddr) -> Option<Ipv4Addr> {
    match node {
        IpAddr::V4(node) if !node.is_loopback() && !node.is_unspecified() => {
            let bound = std::net::UdpSocket::bind((node, 0));
            bound.is_ok().then_some(node)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod machine;
#[cfg(test)]
mod tests;
