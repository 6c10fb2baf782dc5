//! Where a Service's address leads on a node: a function of Services, EndpointSlices, and where the
//! node is.
//!
//! The rules are those of the Kubernetes documentation, "Virtual IPs and Service Proxies", and of
//! kube-proxy where that is silent. Calls are of three kinds, which may go to different endpoints
//! ([`Lead`]):
//!
//! | called | by | leads to |
//! |---|---|---|
//! | an address of the cluster | anybody | any endpoint; one of the node with `internalTrafficPolicy: Local` |
//! | an address or a port for outside | a Pod of the node, the node | any endpoint, as if a balancer had it in between |
//! | the same | anybody else | any endpoint; one of the node with `externalTrafficPolicy: Local` |
//!
//! A Service that names another proxy (`service.kubernetes.io/service-proxy-name`) is left to that,
//! and a slice with `service.kubernetes.io/headless` leads nowhere. Both have their names all the
//! same (`zone`).

mod endpoints;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use coracle_runtime::Protocol;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::snapshot::Socket;
use endpoints::{Chosen, choose};

/// Names who proxies a Service, where it is not the cluster's own proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Of slices that DNS alone reads.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Where the node is whose rules they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: String,
    /// Its zone (`topology.kubernetes.io/zone`), if that is known.
    pub zone: Option<String>,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Name of the port, may be empty.
    pub port_name: String,
    /// Port number of the Service.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Addresses under which the cluster knows the Service; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Addresses under which it is called from outside (`externalIPs`).
    pub external_addresses: Vec<IpAddr>,
    /// Port on every node, if it has one.
    pub node_port: Option<u16>,
    /// Seconds for which a client stays with an endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<u32>,
    /// Sockets that serve it, sorted: of any node, the nearest where hints say so. Empty: there is
    /// none anywhere.
    pub endpoints: Vec<SocketAddr>,
    /// Sockets on the node that serve it, sorted.
    pub local_endpoints: Vec<SocketAddr>,
    /// Whether calls inside the cluster stay on their node (`internalTrafficPolicy: Local`).
    pub internal_is_local: bool,
    /// Whether calls from outside stay on the node that they come to
    /// (`externalTrafficPolicy: Local`).
    pub external_is_local: bool,
}

/// Where a call leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead<'a> {
    /// To one of these, which are not none.
    To(&'a [SocketAddr]),
    /// Nowhere, for nobody serves: it is refused at once.
    Refused,
    /// Nowhere, for who serves is on other nodes: it is dropped.
    Dropped,
}

impl ServicePort {
    /// Where calls to its addresses in the cluster lead.
    #[must_use]
    pub fn internal(&self) -> Lead<'_> {
        self.lead(self.internal_is_local)
    }

    /// Where calls from elsewhere to its addresses for outside, and to its port on the node, lead.
    #[must_use]
    pub fn external(&self) -> Lead<'_> {
        self.lead(self.external_is_local)
    }

    /// Where those of the node itself and of its Pods lead.
    #[must_use]
    pub fn external_from_here(&self) -> Lead<'_> {
        self.lead(false)
    }

    fn lead(&self, is_local: bool) -> Lead<'_> {
        let endpoints = if is_local {
            &self.local_endpoints
        } else {
            &self.endpoints
        };
        match endpoints.as_slice() {
            [] if self.endpoints.is_empty() => Lead::Refused,
            [] => Lead::Dropped,
            some => Lead::To(some),
        }
    }
}

/// All ports of all Services, in the order of namespace, name, port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The ports.
    pub ports: Vec<ServicePort>,
    /// Where Services are called that another proxy has.
    pub left: BTreeSet<Socket>,
}

/// The rules of a node for these Services and slices.
#[must_use]
pub fn rules<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    place: &Place,
) -> Rules {
    let slices = by_service(slices.into_iter().filter(|slice| leads_somewhere(slice)));
    let (mut ports, mut left) = (Vec::new(), BTreeSet::new());
    for service in services {
        let own = service_ports(service, &slices, place);
        if is_proxied(service) {
            ports.extend(own);
        } else {
            let sockets = own.iter().flat_map(|port| {
                let address = move |address: &IpAddr| (*address, port.port, port.protocol);
                port.addresses.iter().map(address)
            });
            left.extend(sockets);
        }
    }
    ports.sort_by(|a, b| {
        (&a.namespace, &a.service, a.port, a.protocol, &a.port_name).cmp(&(
            &b.namespace,
            &b.service,
            b.port,
            b.protocol,
            &b.port_name,
        ))
    });
    Rules { ports, left }
}

/// Whether a Service is for us to proxy.
pub(crate) fn is_proxied(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    !labels.is_some_and(|labels| labels.contains_key(PROXY_NAME))
}

/// Whether a slice is for proxies, and not for DNS alone.
pub(crate) fn leads_somewhere(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    !labels.is_some_and(|labels| labels.contains_key(HEADLESS))
}

/// Slices by namespace and name of their Service.
pub(crate) type SlicesByService<'a> = HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// Groups slices by the Service that they name.
pub(crate) fn by_service<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> SlicesByService<'a> {
    let mut grouped = SlicesByService::new();
    for slice in slices {
        let metadata = &slice.metadata;
        let service = metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("kubernetes.io/service-name"));
        if let (Some(namespace), Some(service)) = (metadata.namespace.as_deref(), service) {
            grouped.entry((namespace, service)).or_default().push(slice);
        }
    }
    grouped
}

fn service_ports(
    service: &Service,
    slices: &SlicesByService<'_>,
    place: &Place,
) -> Vec<ServicePort> {
    let (Some(namespace), Some(name), Some(spec)) = (
        service.metadata.namespace.as_deref(),
        service.metadata.name.as_deref(),
        service.spec.as_ref(),
    ) else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let parsed = |addresses: &Option<Vec<String>>| -> Vec<IpAddr> {
        let addresses = addresses.iter().flatten();
        let addresses = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
        addresses
            .filter(|address| !address.is_unspecified())
            .collect()
    };
    let addresses = parsed(&spec.cluster_ips);
    let external_addresses = parsed(&spec.external_ips);
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        spec.session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(10_800)
    });
    let slices = slices
        .get(&(namespace, name))
        .map_or(&[][..], Vec::as_slice);
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let port_name = port.name.clone().unwrap_or_default();
            let protocol = protocol(port.protocol.as_deref())?;
            let Chosen { anywhere, local } = choose(slices, &port_name, protocol, place);
            Some(ServicePort {
                namespace: namespace.to_owned(),
                service: name.to_owned(),
                port: u16::try_from(port.port).ok()?,
                protocol,
                addresses: addresses.clone(),
                external_addresses: external_addresses.clone(),
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()),
                affinity,
                endpoints: anywhere,
                local_endpoints: local,
                internal_is_local: is_local(&spec.internal_traffic_policy),
                external_is_local: is_local(&spec.external_traffic_policy),
                port_name,
            })
        })
        .collect()
}

/// The protocol by its name in the API; absent means TCP. SCTP is not carried.
pub(crate) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests;
