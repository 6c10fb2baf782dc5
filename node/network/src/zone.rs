//! Which names exist: a function of Services and EndpointSlices, after the Kubernetes DNS-based
//! service discovery specification, version 1.1.0.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::rules::{SlicesByService, by_service};

/// The version of the specification that the names follow.
const SPECIFICATION: &str = "1.1.0";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// An address (A or AAAA).
    Address(IpAddr),
    /// A port on a host (SRV), all of the same priority and weight.
    Service {
        /// The port.
        port: u16,
        /// The host.
        target: String,
    },
    /// Another name (CNAME).
    Alias(String),
    /// The name of an address (PTR).
    Pointer(String),
    /// Text (TXT).
    Text(String),
}

/// The names of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The cluster's domain, lower case and without the final dot.
    pub domain: String,
    /// Names, lower case and without the final dot, with their records in order. Names in the
    /// domain that have none, but names below them, are here too: they exist (RFC 8020). The names
    /// of addresses (`in-addr.arpa`, `ip6.arpa`) lie outside the domain.
    pub names: BTreeMap<String, Vec<Record>>,
}

impl Zone {
    /// The zone of a domain of which nothing is known yet.
    #[must_use]
    pub fn unknown(domain: &str) -> Self {
        Self {
            domain: domain.trim_end_matches('.').to_lowercase(),
            names: BTreeMap::new(),
        }
    }

    /// Whether what exists is known; a zone that is has at least its version.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether a name, lower case and without the final dot, is the domain or lies in it.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        name.strip_suffix(&self.domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    fn add(&mut self, name: String, record: Record) {
        self.names.entry(name).or_default().push(record);
    }

    /// Adds the names that exist because others lie below them.
    fn add_ancestors(&mut self) {
        let mut ancestors: HashSet<&str> = HashSet::new();
        for name in self.names.keys().filter(|name| self.contains(name)) {
            let mut rest = name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                // Whoever added the parent went up from it.
                if parent.len() < self.domain.len() || !ancestors.insert(parent) {
                    break;
                }
                rest = parent;
            }
        }
        let ancestors: Vec<String> = ancestors.into_iter().map(str::to_owned).collect();
        for name in ancestors {
            self.names.entry(name).or_default();
        }
    }
}

/// The zone of the cluster `domain` (`cluster.local`).
#[must_use]
pub fn zone<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    domain: &str,
) -> Zone {
    let slices = by_service(slices);
    let mut zone = Zone::unknown(domain);
    zone.add(
        format!("dns-version.{}", zone.domain),
        Record::Text(SPECIFICATION.to_owned()),
    );
    let mut own = BTreeMap::new();
    for service in services {
        add_service(&mut zone, &mut own, service, &slices);
    }
    // The name of a Service's address is that Service's, whichever endpoints others say to have.
    zone.names.extend(own);
    for records in zone.names.values_mut() {
        records.sort();
        records.dedup();
    }
    zone.add_ancestors();
    zone
}

/// Adds the names of a Service; those of its own addresses to `own`.
fn add_service(
    zone: &mut Zone,
    own: &mut BTreeMap<String, Vec<Record>>,
    service: &Service,
    slices: &SlicesByService<'_>,
) {
    let (Some(namespace), Some(name), Some(spec)) = (
        service.metadata.namespace.as_deref(),
        service.metadata.name.as_deref(),
        service.spec.as_ref(),
    ) else {
        return;
    };
    let host = format!("{name}.{namespace}.svc.{}", zone.domain);
    if spec.type_.as_deref() == Some("ExternalName") {
        if let Some(target) = &spec.external_name {
            let target = target.trim_end_matches('.').to_lowercase();
            zone.add(host, Record::Alias(target));
        }
        return;
    }
    let addresses: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .filter_map(|address| address.parse().ok())
        .collect();
    if addresses.is_empty() {
        let slices = slices
            .get(&(namespace, name))
            .map_or(&[][..], Vec::as_slice);
        add_headless(
            zone,
            &host,
            slices,
            spec.publish_not_ready_addresses == Some(true),
        );
        return;
    }
    for port in spec.ports.iter().flatten() {
        if let (Some(name), Ok(number)) = (&port.name, u16::try_from(port.port)) {
            let record = Record::Service {
                port: number,
                target: host.clone(),
            };
            zone.add(service_name(name, port.protocol.as_deref(), &host), record);
        }
    }
    for address in addresses {
        let pointers = own.entry(reverse(address)).or_default();
        pointers.push(Record::Pointer(host.clone()));
        zone.add(host.clone(), Record::Address(address));
    }
}

fn add_headless(zone: &mut Zone, host: &str, slices: &[&EndpointSlice], unready: bool) {
    for slice in slices {
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready);
            if ready == Some(false) && !unready {
                continue;
            }
            for address in endpoint
                .addresses
                .iter()
                .filter_map(|a| a.parse::<IpAddr>().ok())
            {
                // An endpoint without a host name gets one made of its address.
                let label = endpoint
                    .hostname
                    .clone()
                    .unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"));
                let target = format!("{label}.{host}").to_lowercase();
                zone.add(host.to_owned(), Record::Address(address));
                zone.add(target.clone(), Record::Address(address));
                zone.add(reverse(address), Record::Pointer(target.clone()));
                for port in slice.ports.iter().flatten() {
                    if let (Some(name), Some(Ok(number))) =
                        (&port.name, port.port.map(u16::try_from))
                        && !name.is_empty()
                    {
                        let record = Record::Service {
                            port: number,
                            target: target.clone(),
                        };
                        zone.add(service_name(name, port.protocol.as_deref(), host), record);
                    }
                }
            }
        }
    }
}

fn service_name(port: &str, protocol: Option<&str>, host: &str) -> String {
    let protocol = protocol.unwrap_or("TCP").to_lowercase();
    format!("_{port}._{protocol}.{host}")
}

/// The name under which the names of an address are asked for (RFC 1035 3.5, RFC 3596 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut name = String::with_capacity(72);
            for octet in v6.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", octet & 15, octet >> 4));
            }
            name + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, spec: serde_json::Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    }

    /// All names with records but the version's.
    fn names(services: &[Service], slices: &[EndpointSlice]) -> Vec<String> {
        zone(services, slices, "cluster.local")
            .names
            .into_iter()
            .filter(|(name, records)| !records.is_empty() && !name.starts_with("dns-version."))
            .map(|(name, records)| format!("{name} {records:?}"))
            .collect()
    }

    #[test]
    fn names_exist_when_others_lie_below_them() {
        let web = service(
            "web",
            json!({"clusterIPs": ["10.43.0.9"], "ports": [{"name": "http", "port": 80}]}),
        );
        let zone = zone(&[web], &[], "Cluster.Local.");
        let empty: Vec<&str> = zone
            .names
            .iter()
            .filter(|(_, records)| records.is_empty())
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            empty,
            [
                "_tcp.web.shop.svc.cluster.local",
                "cluster.local",
                "shop.svc.cluster.local",
                "svc.cluster.local",
            ]
        );
        assert!(zone.is_known() && !Zone::unknown("cluster.local").is_known());
        for (name, inside) in [
            ("cluster.local", true),
            ("a.cluster.local", true),
            ("acluster.local", false),
            ("local", false),
        ] {
            assert_eq!(zone.contains(name), inside, "{name}");
        }
    }

    #[test]
    fn addresses_have_names_in_reverse() {
        for (address, name) in [
            ("10.43.0.9", "9.0.43.10.in-addr.arpa"),
            (
                "2001:db8::5",
                "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            assert_eq!(reverse(address.parse().unwrap()), name);
        }
    }

    #[test]
    fn a_service_has_its_address_and_one_srv_for_each_named_port() {
        let web = service(
            "web",
            json!({"clusterIPs": ["10.43.0.9"], "ports": [{"name": "http", "port": 80}, {"port": 81}]}),
        );
        assert_eq!(
            names(&[web], &[]),
            [
                r#"9.0.43.10.in-addr.arpa [Pointer("web.shop.svc.cluster.local")]"#,
                r#"_http._tcp.web.shop.svc.cluster.local [Service { port: 80, target: "web.shop.svc.cluster.local" }]"#,
                "web.shop.svc.cluster.local [Address(10.43.0.9)]",
            ]
        );
    }

    #[test]
    fn a_headless_service_has_its_ready_pods_by_name() {
        let db = service("db", json!({"clusterIP": "None", "clusterIPs": ["None"]}));
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "name": "db-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "db"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.42.0.2"], "hostname": "db-0"},
                {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
                {"addresses": ["10.42.0.4"], "hostname": "db-2", "conditions": {"ready": false}},
            ],
        }))
        .unwrap();
        assert_eq!(
            names(&[db], &[slice]),
            [
                "10-42-0-3.db.shop.svc.cluster.local [Address(10.42.0.3)]",
                r#"2.0.42.10.in-addr.arpa [Pointer("db-0.db.shop.svc.cluster.local")]"#,
                r#"3.0.42.10.in-addr.arpa [Pointer("10-42-0-3.db.shop.svc.cluster.local")]"#,
                r#"_sql._tcp.db.shop.svc.cluster.local [Service { port: 5432, target: "10-42-0-3.db.shop.svc.cluster.local" }, Service { port: 5432, target: "db-0.db.shop.svc.cluster.local" }]"#,
                "db-0.db.shop.svc.cluster.local [Address(10.42.0.2)]",
                "db.shop.svc.cluster.local [Address(10.42.0.2), Address(10.42.0.3)]",
            ]
        );
    }

    #[test]
    fn nobody_names_a_services_address_by_having_an_endpoint_there() {
        let web = service("web", json!({"clusterIPs": ["10.43.0.9"]}));
        let thief = service("db", json!({"clusterIP": "None", "clusterIPs": ["None"]}));
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "name": "db-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "db"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.43.0.9"], "hostname": "bank"}],
        }))
        .unwrap();
        let slices = [slice];
        for services in [[&web, &thief], [&thief, &web]] {
            let zone = zone(services, &slices, "cluster.local");
            let pointer = Record::Pointer("web.shop.svc.cluster.local".into());
            assert_eq!(zone.names["9.0.43.10.in-addr.arpa"], [pointer]);
        }
    }

    #[test]
    fn an_external_name_is_an_alias() {
        let far = service(
            "far",
            json!({"type": "ExternalName", "externalName": "Example.com."}),
        );
        assert_eq!(
            names(&[far], &[]),
            [r#"far.shop.svc.cluster.local [Alias("example.com")]"#]
        );
    }
}
