//! Where a proxy may lead: addresses, ports of Pods, and endpoints of Services.
//!
//! Whoever writes EndpointSlices could have the API server call any address. An endpoint is therefore
//! one only if it names a Pod of the Service's namespace, whose address it must be (the caller asks
//! the Pod); loopback, link-local and multicast addresses are nobody's.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// An endpoint that may be one: if the Pod has the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) pod: String,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
}

/// Whether a proxy may lead to an address: a global unicast one, also of private networks.
pub(super) fn is_proxyable(ip: IpAddr) -> bool {
    let special = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let ip = ip.to_canonical();
    !(special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

/// The first address of a Pod.
pub(super) fn ip_of_pod(pod: &Pod) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    let first = status.pod_ips.as_ref().and_then(|ips| ips.first());
    let first = first.map(|ip| &ip.ip).or(status.pod_ip.as_ref());
    first?.parse().ok()
}

/// Whether a Pod has an address.
pub(super) fn has_ip(pod: &Pod, ip: IpAddr) -> bool {
    let status = pod.status.as_ref();
    let ips = status.and_then(|status| status.pod_ips.as_ref());
    let mut ips = ips.into_iter().flatten();
    ips.any(|own| own.ip.parse::<IpAddr>() == Ok(ip))
}

/// Which port of a Pod is meant: a number, the name of a container's, or where none is named the
/// first that a container has. None where there is none of these.
///
/// # Errors
/// Says why there is no such port.
pub(super) fn port_of_pod(spec: &PodSpec, port: &str) -> Result<Option<u16>, String> {
    let containers = || spec.containers.iter();
    if port.is_empty() {
        let first =
            |container: &Container| container.ports.as_ref()?.first().map(|p| p.container_port);
        let first = containers().find_map(first);
        return Ok(first.and_then(|port| u16::try_from(port).ok()));
    }
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: Option<u16> = port.parse().ok().filter(|number| *number > 0);
        return number
            .map(Some)
            .ok_or_else(|| format!("dial tcp: address {port}: invalid port"));
    }
    let all = containers().chain(spec.init_containers.iter().flatten());
    let mut ports = all.flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|known| {
        let tcp = known.protocol.as_deref().unwrap_or("TCP") == "TCP";
        tcp && known.name.as_deref() == Some(port)
    });
    let number = named.and_then(|known| u16::try_from(known.container_port).ok());
    number
        .map(Some)
        .ok_or_else(|| format!("dial tcp: lookup tcp/{port}: unknown port"))
}

/// The ready endpoints of a Service in `namespace` that serve the port of this name, in the order in
/// which they are to be tried: IPv4 before IPv6, and else by chance. `draw` gives a number below
/// another.
pub(super) fn candidates(
    mut slices: Vec<EndpointSlice>,
    namespace: &str,
    port: &str,
    mut draw: impl FnMut(usize) -> usize,
) -> Vec<Candidate> {
    for last in (1..slices.len()).rev() {
        slices.swap(draw(last + 1), last);
    }
    slices.sort_by_key(|slice| slice.address_type != "IPv4");
    let mut found = Vec::new();
    for slice in &slices {
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        let ports = slice.ports.iter().flatten();
        let named = ports.filter(|known| known.name.as_deref().unwrap_or_default() == port);
        for number in named.filter_map(|known| u16::try_from(known.port?).ok()) {
            let first = if endpoints.is_empty() {
                0
            } else {
                draw(endpoints.len())
            };
            let (last, next) = endpoints.split_at(first);
            let in_turn = next.iter().chain(last);
            found.extend(in_turn.filter_map(|endpoint| candidate(endpoint, namespace, number)));
        }
    }
    found
}

fn candidate(endpoint: &Endpoint, namespace: &str, port: u16) -> Option<Candidate> {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready);
    let target = endpoint.target_ref.as_ref()?;
    let is_pod = target.kind.as_deref().unwrap_or("Pod") == "Pod";
    let ours = target.namespace.as_deref() == Some(namespace);
    // Of several addresses only the first counts.
    let ip = endpoint.addresses.first()?.parse().ok()?;
    let fits = ready != Some(false) && is_pod && ours && is_proxyable(ip);
    let pod = target.name.clone().filter(|_| fits)?;
    Some(Candidate { pod, ip, port })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn some_addresses_are_nobodys() {
        for (ip, want) in [
            ("10.42.0.5", true),
            ("192.168.1.1", true),
            ("8.8.8.8", true),
            ("fd00::1", true),
            ("2001:db8::1", true),
            ("::ffff:10.42.0.5", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
        ] {
            assert_eq!(is_proxyable(ip.parse().unwrap()), want, "{ip}");
        }
    }

    #[test]
    fn ports_of_pods_have_numbers_and_names() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [{"name": "i", "ports": [{"name": "side", "containerPort": 15000}]}],
            "containers": [
                {"name": "a"},
                {"name": "b", "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "http", "containerPort": 8080},
                ]},
            ],
        }))
        .unwrap();
        for (port, want) in [
            ("", Ok(Some(53))),
            ("80", Ok(Some(80))),
            ("65535", Ok(Some(65535))),
            ("http", Ok(Some(8080))),
            ("side", Ok(Some(15000))),
            ("0", Err("dial tcp: address 0: invalid port")),
            ("65536", Err("dial tcp: address 65536: invalid port")),
            (
                "99999999999999999999",
                Err("dial tcp: address 99999999999999999999: invalid port"),
            ),
            ("dns", Err("dial tcp: lookup tcp/dns: unknown port")),
            ("-1", Err("dial tcp: lookup tcp/-1: unknown port")),
        ] {
            let want = want.map_err(str::to_owned);
            assert_eq!(port_of_pod(&spec, port), want, "{port}");
        }
        assert_eq!(port_of_pod(&PodSpec::default(), ""), Ok(None));
    }

    fn slice(kind: &str, port: Value, endpoints: Value) -> EndpointSlice {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {},
            "addressType": kind, "ports": [port], "endpoints": endpoints,
        });
        serde_json::from_value(slice).unwrap()
    }

    fn endpoint(address: &str) -> Value {
        json!({
            "addresses": [address],
            "targetRef": {"kind": "Pod", "namespace": "a", "name": format!("pod-{address}")},
        })
    }

    fn found(slices: Vec<EndpointSlice>, port: &str, drawn: usize) -> Vec<String> {
        let candidates = candidates(slices, "a", port, |below| drawn.min(below - 1));
        let text = |of: &Candidate| format!("{}:{}", of.ip, of.port);
        candidates.iter().map(text).collect()
    }

    #[test]
    fn endpoints_are_ready_and_pods_of_the_namespace() {
        let with = |field: &str, value: Value| {
            let mut endpoint = endpoint("10.42.0.5");
            endpoint[field] = value;
            endpoint
        };
        let http = json!({"name": "http", "port": 8080});
        for (endpoint, fits) in [
            (endpoint("10.42.0.5"), true),
            (with("conditions", json!({"ready": true})), true),
            (with("conditions", json!({"serving": true})), true),
            (with("conditions", json!({"ready": false})), false),
            (with("targetRef", Value::Null), false),
            (
                with(
                    "targetRef",
                    json!({"kind": "Pod", "namespace": "b", "name": "p"}),
                ),
                false,
            ),
            (
                with(
                    "targetRef",
                    json!({"kind": "Node", "namespace": "a", "name": "p"}),
                ),
                false,
            ),
            (with("addresses", json!(["127.0.0.1"])), false),
            (with("addresses", json!(["169.254.169.254"])), false),
            (with("addresses", json!(["example.com"])), false),
        ] {
            let slice = slice("IPv4", http.clone(), json!([endpoint.clone()]));
            let found = found(vec![slice], "http", 0);
            assert_eq!(!found.is_empty(), fits, "{endpoint}");
        }
    }

    #[test]
    fn endpoints_are_tried_from_any_one_on() {
        let all = json!([
            endpoint("10.42.0.1"),
            endpoint("10.42.0.2"),
            endpoint("10.42.0.3")
        ]);
        let six = json!([endpoint("fd00::1")]);
        let slices = || {
            let port = json!({"name": "http", "port": 80});
            vec![
                slice("IPv6", port.clone(), six.clone()),
                slice("IPv4", port, all.clone()),
                slice("IPv4", json!({"name": "other", "port": 81}), all.clone()),
                slice("IPv4", json!({"port": 82}), json!([endpoint("10.42.0.4")])),
                slice("IPv4", json!({"name": "http"}), all.clone()),
            ]
        };
        let first = found(slices(), "http", 0);
        assert_eq!(
            first,
            ["10.42.0.1:80", "10.42.0.2:80", "10.42.0.3:80", "fd00::1:80"]
        );
        let last = found(slices(), "http", 2);
        assert_eq!(last[..3], ["10.42.0.3:80", "10.42.0.1:80", "10.42.0.2:80"]);
        // The port of a Service without a name has none in its slices.
        assert_eq!(found(slices(), "", 0), ["10.42.0.4:82"]);
        assert!(found(slices(), "80", 0).is_empty());
        assert!(found(Vec::new(), "http", 0).is_empty());
    }
}
