//! Endpoints packed into EndpointSlices: which to create, update and delete.
//!
//! Endpoints with equal ports share slices of a bounded size. Where endpoints come and go, as few
//! slices change as can be; a slice that would be deleted is reused for one that would be created,
//! so that readers never see none.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

/// Says which controller a slice is of.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(EndpointSlice),
    Update(EndpointSlice),
    Delete(Arc<EndpointSlice>),
}

/// What the slices of one Service, or of one Endpoints object, have in common.
pub(super) struct Frame {
    /// Of the object that they are of.
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Taken over as they are, where the controller says anything of annotations.
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) owner: OwnerReference,
    /// Endpoints in one slice at most.
    pub(super) full: usize,
    /// Whether there is a slice where there is no endpoint: readers tell "no endpoints" from "not
    /// known yet" by it.
    pub(super) never_none: bool,
}

/// Endpoints that share ports.
#[derive(Default)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Endpoints by what identifies their ports.
pub(super) type Groups = BTreeMap<String, Group>;

/// Puts an endpoint with the others of its ports.
pub(super) fn add(groups: &mut Groups, ports: &[EndpointPort], endpoint: Endpoint) {
    let group = groups.entry(key(ports)).or_default();
    group.ports = ports.to_vec();
    group.endpoints.push(endpoint);
}

/// What to do so that `existing`, the slices of one address family, show these groups.
pub(super) fn plan_family(
    frame: &Frame,
    family: &str,
    groups: &Groups,
    mut existing: Vec<Arc<EndpointSlice>>,
) -> Vec<Action> {
    existing.sort_by_key(|slice| slice.name_any());
    let mut wanted = Vec::new();
    let mut spare = Vec::new();
    for (ports, group) in groups {
        let (same, others): (Vec<_>, Vec<_>) = existing
            .into_iter()
            .partition(|slice| key(slice.ports.as_deref().unwrap_or_default()) == *ports);
        existing = others;
        let (filled, empty) = fill(group, same, frame.full);
        wanted.extend(filled);
        spare.extend(empty);
    }
    spare.extend(existing);
    if wanted.is_empty() && frame.never_none {
        wanted.push((spare.pop(), Vec::new(), Vec::new()));
    }
    for (slot, _, _) in wanted.iter_mut().filter(|(slot, _, _)| slot.is_none()) {
        *slot = spare.pop();
    }
    let mut actions = Vec::new();
    for (slot, ports, endpoints) in wanted {
        let slice = slice(frame, family, slot.as_deref(), ports, endpoints);
        match slot {
            None => actions.push(Action::Create(slice)),
            Some(old) if same(&old, &slice) => {}
            Some(_) => actions.push(Action::Update(slice)),
        }
    }
    actions.extend(spare.into_iter().map(Action::Delete));
    actions
}

/// A slice to write: the one it replaces, its ports, its endpoints.
type Wanted = (Option<Arc<EndpointSlice>>, Vec<EndpointPort>, Vec<Endpoint>);

/// Distributes the endpoints of one group over its slices: those that are there stay where they
/// are, new ones fill gaps. Returns the slices, and those that nothing is left for.
fn fill(
    group: &Group,
    slices: Vec<Arc<EndpointSlice>>,
    full: usize,
) -> (Vec<Wanted>, Vec<Arc<EndpointSlice>>) {
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
        let room = full.saturating_sub(endpoints.len());
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
        let chunk: Vec<_> = new.by_ref().take(full).collect();
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

fn slice(
    frame: &Frame,
    family: &str,
    old: Option<&EndpointSlice>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut metadata = match old {
        Some(old) => old.metadata.clone(),
        None => ObjectMeta {
            generate_name: Some(format!("{}-", frame.name)),
            namespace: frame.namespace.clone(),
            ..ObjectMeta::default()
        },
    };
    metadata.labels = Some(frame.labels.clone());
    if let Some(annotations) = &frame.annotations {
        metadata.annotations = (!annotations.is_empty()).then(|| annotations.clone());
    }
    metadata.owner_references = Some(vec![frame.owner.clone()]);
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
