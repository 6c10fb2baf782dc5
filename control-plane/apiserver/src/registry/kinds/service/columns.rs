//! How `kubectl get services` shows a Service.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::super::format_labels;
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column};
use crate::validation::{items, text};

const NONE: &str = "<none>";

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Type", "How the service is exposed."),
        Column::text(
            "Cluster-IP",
            "The address of the service within the cluster.",
        ),
        Column::text(
            "External-IP",
            "Where the service is reached from outside the cluster.",
        ),
        Column::text(
            "Port(s)",
            "The ports of the service, and where there are any its node ports.",
        ),
        Column::age(),
        Column::text(
            "Selector",
            "The labels of the pods that the traffic goes to.",
        )
        .wide(),
    ]
}

pub(super) fn row(service: &Service, now: jiff::Timestamp) -> Vec<Cell> {
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let ip = items(&spec.cluster_ips)
        .first()
        .map_or(text(&spec.cluster_ip), String::as_str);
    vec![
        printing::name(&service.metadata),
        Cell::from(text(&spec.type_)),
        Cell::from(if ip.is_empty() { NONE } else { ip }),
        Cell::from(external(service, spec)),
        Cell::from(ports(items(&spec.ports))),
        printing::age(&service.metadata, now),
        Cell::from(format_labels(spec.selector.as_ref())),
    ]
}

fn external(service: &Service, spec: &ServiceSpec) -> String {
    let fixed = items(&spec.external_ips).iter().map(String::as_str);
    let addresses: Vec<&str> = match text(&spec.type_) {
        "ExternalName" => vec![text(&spec.external_name)],
        "LoadBalancer" => {
            let balancer = service
                .status
                .as_ref()
                .and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer
                .map(|balancer| items(&balancer.ingress))
                .unwrap_or_default();
            let given = ingress.iter().map(|ingress| match text(&ingress.ip) {
                "" => text(&ingress.hostname),
                ip => ip,
            });
            given
                .filter(|address| !address.is_empty())
                .chain(fixed)
                .collect()
        }
        _ => fixed.collect(),
    };
    match (addresses.is_empty(), text(&spec.type_)) {
        (false, _) => addresses.join(","),
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => NONE.to_owned(),
    }
}

fn ports(ports: &[ServicePort]) -> String {
    if ports.is_empty() {
        return NONE.to_owned();
    }
    let one = |port: &ServicePort| match port.node_port.unwrap_or(0) {
        0 => format!("{}/{}", port.port, text(&port.protocol)),
        node_port => format!("{}:{node_port}/{}", port.port, text(&port.protocol)),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(",")
}
