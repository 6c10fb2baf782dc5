//! The Endpoints object of a Service, for clients that do not read EndpointSlices yet.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::HEADLESS;
use super::backend::{Backend, families, family, headless};

/// Addresses in one object at most; clients that need more read slices.
const FULL: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const US: &str = "endpoint-controller";

/// Whether the object is this controller's.
pub(super) fn ours(endpoints: &Endpoints) -> bool {
    endpoints
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|by| by == US)
}

/// The object to write, if it differs from the one that is shown.
pub(super) fn plan(
    service: &Service,
    backends: &[Backend],
    shown: Option<&Endpoints>,
) -> Option<Endpoints> {
    let spec = service.spec.as_ref();
    let publish = spec.and_then(|s| s.publish_not_ready_addresses) == Some(true);
    // A Pod without any port that the Service names is nowhere to be called.
    let of_ports = spec.is_some_and(|s| s.ports.iter().flatten().next().is_some());
    let callable = |b: &Backend| !b.ports.is_empty() || !of_ports && headless(service);
    // Endpoints know one family: the Service's first.
    let family_shown = families(service).into_iter().next().unwrap_or_default();
    let wanted = |b: &&Backend| {
        family(b.address) == family_shown && (publish || !b.terminating) && callable(b)
    };
    let mut all: Vec<_> = backends.iter().filter(wanted).collect();
    let over = all.len() > FULL;
    if over {
        // Those that are left out are not ready, as far as there are such.
        all.sort_by_key(|backend| !backend.ready);
    }
    let mut subsets: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for backend in all.into_iter().take(FULL) {
        let subset = subsets.entry(format!("{:?}", backend.ports)).or_default();
        if !backend.ports.is_empty() {
            subset.ports = Some(backend.ports.iter().map(port).collect());
        }
        let list = if backend.ready {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address(backend));
    }
    let subsets: Vec<_> = subsets.into_values().collect();
    let subsets = (!subsets.is_empty()).then_some(subsets);
    let mut metadata = match shown {
        Some(shown) => shown.metadata.clone(),
        None => ObjectMeta {
            name: Some(service.name_any()),
            namespace: service.namespace(),
            ..ObjectMeta::default()
        },
    };
    metadata.labels = Some(labels(service));
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if over {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    let endpoints = Endpoints { metadata, subsets };
    (shown != Some(&endpoints)).then_some(endpoints)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), US.to_owned());
    labels
}

fn port(port: &k8s_openapi::api::discovery::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn address(backend: &Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.address.to_string(),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.target.clone()),
    }
}
