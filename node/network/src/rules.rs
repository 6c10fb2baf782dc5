//! Where a Service's address leads: a function of Services and EndpointSlices, and nothing else.
//!
//! The rules are those of the Kubernetes documentation, "Virtual IPs and Service Proxies": ready
//! endpoints serve; where none is ready, those that are terminating but still serving do.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use coracle_runtime::Protocol;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

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
    /// Addresses under which the Service is known; none for a headless one.
    pub addresses: Vec<IpAddr>,
    /// Port on every node, if it has one.
    pub node_port: Option<u16>,
    /// Seconds for which a client stays with an endpoint (`sessionAffinity: ClientIP`).
    pub affinity: Option<u32>,
    /// Sockets that serve it, sorted. Empty: a connection is refused at once.
    pub endpoints: Vec<SocketAddr>,
}

/// All ports of all Services, in the order of namespace, name, port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The ports.
    pub ports: Vec<ServicePort>,
}

/// The rules for these Services and slices.
#[must_use]
pub fn rules<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Rules {
    let slices = by_service(slices);
    let mut ports: Vec<ServicePort> = services
        .into_iter()
        .flat_map(|service| service_ports(service, &slices))
        .collect();
    ports.sort_by(|a, b| {
        (&a.namespace, &a.service, a.port, a.protocol, &a.port_name).cmp(&(
            &b.namespace,
            &b.service,
            b.port,
            b.protocol,
            &b.port_name,
        ))
    });
    Rules { ports }
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

fn service_ports(service: &Service, slices: &SlicesByService<'_>) -> Vec<ServicePort> {
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
    let addresses: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(spec.external_ips.iter().flatten())
        .filter_map(|address| address.parse().ok())
        .collect();
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
            Some(ServicePort {
                namespace: namespace.to_owned(),
                service: name.to_owned(),
                port: u16::try_from(port.port).ok()?,
                protocol,
                addresses: addresses.clone(),
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()),
                affinity,
                endpoints: endpoints(slices, &port_name, protocol),
                port_name,
            })
        })
        .collect()
}

fn endpoints(slices: &[&EndpointSlice], port_name: &str, protocol_of: Protocol) -> Vec<SocketAddr> {
    // Whether the endpoint is ready, by its socket: two slices may name the same one while the
    // controller moves it between them.
    let mut found: BTreeMap<SocketAddr, bool> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && protocol(port.protocol.as_deref()) == Some(protocol_of)
        });
        for number in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(ready) = usable(endpoint) else {
                    continue;
                };
                for address in endpoint.addresses.iter().filter_map(|a| a.parse().ok()) {
                    let known = found.entry(SocketAddr::new(address, number)).or_default();
                    *known |= ready;
                }
            }
        }
    }
    let any_ready = found.values().any(|&ready| ready);
    found
        .into_iter()
        .filter(|&(_, ready)| ready || !any_ready)
        .map(|(socket, _)| socket)
        .collect()
}

/// Whether an endpoint is ready (`true`) or at least still serves while it terminates (`false`).
fn usable(endpoint: &Endpoint) -> Option<bool> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // An absent condition means ready (EndpointConditions in the API reference).
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    let terminating = conditions.terminating.unwrap_or(false);
    if ready {
        Some(true)
    } else if serving && terminating {
        Some(false)
    } else {
        None
    }
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
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
        }))
        .unwrap()
    }

    fn slice(ports: serde_json::Value, endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn lead(service: &Service, slices: &[EndpointSlice]) -> Vec<String> {
        rules([service], slices)
            .ports
            .iter()
            .map(|port| {
                let endpoints: Vec<_> = port.endpoints.iter().map(ToString::to_string).collect();
                format!(
                    "{:?} {} {:?} {:?} -> {}",
                    port.addresses,
                    port.port,
                    port.node_port,
                    port.affinity,
                    endpoints.join(" ")
                )
            })
            .collect()
    }

    #[test]
    fn ready_endpoints_serve_under_the_named_port() {
        let service = service(json!({
            "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "type": "NodePort",
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        }));
        let slices = [slice(
            json!([
                {"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "dns", "port": 5353, "protocol": "UDP"},
            ]),
            json!([
                {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
                {"addresses": ["10.42.0.2"], "conditions": {}},
                {"addresses": ["10.42.0.4"], "conditions": {"ready": false}},
            ]),
        )];
        assert_eq!(
            lead(&service, &slices),
            [
                "[10.43.0.9] 53 None None -> 10.42.0.2:5353 10.42.0.3:5353",
                "[10.43.0.9] 80 Some(30080) None -> 10.42.0.2:8080 10.42.0.3:8080",
            ]
        );
    }

    #[test]
    fn terminating_endpoints_serve_only_where_none_is_ready() {
        let service = service(json!({
            "clusterIPs": ["10.43.0.9"], "sessionAffinity": "ClientIP", "ports": [{"port": 80}],
        }));
        let ending = json!({
            "addresses": ["10.42.0.5"],
            "conditions": {"ready": false, "serving": true, "terminating": true},
        });
        let ready = json!({"addresses": ["10.42.0.6"]});
        let ports = json!([{"port": 8080}]);
        let both = [slice(ports.clone(), json!([ending, ready]))];
        let only = [slice(ports, json!([ending]))];
        assert_eq!(
            lead(&service, &both),
            ["[10.43.0.9] 80 None Some(10800) -> 10.42.0.6:8080"]
        );
        assert_eq!(
            lead(&service, &only),
            ["[10.43.0.9] 80 None Some(10800) -> 10.42.0.5:8080"]
        );
        assert_eq!(lead(&service, &[]), ["[10.43.0.9] 80 None Some(10800) -> "]);
    }

    #[test]
    fn headless_has_no_address_and_external_name_no_port() {
        let headless = service(json!({
            "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}],
        }));
        assert_eq!(lead(&headless, &[]), ["[] 80 None None -> "]);
        let external = service(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert!(lead(&external, &[]).is_empty());
    }
}
