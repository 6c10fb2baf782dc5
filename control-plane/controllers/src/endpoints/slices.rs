//! The EndpointSlices of a Service that selects Pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointSlice, ForNode, ForZone,
};
use kube::ResourceExt;

use super::backend::{Backend, families, family, headless};
use super::packing::{Action, Frame, Groups, MANAGED_BY, add, plan_family};
use super::{HEADLESS, SERVICE_NAME};
use crate::owners::controller_reference;

/// Endpoints in one slice at most.
const FULL: usize = 100;
const US: &str = "endpointslice-controller.k8s.io";

/// Whether the slice is this controller's.
pub(super) fn ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|by| by == US)
}

/// What to do so that `existing`, the Service's slices, show these backends.
pub(super) fn plan(
    service: &Service,
    backends: &[Backend],
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let mut actions = Vec::new();
    let families = families(service);
    for slice in existing
        .iter()
        .filter(|slice| !families.contains(&slice.address_type))
    {
        actions.push(Action::Delete(slice.clone()));
    }
    let frame = Frame {
        name: service.name_any(),
        namespace: service.namespace(),
        labels: labels(service),
        annotations: None,
        owner: controller_reference(service),
        full: FULL,
        never_none: true,
    };
    let spec = service.spec.as_ref();
    let distribution = spec.and_then(|spec| spec.traffic_distribution.as_deref());
    for name in families {
        let mut groups = Groups::new();
        for backend in backends
            .iter()
            .filter(|backend| family(backend.address) == name)
        {
            add(&mut groups, &backend.ports, endpoint(backend, distribution));
        }
        let existing = existing.iter().filter(|slice| slice.address_type == name);
        actions.extend(plan_family(
            &frame,
            &name,
            &groups,
            existing.cloned().collect(),
        ));
    }
    actions
}

fn endpoint(backend: &Backend, distribution: Option<&str>) -> Endpoint {
    Endpoint {
        addresses: vec![backend.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hints: hints(backend, distribution),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.target.clone()),
        zone: backend.zone.clone(),
        ..Endpoint::default()
    }
}

/// For whom an endpoint is, by the Service's `trafficDistribution`. One that is not ready is for
/// nobody yet, or no longer.
fn hints(backend: &Backend, distribution: Option<&str>) -> Option<EndpointHints> {
    let by_node = match distribution? {
        "PreferSameNode" => true,
        // The first is what the second was called before.
        "PreferClose" | "PreferSameZone" => false,
        _ => return None,
    };
    let zone = backend.zone.clone().filter(|_| backend.ready);
    let node = backend.node.clone().filter(|_| backend.ready && by_node);
    let hints = EndpointHints {
        for_zones: zone.map(|name| vec![ForZone { name }]),
        for_nodes: node.map(|name| vec![ForNode { name }]),
    };
    (hints != EndpointHints::default()).then_some(hints)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), US.to_owned());
    labels
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
