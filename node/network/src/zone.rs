//! Which names exist: a function of Services and EndpointSlices, after the Kubernetes DNS-based
//! service discovery specification, version 1.1.0.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::rules::{SlicesByService, by_service};

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
}

/// Names, lower case and without the final dot, with their records in order.
pub type Zone = BTreeMap<String, Vec<Record>>;

/// The zone of the cluster `domain` (`cluster.local`).
#[must_use]
pub fn zone<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    domain: &str,
) -> Zone {
    let slices = by_service(slices);
    let mut zone = Zone::new();
    for service in services {
        add_service(&mut zone, service, &slices, domain);
    }
    for records in zone.values_mut() {
        records.sort();
        records.dedup();
    }
    zone
}

fn add_service(zone: &mut Zone, service: &Service, slices: &SlicesByService<'_>, domain: &str) {
    let (Some(namespace), Some(name), Some(spec)) = (
        service.metadata.namespace.as_deref(),
        service.metadata.name.as_deref(),
        service.spec.as_ref(),
    ) else {
        return;
    };
    let host = format!("{name}.{namespace}.svc.{domain}");
    if spec.type_.as_deref() == Some("ExternalName") {
        if let Some(target) = &spec.external_name {
            let target = target.trim_end_matches('.').to_lowercase();
            zone.entry(host).or_default().push(Record::Alias(target));
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
            zone.entry(service_name(name, port.protocol.as_deref(), &host))
                .or_default()
                .push(record);
        }
    }
    zone.entry(host)
        .or_default()
        .extend(addresses.into_iter().map(Record::Address));
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
                zone.entry(host.to_owned())
                    .or_default()
                    .push(Record::Address(address));
                zone.entry(target.clone())
                    .or_default()
                    .push(Record::Address(address));
                for port in slice.ports.iter().flatten() {
                    if let (Some(name), Some(Ok(number))) =
                        (&port.name, port.port.map(u16::try_from))
                        && !name.is_empty()
                    {
                        zone.entry(service_name(name, port.protocol.as_deref(), host))
                            .or_default()
                            .push(Record::Service {
                                port: number,
                                target: target.clone(),
                            });
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

    fn names(services: &[Service], slices: &[EndpointSlice]) -> Vec<String> {
        zone(services, slices, "cluster.local")
            .into_iter()
            .map(|(name, records)| format!("{name} {records:?}"))
            .collect()
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
                r#"_sql._tcp.db.shop.svc.cluster.local [Service { port: 5432, target: "10-42-0-3.db.shop.svc.cluster.local" }, Service { port: 5432, target: "db-0.db.shop.svc.cluster.local" }]"#,
                "db-0.db.shop.svc.cluster.local [Address(10.42.0.2)]",
                "db.shop.svc.cluster.local [Address(10.42.0.2), Address(10.42.0.3)]",
            ]
        );
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
