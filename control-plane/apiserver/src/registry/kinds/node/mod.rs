//! Node: a machine that runs Pods. Its kubelet creates it and reports its status.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::address::is_dual_stack;
use crate::validation::legacy_address::{NEW, validate_legacy_cidr};
use crate::validation::resources::{canonicalize, validate_quantity};
use crate::validation::scheduling::taints::validate_taints;
use crate::validation::{items, shown, text};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) struct NodeStrategy;

impl Strategy for NodeStrategy {
    type Object = Node;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Node>()
            .short_names(&["no"])
            .subresources(&[Subresource::Status, Subresource::Proxy])
            .fields(&["spec.unschedulable"])
    }

    fn set_defaults(&self, object: &mut Node) {
        let spec = object.spec.get_or_insert_default();
        sync_pod_cidrs(spec);
        let status = object.status.get_or_insert_default();
        canonicalize(&mut status.capacity);
        canonicalize(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn prepare_for_create(&self, object: &mut Node) {
        drop_from_spec(object, None);
        if let Some(status) = &mut object.status {
            status.config = None;
        }
    }

    fn validate(&self, object: &Node) -> ErrorList {
        let mut errors = ErrorList::default();
        let spec = object.spec.clone().unwrap_or_default();
        validate_spec_taints(&spec, &mut errors);
        validate_resources(object, &mut errors);
        validate_features(object, &mut errors);
        validate_pod_cidrs(&spec, &mut errors);
        errors
    }

    fn prepare_for_update(&self, new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
        drop_from_spec(new, old.spec.as_ref());
    }

    fn validate_update(&self, new: &Node, old: &Node) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_resources(new, &mut errors);
        validate_features(new, &mut errors);
        validate_addresses(new, &mut errors);
        let (spec, was) = (
            new.spec.clone().unwrap_or_default(),
            old.spec.clone().unwrap_or_default(),
        );
        validate_pod_cidrs(&spec, &mut errors);
        let at = Path::new("spec");
        if !items(&was.pod_cidrs).is_empty() && items(&was.pod_cidrs) != items(&spec.pod_cidrs) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Error::forbidden(&at.child("podCIDRs"), detail));
        }
        if !text(&was.provider_id).is_empty() && was.provider_id != spec.provider_id {
            let detail = if text(&spec.provider_id).is_empty() {
                "field cannot be cleared once set"
            } else {
                "field cannot be modified once set"
            };
            let at = at.child("providerID");
            errors.push(Error::invalid(&at, serde_json::Value::Null, detail));
        }
        if text(&was.external_id) != text(&spec.external_id) {
            errors.push(Error::forbidden(
                &at.child("externalID"),
                "may not be updated",
            ));
        }
        validate_spec_taints(&spec, &mut errors);
        errors
    }

    fn prepare_for_status_update(&self, new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
        let had = old.status.as_ref().is_some_and(|s| s.config.is_some());
        if let Some(status) = new.status.as_mut().filter(|_| !had) {
            status.config = None;
        }
    }

    fn validate_status_update(&self, new: &Node, old: &Node) -> ErrorList {
        self.validate_update(new, old)
    }

    fn warnings(&self, object: &Node) -> Vec<String> {
        let Some(spec) = &object.spec else {
            return Vec::new();
        };
        let warnings = [
            (
                spec.config_source.is_some(),
                "spec.configSource: the feature is removed",
            ),
            (
                !text(&spec.external_id).is_empty(),
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            ),
        ];
        warnings
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, warning)| warning.to_owned())
            .collect()
    }

    fn selectable_fields(&self, object: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", is_cordoned(object).to_string())]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Status", "The status of the node"),
            Column::text("Roles", "The roles of the node"),
            Column::age(),
            Column::text("Version", "Kubelet Version reported by the node."),
            Column::text(
                "Internal-IP",
                "The first address of the node within the cluster.",
            )
            .wide(),
            Column::text(
                "External-IP",
                "The first address of the node from outside the cluster.",
            )
            .wide(),
            Column::text("OS-Image", "OS Image reported by the node.").wide(),
            Column::text("Kernel-Version", "Kernel Version reported by the node.").wide(),
            Column::text(
                "Container-Runtime",
                "ContainerRuntime Version reported by the node.",
            )
            .wide(),
        ]
    }

    fn row(&self, object: &Node, now: jiff::Timestamp) -> Vec<Cell> {
        let status = object.status.clone().unwrap_or_default();
        let info = status.node_info.clone().unwrap_or_default();
        let known = |value: String| {
            if value.is_empty() {
                Cell::from("<unknown>")
            } else {
                Cell::from(value)
            }
        };
        let mut kernel = match info.kernel_version.as_str() {
            "" => "<unknown>".to_owned(),
            version => version.to_owned(),
        };
        if !info.architecture.is_empty() {
            kernel = format!("{kernel} ({})", info.architecture);
        }
        vec![
            printing::name(&object.metadata),
            Cell::from(readiness(object, &status)),
            Cell::from(roles(object)),
            printing::age(&object.metadata, now),
            Cell::from(info.kubelet_version),
            Cell::from(address_of(&status, "InternalIP")),
            Cell::from(address_of(&status, "ExternalIP")),
            known(info.os_image),
            Cell::from(kernel),
            known(info.container_runtime_version),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`: whichever of the two is given sets the other.
fn sync_pod_cidrs(spec: &mut NodeSpec) {
    let single = text(&spec.pod_cidr).to_owned();
    let first = items(&spec.pod_cidrs).first().cloned();
    match (single.is_empty(), first) {
        (true, Some(first)) => spec.pod_cidr = Some(first),
        (false, None) => spec.pod_cidrs = Some(vec![single]),
        (false, Some(first)) if first != single => spec.pod_cidrs = Some(vec![single]),
        _ => {}
    }
}

fn validate_pod_cidrs(spec: &NodeSpec, errors: &mut ErrorList) {
    let cidrs = items(&spec.pod_cidrs);
    let at = Path::new("spec").child("podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        validate_legacy_cidr(cidr, NEW, &at.index(i), errors);
    }
    if cidrs.len() > 1 {
        let addresses: Vec<&str> = cidrs
            .iter()
            .map(|cidr| {
                cidr.split_once('/')
                    .map_or(cidr.as_str(), |(address, _)| address)
            })
            .collect();
        if !is_dual_stack(&addresses) {
            let detail = "may specify no more than one CIDR for each IP family";
            errors.push(Error::invalid(&at, shown(&cidrs), detail));
        }
    }
}

fn validate_spec_taints(spec: &NodeSpec, errors: &mut ErrorList) {
    // Kubernetes reports them below the metadata.
    validate_taints(
        items(&spec.taints),
        &Path::new("metadata").child("taints"),
        errors,
    );
}

fn validate_resources(object: &Node, errors: &mut ErrorList) {
    let Some(status) = &object.status else {
        return;
    };
    for (field, list) in [
        ("capacity", &status.capacity),
        ("allocatable", &status.allocatable),
    ] {
        for (name, quantity) in list.iter().flatten() {
            let at = Path::new("status").child(field).child(name);
            validate_quantity(name, quantity, &at, errors);
        }
    }
}

/// Names of what a kubelet can do: in order, each once.
fn validate_features(object: &Node, errors: &mut ErrorList) {
    let status = object.status.as_ref();
    let features = status.map_or(&[][..], |status| items(&status.declared_features));
    let at = Path::new("status").child("declaredFeatures");
    for (i, feature) in features.iter().enumerate() {
        let at = at.index(i);
        if !is_feature(feature) {
            let detail = format!(
                "invalid feature name {feature:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            );
            errors.push(Error::invalid(&at, feature.as_str(), detail));
        }
        match i.checked_sub(1).map(|before| features[before].cmp(feature)) {
            Some(Ordering::Equal) => errors.push(Error::duplicate(&at, feature.as_str())),
            Some(Ordering::Greater) => {
                let detail = "list must be sorted alphabetically";
                errors.push(Error::invalid(&at, feature.as_str(), detail));
            }
            _ => {}
        }
    }
}

fn is_feature(name: &str) -> bool {
    let is_segment = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_alphabetic())
            && segment.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(is_segment)
}

/// Drops what is no more, and what is in alpha, unless the node has it already.
fn drop_from_spec(node: &mut Node, old: Option<&NodeSpec>) {
    let Some(spec) = &mut node.spec else {
        return;
    };
    if old.is_none_or(|old| old.config_source.is_none()) {
        spec.config_source = None;
    }
    if old.is_none_or(|old| old.pod_preemption_policy.is_none()) {
        spec.pod_preemption_policy = None;
    }
}

fn validate_addresses(object: &Node, errors: &mut ErrorList) {
    let addresses = object
        .status
        .as_ref()
        .map(|status| items(&status.addresses))
        .unwrap_or_default();
    let at = Path::new("status").child("addresses");
    let mut seen = BTreeSet::new();
    for (i, address) in addresses.iter().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            errors.push(Error::duplicate(&at.index(i), shown(address)));
        }
    }
}

fn is_cordoned(object: &Node) -> bool {
    object
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
}

fn readiness(object: &Node, status: &NodeStatus) -> String {
    let ready = items(&status.conditions)
        .iter()
        .find(|condition| condition.type_ == "Ready");
    let mut readiness = match ready.map(|condition| condition.status.as_str()) {
        None => "Unknown".to_owned(),
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if is_cordoned(object) {
        readiness.push_str(",SchedulingDisabled");
    }
    readiness
}

fn roles(object: &Node) -> String {
    let labels = object.metadata.labels.iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => Some(value.as_str()),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        return "<none>".to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address_of(status: &NodeStatus, kind: &str) -> String {
    items(&status.addresses)
        .iter()
        .find(|address| address.type_ == kind)
        .map_or_else(|| "<none>".to_owned(), |address| address.address.clone())
}

#[cfg(test)]
mod tests;
