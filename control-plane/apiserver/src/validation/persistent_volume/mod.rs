//! Volumes of the cluster.

mod source;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{PersistentVolumeSpec, Volume, VolumeNodeAffinity};
use serde_json::{Map, Value};

use self::source::validate_source;
use super::claim::{
    validate_access_modes, validate_basic, validate_class_name, validate_volume_mode,
};
use super::resources::parse_quantity;
use super::scheduling::validate_node_selector;
use super::{NOT_POSITIVE, equality, immutable, items, shown, text};

/// Sources of volumes, in Kubernetes' order.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];

/// Whose volume it is that a spec describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Described<'a> {
    /// A PersistentVolume, of this name.
    Itself(&'a str),
    /// A volume of a Pod that a VolumeAttachment describes as if it were one.
    Inline,
}

/// The sources of a spec, by the field.
fn sources(spec: &PersistentVolumeSpec) -> Map<String, Value> {
    let mut fields = match shown(spec) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.retain(|field, _| SOURCES.contains(&field.as_str()));
    fields
}

/// The source of a spec as one that a Pod could have; those that a Pod cannot have are left out.
pub(crate) fn as_pod_volume(spec: &PersistentVolumeSpec) -> Option<Volume> {
    let mut fields = sources(spec);
    fields.remove("csi");
    fields.remove("local");
    fields.insert("name".to_owned(), "volume".into());
    serde_json::from_value(Value::Object(fields)).ok()
}

/// Everything that is wrong with a volume.
pub(crate) fn validate_volume_spec(
    spec: &PersistentVolumeSpec,
    described: Described<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let inline = described == Described::Inline;
    if inline {
        refuse_inline(spec, at, errors);
    }
    let modes_at = at.child("accessModes");
    validate_access_modes(items(&spec.access_modes), "", &modes_at, errors);
    if !inline {
        validate_capacity(spec, &at.child("capacity"), errors);
        let policy = text(&spec.persistent_volume_reclaim_policy);
        if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
            let at = at.child("persistentVolumeReclaimPolicy");
            errors.push(Error::not_supported(&at, policy, RECLAIM_POLICIES));
        }
    }
    if let Some(affinity) = &spec.node_affinity {
        let at = at.child("nodeAffinity");
        match &affinity.required {
            _ if inline => errors.push(Error::forbidden(
                &at,
                "may not be specified in the context of inline volumes",
            )),
            Some(required) => validate_node_selector(required, &at.child("required"), errors),
            None => errors.push(Error::required(
                &at.child("required"),
                "must specify required node constraints",
            )),
        }
    }
    validate_source(spec, described, at, errors);
    if !inline {
        let class_at = at.child("storageClassName");
        validate_class_name(&spec.storage_class_name, &class_at, errors);
        validate_volume_mode(&spec.volume_mode, &at.child("volumeMode"), errors);
        validate_attributes_class(spec, at, errors);
    }
}

/// What says nothing of a volume that no claim is bound to.
fn refuse_inline(spec: &PersistentVolumeSpec, at: &Path, errors: &mut ErrorList) {
    let has_capacity = spec.capacity.iter().flatten().next().is_some();
    let set = [
        ("claimRef", spec.claim_ref.is_some()),
        ("capacity", has_capacity),
        (
            "storageClassName",
            !text(&spec.storage_class_name).is_empty(),
        ),
    ];
    for (field, _) in set.into_iter().filter(|(_, set)| *set) {
        let detail = "may not be specified in the context of inline volumes";
        errors.push(Error::forbidden(&at.child(field), detail));
    }
    if spec.csi.is_none() {
        let detail = "has to be specified in the context of inline volumes";
        errors.push(Error::required(&at.child("csi"), detail));
    }
    let words = [
        (
            "persistentVolumeReclaimPolicy",
            text(&spec.persistent_volume_reclaim_policy),
            "Retain",
            "may only be Retain in the context of inline volumes",
        ),
        (
            "volumeMode",
            text(&spec.volume_mode),
            "Filesystem",
            "may not specify volumeMode other than Filesystem in the context of inline volumes",
        ),
    ];
    for (field, word, only, detail) in words {
        if !word.is_empty() && word != only {
            errors.push(Error::forbidden(&at.child(field), detail));
        }
    }
}

fn validate_capacity(spec: &PersistentVolumeSpec, at: &Path, errors: &mut ErrorList) {
    let none = Default::default();
    let capacity = spec.capacity.as_ref().unwrap_or(&none);
    if capacity.is_empty() {
        errors.push(Error::required(at, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(Error::not_supported(at, shown(capacity), &["storage"]));
    }
    for (name, quantity) in capacity {
        let at = at.key(name);
        validate_basic(quantity, &at, errors);
        let parsed = parse_quantity(quantity, &at, &mut ErrorList::default());
        if parsed.is_some_and(|quantity| quantity.is_zero() || quantity.is_negative()) {
            errors.push(Error::invalid(&at, quantity.0.as_str(), NOT_POSITIVE));
        }
    }
}

fn validate_attributes_class(spec: &PersistentVolumeSpec, at: &Path, errors: &mut ErrorList) {
    let class_at = at.child("volumeAttributesClassName");
    let class = &spec.volume_attributes_class_name;
    if class.is_none() {
        return;
    }
    if text(class).is_empty() {
        errors.push(Error::required(&class_at, "an empty string is disallowed"));
    }
    validate_class_name(class, &class_at, errors);
    if spec.csi.is_none() {
        let detail = "has to be specified when using volumeAttributesClassName";
        errors.push(Error::required(&at.child("csi"), detail));
    }
}

/// What may not change: the source, but for a secret that is given late; the mode; and where the
/// volume is, once that is known, but for newer names of labels.
pub(crate) fn validate_volume_update(
    new: &PersistentVolumeSpec,
    old: &PersistentVolumeSpec,
    errors: &mut ErrorList,
) {
    let (mut source, was) = (sources(new), sources(old));
    if let (Some(Value::Object(csi)), Some(Value::Object(was))) =
        (source.get_mut("csi"), was.get("csi"))
    {
        let late = "controllerExpandSecretRef";
        if !was.contains_key(late) {
            csi.remove(late);
        }
    }
    if !equality::semantic(&source, &was) {
        let at = Path::new("spec").child("persistentvolumesource");
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(Error::forbidden(&at, detail));
    }
    let at = Path::new("volumeMode");
    immutable(&new.volume_mode, &old.volume_mode, &at, errors);
    if old.node_affinity.is_some() {
        let mut was = old.node_affinity.clone();
        let now = new.node_affinity.as_ref();
        rename_labels(was.as_mut(), now);
        if !equality::semantic(&was.as_ref(), &now) {
            let detail = "field is immutable, except for updating from beta label to GA";
            let at = Path::new("nodeAffinity");
            errors.push(Error::invalid(&at, shown(&new.node_affinity), detail));
        }
    }
    if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
        let at = Path::new("spec").child("volumeAttributesClassName");
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(Error::forbidden(&at, detail));
    }
}

/// Labels of nodes, and what they are called since: a volume may follow them.
const RENAMED: &[(&str, &str)] = &[
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    ),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
];

/// Gives labels of `was` the newer names that they have in `now`.
fn rename_labels(was: Option<&mut VolumeNodeAffinity>, now: Option<&VolumeNodeAffinity>) {
    let was = was.and_then(|affinity| affinity.required.as_mut());
    let now = now.and_then(|affinity| affinity.required.as_ref());
    let (Some(was), Some(now)) = (was, now) else {
        return;
    };
    let terms = was.node_selector_terms.iter_mut();
    for (was, now) in terms.zip(&now.node_selector_terms) {
        let expressions = was.match_expressions.iter_mut().flatten();
        for (was, now) in expressions.zip(items(&now.match_expressions)) {
            if RENAMED.contains(&(was.key.as_str(), now.key.as_str())) {
                was.key.clone_from(&now.key);
            }
        }
    }
}
