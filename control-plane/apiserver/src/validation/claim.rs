//! Claims of storage, by themselves and in templates.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::resources::parse;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference,
    TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::labels::validate_label_selector;
use super::resources::{ResourceList, parse_quantity};
use super::{NOT_POSITIVE, equality, faults, immutable, items, text};

const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
const MODES: &[&str] = &["Block", "Filesystem"];
const STORAGE: &str = "storage";

/// The access modes of a volume or of a claim.
pub(crate) fn validate_access_modes(
    modes: &[String],
    required: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    if modes.is_empty() {
        errors.push(Error::required(at, required));
    }
    for mode in modes {
        if !ACCESS_MODES.contains(&mode.as_str()) {
            errors.push(Error::not_supported(at, mode.as_str(), ACCESS_MODES));
        }
    }
    let is_once_pod = |mode: &&String| mode.as_str() == "ReadWriteOncePod";
    let known = modes
        .iter()
        .filter(|mode| ACCESS_MODES.contains(&mode.as_str()));
    let once_pod = known.clone().filter(is_once_pod).count();
    if once_pod > 0 && once_pod < known.count() {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(Error::forbidden(at, detail));
    }
}

/// The name of a class of volumes, where there is one.
pub(crate) fn validate_class_name(name: &Option<String>, at: &Path, errors: &mut ErrorList) {
    let name = text(name);
    if !name.is_empty() {
        faults(name, names::dns_subdomain(name), at, errors);
    }
}

/// How a volume is shown to containers.
pub(crate) fn validate_volume_mode(mode: &Option<String>, at: &Path, errors: &mut ErrorList) {
    if let Some(mode) = mode
        && !MODES.contains(&mode.as_str())
    {
        errors.push(Error::not_supported(at, mode.as_str(), MODES));
    }
}

/// Everything that is wrong with what is claimed.
pub(crate) fn validate_claim_spec(
    spec: &PersistentVolumeClaimSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_access_modes(
        items(&spec.access_modes),
        "at least 1 access mode is required",
        &at.child("accessModes"),
        errors,
    );
    if let Some(selector) = &spec.selector {
        validate_label_selector(selector, &at.child("selector"), errors);
    }
    let storage_at = at.child("resources").key(STORAGE);
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    match requests.and_then(|requests| requests.get(STORAGE)) {
        None => errors.push(Error::required(&storage_at, "")),
        Some(storage) => {
            let parsed = parse_quantity(storage, &storage_at, errors);
            if parsed.is_some_and(|storage| storage.value() <= 0) {
                let value = storage.0.as_str();
                errors.push(Error::invalid(&storage_at, value, NOT_POSITIVE));
            }
        }
    }
    validate_class_name(
        &spec.storage_class_name,
        &at.child("storageClassName"),
        errors,
    );
    validate_volume_mode(&spec.volume_mode, &at.child("volumeMode"), errors);
    validate_sources(spec, at, errors);
    validate_class_name(
        &spec.volume_attributes_class_name,
        &at.child("volumeAttributesClassName"),
        errors,
    );
}

/// What the volume shall begin with: both fields say the same, unless it is elsewhere.
fn validate_sources(spec: &PersistentVolumeClaimSpec, at: &Path, errors: &mut ErrorList) {
    if let Some(source) = &spec.data_source {
        let full = in_full(source);
        validate_source(&full, &at.child("dataSource"), errors);
    }
    let Some(reference) = &spec.data_source_ref else {
        return;
    };
    let reference_at = at.child("dataSourceRef");
    validate_source(reference, &reference_at, errors);
    let shown_at = at.child("dataSource").to_string();
    let namespace = text(&reference.namespace);
    if namespace.is_empty() {
        if spec.data_source.as_ref().is_some_and(|source| {
            let full = in_full(source);
            (full.name, full.kind) != (reference.name.clone(), reference.kind.clone())
                || text(&full.api_group) != text(&reference.api_group)
        }) {
            errors.push(Error::invalid(at, shown_at, "must match dataSourceRef"));
        }
        return;
    }
    let namespace_at = reference_at.child("namespace");
    faults(
        namespace,
        names::dns_label(namespace),
        &namespace_at,
        errors,
    );
    if spec.data_source.is_some() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(Error::invalid(at, shown_at, detail));
    }
}

fn validate_source(source: &TypedObjectReference, at: &Path, errors: &mut ErrorList) {
    for (field, value) in [("name", &source.name), ("kind", &source.kind)] {
        if value.is_empty() {
            errors.push(Error::required(&at.child(field), ""));
        }
    }
    let group = text(&source.api_group);
    if group.is_empty() && source.kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(Error::invalid(at, source.kind.as_str(), detail));
    }
    if !group.is_empty() {
        let at = at.child("apiGroup");
        faults(group, names::dns_subdomain(group), &at, errors);
    }
}

/// The newer form of a reference.
pub(crate) fn in_full(source: &TypedLocalObjectReference) -> TypedObjectReference {
    TypedObjectReference {
        api_group: source.api_group.clone(),
        kind: source.kind.clone(),
        name: source.name.clone(),
        namespace: None,
    }
}

/// Everything that is wrong with a claim that replaces another: it is bound once, and only a
/// bound one grows.
pub(crate) fn validate_claim_update(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    errors: &mut ErrorList,
) {
    let at = Path::new("spec");
    let spec = new.spec.clone().unwrap_or_default();
    let was = old.spec.clone().unwrap_or_default();
    let bound = new
        .status
        .as_ref()
        .is_some_and(|s| text(&s.phase) == "Bound");
    let mut same = spec.clone();
    if text(&was.volume_name).is_empty() {
        same.volume_name.clone_from(&was.volume_name);
    }
    // A claim without a class takes that of the default one, once there is one.
    if was.storage_class_name.is_none() {
        same.storage_class_name = None;
    }
    if bound {
        let old = was.resources.as_ref().and_then(|r| r.requests.as_ref());
        let requests = same.resources.as_mut().and_then(|r| r.requests.as_mut());
        if let (Some(requests), Some(old)) = (requests, old.and_then(|old| old.get(STORAGE))) {
            requests.insert(STORAGE.to_owned(), old.clone());
        }
        same.volume_attributes_class_name
            .clone_from(&was.volume_attributes_class_name);
    }
    if !equality::semantic(&same, &was) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(Error::forbidden(&at, detail));
    }
    let size = |list: Option<&ResourceList>| parse(list).get(STORAGE).copied().unwrap_or_default();
    let requests =
        |spec: &PersistentVolumeClaimSpec| spec.resources.clone().and_then(|r| r.requests);
    let (wanted, before) = (
        size(requests(&spec).as_ref()),
        size(requests(&was).as_ref()),
    );
    let has = size(old.status.as_ref().and_then(|s| s.capacity.as_ref()));
    if wanted < before && wanted <= has {
        let at = at.child("resources").child("requests").child(STORAGE);
        let detail = "field can not be less than status.capacity";
        errors.push(Error::forbidden(&at, detail));
    }
    let at = Path::new("volumeMode");
    immutable(&spec.volume_mode, &was.volume_mode, &at, errors);
    let at = Path::new("spec").child("volumeAttributesClassName");
    let (class, before) = (
        &spec.volume_attributes_class_name,
        &was.volume_attributes_class_name,
    );
    let current = old
        .status
        .as_ref()
        .and_then(|status| status.current_volume_attributes_class_name.as_ref());
    if class != before && current.is_some() && text(class).is_empty() {
        let to = if class.is_none() {
            "nil"
        } else {
            "empty string"
        };
        let detail = format!(
            "update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
        );
        errors.push(Error::forbidden(&at, detail));
    }
}

/// Everything that is wrong with the status of a claim.
pub(crate) fn validate_claim_status(claim: &PersistentVolumeClaim, errors: &mut ErrorList) {
    let at = Path::new("status");
    let Some(status) = &claim.status else {
        return;
    };
    let lists = [
        ("capacity", &status.capacity),
        ("allocatedResources", &status.allocated_resources),
    ];
    for (field, list) in lists {
        let list_at = at.child(field);
        for (name, quantity) in list.iter().flatten() {
            let at = list_at.key(name);
            if field == "allocatedResources" && !is_resource(name) {
                errors.push(Error::not_supported(&list_at, name.as_str(), &[STORAGE]));
                continue;
            }
            validate_basic(quantity, &at, errors);
        }
    }
    let states = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let at = at.child("allocatedResourceStatuses");
    for (name, state) in status.allocated_resource_statuses.iter().flatten() {
        if !is_resource(name) {
            errors.push(Error::not_supported(&at, name.as_str(), &[STORAGE]));
        }
        if !states.contains(&state.as_str()) {
            errors.push(Error::not_supported(&at, name.as_str(), states));
        }
    }
}

/// Whether what a claim has may be of this resource: storage, or one of somebody's own.
fn is_resource(name: &str) -> bool {
    name == STORAGE || (name.contains('/') && names::qualified_name(name).is_empty())
}

/// A quantity that is not below zero.
pub(crate) fn validate_basic(quantity: &ApiQuantity, at: &Path, errors: &mut ErrorList) {
    if let Some(parsed) = parse_quantity(quantity, at, errors)
        && parsed.is_negative()
    {
        let detail = "must be a valid resource quantity";
        errors.push(Error::invalid(at, quantity.0.as_str(), detail));
    }
}
