//! The EndpointSlices of a Service: which to create, update and delete.
//!
//! Endpoints with equal ports share slices of at most a hundred. Where endpoints come and go,
//! as few slices change as can be; a slice that would be deleted is reused for one that would be
//! created, so that readers never see none.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::backend::{Backend, families, family, headless};
use super::{HEADLESS, SERVICE_NAME};
use crate::owners::controller_reference;

/// Endpoints in one slice at most.
const FULL: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

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
    for name in families {
        let backends = backends
            .iter()
            .filter(|backend| family(backend.address) == name);
        let existing = existing.iter().filter(|slice| slice.address_type == name);
        actions.extend(plan_family(
            service,
            &name,
            backends,
            existing.cloned().collect(),
        ));
    }
    actions
}

fn plan_family<'a>(
    service: &Service,
    family: &str,
    backends: impl Iterator<Item = &'a Backend>,
    mut existing: Vec<Arc<EndpointSlice>>,
) -> Vec<Action> {
    existing.sort_by_key(|slice| slice.name_any());
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for backend in backends {
        let group = groups.entry(key(&backend.ports)).or_default();
        group.ports.clone_from(&backend.ports);
        group.endpoints.push(endpoint(backend));
    }
    let mut wanted = Vec::new();
    let mut spare = Vec::new();
    for (ports, group) in &groups {
        let (same, others): (Vec<_>, Vec<_>) = existing
            .into_iter()
            .partition(|slice| key(slice.ports.as_deref().unwrap_or_default()) == *ports);
        existing = others;
        let (filled, empty) = fill(group, same);
        wanted.extend(filled);
        spare.extend(empty);
    }
    spare.extend(existing);
    if wanted.is_empty() {
        // Readers tell "no endpoints" from "not known yet" by a slice without any.
        wanted.push((spare.pop(), Vec::new(), Vec::new()));
    }
    for (slot, _, _) in wanted.iter_mut().filter(|(slot, _, _)| slot.is_none()) {
        *slot = spare.pop();
    }
    let labels = labels(service);
    let mut actions = Vec::new();
    for (slot, ports, endpoints) in wanted {
        let slice = slice(service, family, &labels, slot.as_deref(), ports, endpoints);
        match slot {
            None => actions.push(Action::Create(slice)),
            Some(old) if same(&old, &slice) => {}
            Some(_) => actions.push(Action::Update(slice)),
        }
    }
    actions.extend(spare.into_iter().map(Action::Delete));
    actions
}

#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

/// A slice to write: the one it replaces, its ports, its endpoints.
type Wanted = (Option<Arc<EndpointSlice>>, Vec<EndpointPort>, Vec<Endpoint>);

/// Distributes the endpoints of one group over its slices: those that are there stay where they
/// are, new ones fill gaps. Returns the slices, and those that nothing is left for.
fn fill(group: &Group, slices: Vec<Arc<EndpointSlice>>) -> (Vec<Wanted>, Vec<Arc<EndpointSlice>>) {
    let mut left: BTreeMap<String, Endpoint> = group
        .endpoints
        .iter()
        .map(|endpoint| (identity(endpoint), endpoint.clone()))
        .collect();
    let mut filled: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let old = slice.endpoints.iter().flatten();
        let kept = old
            .filter_map(|endpoint| left.remove(&identity(endpoint)))
            .collect();
        filled.push((slice, kept));
    }
    let mut new = left.into_values();
    for (_, endpoints) in &mut filled {
        let room = FULL.saturating_sub(endpoints.len());
        endpoints.extend(new.by_ref().take(room));
    }
    let mut wanted = Vec::new();
    let mut empty = Vec::new();
    for (slice, endpoints) in filled {
        if endpoints.is_empty() {
            empty.push(slice);
        } else {
            wanted.push((Some(slice), group.ports.clone(), endpoints));
        }
    }
    loop {
        let chunk: Vec<_> = new.by_ref().take(FULL).collect();
        if chunk.is_empty() {
            return (wanted, empty);
        }
        wanted.push((None, group.ports.clone(), chunk));
    }
}

fn key(ports: &[EndpointPort]) -> String {
    let mut ports: Vec<String> = ports.iter().map(|port| format!("{port:?}")).collect();
    ports.sort();
    ports.join(";")
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.clone());
    format!(
        "{}/{}",
        endpoint.addresses.join(","),
        uid.unwrap_or_default()
    )
}

fn endpoint(backend: &Backend) -> Endpoint {
    Endpoint {
        addresses: vec![backend.address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        node_name: backend.node.clone(),
        target_ref: Some(backend.target.clone()),
        zone: backend.zone.clone(),
        ..Endpoint::default()
    }
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

fn slice(
    service: &Service,
    family: &str,
    labels: &BTreeMap<String, String>,
    old: Option<&EndpointSlice>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut metadata = match old {
        Some(old) => old.metadata.clone(),
        None => ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            ..ObjectMeta::default()
        },
    };
    metadata.labels = Some(labels.clone());
    metadata.owner_references = Some(vec![controller_reference(service)]);
    EndpointSlice {
        metadata,
        address_type: family.to_owned(),
        ports: Some(ports),
        endpoints: Some(endpoints),
    }
}

/// Whether two slices say the same; an absent list says what an empty one does.
fn same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    old.metadata == new.metadata
        && old.ports.as_deref().unwrap_or_default() == new.ports.as_deref().unwrap_or_default()
        && old.endpoints.as_deref().unwrap_or_default()
            == new.endpoints.as_deref().unwrap_or_default()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
