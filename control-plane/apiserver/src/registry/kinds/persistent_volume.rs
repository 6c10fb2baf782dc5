//! PersistentVolume: storage of the cluster, which one claim at a time has.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pod::set_storage_defaults;
use super::storage_row::{
    access_modes, access_modes_column, attributes_class_column, storage_of, volume_mode_column,
};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::persistent_volume::{
    Described, as_pod_volume, validate_volume_spec, validate_volume_update,
};
use crate::validation::resources::canonicalize;
use crate::validation::scheduling::deprecated::term_warnings;
use crate::validation::{items, text};

/// Where the class of a volume or claim stood before it had a field.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Where the options of a mount stood before they had a field.
const OPTIONS_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

/// What is said of the annotation for the class, where there is one.
pub(super) fn class_annotation_warning(meta: &ObjectMeta) -> Vec<String> {
    let annotations = meta.annotations.as_ref();
    let has = annotations.is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
    let warning = || {
        format!(
            "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        )
    };
    Vec::from_iter(has.then(warning))
}

/// Only some sources are mounted with the options that an annotation gives.
fn validate_options(object: &PersistentVolume, errors: &mut ErrorList) {
    let annotations = object.metadata.annotations.as_ref();
    let Some(spec) = &object.spec else {
        return;
    };
    let mounted = spec.gce_persistent_disk.is_some()
        || spec.aws_elastic_block_store.is_some()
        || spec.glusterfs.is_some()
        || spec.nfs.is_some()
        || spec.rbd.is_some()
        || spec.quobyte.is_some()
        || spec.iscsi.is_some()
        || spec.cinder.is_some()
        || spec.cephfs.is_some()
        || spec.azure_file.is_some()
        || spec.vsphere_volume.is_some()
        || spec.azure_disk.is_some()
        || spec.photon_persistent_disk.is_some();
    if !mounted && annotations.is_some_and(|all| all.contains_key(OPTIONS_ANNOTATION)) {
        let at = Path::new("metadata").child("annotations");
        let detail = "may not specify mount options for this volume type";
        errors.push(Error::forbidden(&at.child(OPTIONS_ANNOTATION), detail));
    }
}

pub(super) struct PersistentVolumeStrategy;

impl Strategy for PersistentVolumeStrategy {
    type Object = PersistentVolume;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PersistentVolume>()
            .short_names(&["pv"])
            .returns_deleted()
            .subresources(&[Subresource::Status])
    }

    fn set_defaults(&self, object: &mut PersistentVolume) {
        let spec = object.spec.get_or_insert_default();
        canonicalize(&mut spec.capacity);
        spec.persistent_volume_reclaim_policy
            .get_or_insert_with(|| "Retain".to_owned());
        spec.volume_mode
            .get_or_insert_with(|| "Filesystem".to_owned());
        if let Some(host) = &mut spec.host_path {
            host.type_.get_or_insert_default();
        }
        if let Some(mut volume) = as_pod_volume(spec) {
            set_storage_defaults(&mut volume);
            spec.azure_disk = volume.azure_disk;
            if let (Some(iscsi), Some(set)) = (&mut spec.iscsi, volume.iscsi) {
                iscsi.iscsi_interface = set.iscsi_interface;
            }
            if let (Some(rbd), Some(set)) = (&mut spec.rbd, volume.rbd) {
                (rbd.pool, rbd.user, rbd.keyring) = (set.pool, set.user, set.keyring);
            }
            if let (Some(scale_io), Some(set)) = (&mut spec.scale_io, volume.scale_io) {
                (scale_io.storage_mode, scale_io.fs_type) = (set.storage_mode, set.fs_type);
            }
        }
        let status = object.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
    }

    fn prepare_for_create(&self, object: &mut PersistentVolume) {
        object.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: object.metadata.creation_timestamp.clone(),
            ..PersistentVolumeStatus::default()
        });
    }

    fn validate(&self, object: &PersistentVolume) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(spec) = &object.spec {
            let at = Path::new("spec");
            let described = Described::Itself(text(&object.metadata.name));
            validate_volume_spec(spec, described, &at, &mut errors);
        }
        validate_options(object, &mut errors);
        errors
    }

    fn prepare_for_update(&self, new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
        let mut errors = self.validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            validate_volume_update(new, old, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(&self, new: &mut PersistentVolume, old: &PersistentVolume) {
        new.spec.clone_from(&old.spec);
        let was = old.status.clone().unwrap_or_default();
        let status = new.status.get_or_insert_default();
        let (time, before) = (
            &mut status.last_phase_transition_time,
            was.last_phase_transition_time,
        );
        if status.phase == was.phase {
            *time = time.take().or(before);
        } else if time.is_none() || *time == before {
            // The manager of the new phase has been written down with the time of this update.
            let managers = new.metadata.managed_fields.iter().flatten();
            *time = managers.filter_map(|entry| entry.time.clone()).max();
        }
    }

    fn warnings(&self, object: &PersistentVolume) -> Vec<String> {
        let mut warnings = class_annotation_warning(&object.metadata);
        let annotations = object.metadata.annotations.as_ref();
        if annotations.is_some_and(|all| all.contains_key(OPTIONS_ANNOTATION)) {
            warnings.push(format!(
                "metadata.annotations[{OPTIONS_ANNOTATION}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
            ));
        }
        if let Some(spec) = &object.spec {
            volume_warnings(spec, &mut warnings);
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Capacity", "How much it holds."),
            access_modes_column(),
            Column::text(
                "Reclaim Policy",
                "What happens to the volume when its claim is gone.",
            ),
            Column::text("Status", "Whether it is bound to a claim."),
            Column::text("Claim", "The claim that has it."),
            Column::text("StorageClass", "The class of the volume."),
            attributes_class_column(),
            Column::text("Reason", "Why the volume is in its phase."),
            Column::age(),
            volume_mode_column(),
        ]
    }

    fn row(&self, object: &PersistentVolume, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let phase = if object.metadata.deletion_timestamp.is_some() {
            "Terminating"
        } else {
            text(&status.phase)
        };
        let claim = spec.claim_ref.as_ref().map_or_else(String::new, |claim| {
            format!("{}/{}", text(&claim.namespace), text(&claim.name))
        });
        let annotations = object.metadata.annotations.as_ref();
        let class = annotations
            .and_then(|annotations| annotations.get(CLASS_ANNOTATION))
            .cloned()
            .unwrap_or_else(|| text(&spec.storage_class_name).to_owned());
        let unset = |value: Option<String>| Cell::from(value.unwrap_or_else(|| "<unset>".into()));
        vec![
            printing::name(&object.metadata),
            Cell::from(storage_of(spec.capacity.as_ref())),
            Cell::from(access_modes(items(&spec.access_modes))),
            Cell::from(text(&spec.persistent_volume_reclaim_policy)),
            Cell::from(phase),
            Cell::from(claim),
            Cell::from(class),
            unset(spec.volume_attributes_class_name),
            Cell::from(text(&status.reason)),
            printing::age(&object.metadata, now),
            unset(spec.volume_mode),
        ]
    }
}

/// Warnings about labels of nodes, and about sources that nothing mounts any more.
fn volume_warnings(spec: &PersistentVolumeSpec, warnings: &mut Vec<String>) {
    let at = Path::new("spec");
    if text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
        warnings.push(format!(
            "{}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            at.child("persistentVolumeReclaimPolicy")
        ));
    }
    let affinity = spec.node_affinity.as_ref();
    if let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) {
        let at = at
            .child("nodeAffinity")
            .child("required")
            .child("nodeSelectorTerms");
        for (i, term) in required.node_selector_terms.iter().enumerate() {
            term_warnings(term, false, &at.index(i), warnings);
        }
    }
    let removed = [
        (spec.cephfs.is_some(), "cephfs", "v1.28", "v1.31"),
        (
            spec.photon_persistent_disk.is_some(),
            "photonPersistentDisk",
            "v1.11",
            "v1.16",
        ),
        (spec.scale_io.is_some(), "scaleIO", "v1.16", "v1.22"),
        (spec.storageos.is_some(), "storageOS", "v1.22", "v1.25"),
        (spec.glusterfs.is_some(), "glusterfs", "v1.25", "v1.26"),
        (spec.rbd.is_some(), "rbd", "v1.28", "v1.31"),
    ];
    for (_, field, since, gone) in removed.into_iter().filter(|(set, ..)| *set) {
        let at = at.child(field);
        warnings.push(format!(
            "{at}: deprecated in {since}, non-functional in {gone}+"
        ));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn volume(change: Value) -> PersistentVolume {
        let mut spec = json!({"capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}});
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let mut volume =
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap();
        PersistentVolumeStrategy.set_defaults(&mut volume);
        volume
    }

    #[test]
    fn defaults() {
        let spec = serde_json::to_value(volume(json!({})).spec).unwrap();
        assert_eq!(
            spec,
            json!({
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/data", "type": ""},
                "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
            })
        );
        let rbd = volume(json!({"hostPath": null, "rbd": {"image": "i", "monitors": ["m"]}}));
        let rbd = rbd.spec.unwrap().rbd.unwrap();
        assert_eq!(
            (rbd.pool.as_deref(), rbd.user.as_deref()),
            (Some("rbd"), Some("admin"))
        );
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"capacity": {}, "accessModes": ["ReadWriteOncePod", "Odd", "ReadOnlyMany"], "hostPath": null}),
                vec![
                    "spec.accessModes FieldValueNotSupported",
                    "spec.accessModes FieldValueForbidden may not use ReadWriteOncePod",
                    "spec.capacity FieldValueRequired",
                    "spec.capacity FieldValueNotSupported supported values: \"storage\"",
                    "spec FieldValueRequired must specify a volume type",
                ],
            ),
            (
                json!({"capacity": {"storage": "0"}, "hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle", "nfs": {"server": "s", "path": "p"}}),
                vec![
                    "spec.capacity[storage] FieldValueInvalid must be greater than zero",
                    "spec.nfs FieldValueForbidden may not specify more than 1 volume type",
                    "spec.persistentVolumeReclaimPolicy FieldValueForbidden may not be 'recycle'",
                ],
            ),
            (
                json!({"hostPath": null, "iscsi": {"targetPortal": "p", "iqn": "naa.x", "lun": 0}}),
                vec!["spec.iscsi.iqn FieldValueInvalid must be valid format"],
            ),
            (
                json!({"hostPath": {"path": "/d", "type": "Socks"}}),
                vec!["spec.hostPath.type FieldValueNotSupported"],
            ),
            (
                json!({"hostPath": null, "local": {"path": "/d"}}),
                vec!["spec.nodeAffinity FieldValueRequired Local volume requires node affinity"],
            ),
            (
                json!({"hostPath": null, "csi": {"driver": "d.example.com", "volumeHandle": "", "nodePublishSecretRef": {"name": "s"}}, "volumeAttributesClassName": ""}),
                vec![
                    "spec.csi.volumeHandle FieldValueRequired",
                    "spec.csi.nodePublishSecretRef.namespace FieldValueRequired",
                    "spec.volumeAttributesClassName FieldValueRequired an empty string is disallowed",
                ],
            ),
        ];
        for (change, want) in table {
            assert_causes(&PersistentVolumeStrategy.validate(&volume(change)), &want);
        }
        assert_causes(
            &PersistentVolumeStrategy.validate_update(
                &volume(json!({"hostPath": {"path": "/other"}, "volumeMode": "Block"})),
                &volume(json!({})),
            ),
            &[
                "spec.persistentvolumesource FieldValueForbidden",
                "volumeMode FieldValueInvalid field is immutable",
            ],
        );
        let csi = |extra: Value| volume(json!({"hostPath": null, "csi": extra}));
        let late = csi(
            json!({"driver": "d", "volumeHandle": "h", "controllerExpandSecretRef": {"name": "s", "namespace": "n"}}),
        );
        let errors = PersistentVolumeStrategy
            .validate_update(&late, &csi(json!({"driver": "d", "volumeHandle": "h"})));
        assert_causes(&errors, &[]);
    }

    #[test]
    fn options_of_a_mount_are_for_some_sources() {
        let with_options = |source: Value| {
            let mut volume = volume(source);
            let annotations = volume.metadata.annotations.get_or_insert_default();
            annotations.insert(OPTIONS_ANNOTATION.to_owned(), "ro".to_owned());
            volume
        };
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({}),
                vec![
                    "metadata.annotations.volume.beta.kubernetes.io/mount-options FieldValueForbidden",
                ],
            ),
            (
                json!({"hostPath": null, "nfs": {"server": "s", "path": "/p"}}),
                vec![],
            ),
        ];
        for (source, want) in table {
            assert_causes(
                &PersistentVolumeStrategy.validate(&with_options(source)),
                &want,
            );
        }
    }

    #[test]
    fn an_empty_value_behind_a_pointer_is_not_left_out() {
        let terms = json!([{"matchExpressions": [{"key": "k", "operator": "Exists"}]}]);
        let local = |source: Value| {
            let affinity = json!({"required": {"nodeSelectorTerms": &terms}});
            volume(json!({"hostPath": null, "local": source, "nodeAffinity": affinity}))
        };
        let empty = local(json!({"path": "/d", "fsType": ""}));
        let none = local(json!({"path": "/d"}));
        assert_causes(
            &PersistentVolumeStrategy.validate_update(&empty, &empty),
            &[],
        );
        assert_causes(
            &PersistentVolumeStrategy.validate_update(&empty, &none),
            &["spec.persistentvolumesource FieldValueForbidden"],
        );
    }

    #[test]
    fn a_label_of_nodes_may_be_called_by_its_newer_name() {
        let placed = |key: &str| {
            let terms =
                json!([{"matchExpressions": [{"key": key, "operator": "In", "values": ["z"]}]}]);
            volume(json!({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}))
        };
        let (beta, stable) = ("beta.kubernetes.io/os", "kubernetes.io/os");
        let errors = PersistentVolumeStrategy.validate_update(&placed(stable), &placed(beta));
        assert_causes(&errors, &[]);
        for (new, old) in [(beta, stable), ("other", beta)] {
            let errors = PersistentVolumeStrategy.validate_update(&placed(new), &placed(old));
            assert_causes(
                &errors,
                &["nodeAffinity FieldValueInvalid field is immutable, except"],
            );
        }
        assert_eq!(PersistentVolumeStrategy.warnings(&placed(beta)).len(), 1);
    }

    #[test]
    fn a_new_phase_has_a_time() {
        let of_phase = |phase: &str, managed: &str| -> PersistentVolume {
            serde_json::from_value(json!({
                "metadata": {"name": "v", "managedFields": [{"time": managed}]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let mut old = of_phase("Pending", "2026-01-01T00:00:00Z");
        let time = |volume: &PersistentVolume| {
            let status = volume.status.clone().unwrap();
            serde_json::to_value(status.last_phase_transition_time).unwrap()
        };
        let mut bound = of_phase("Bound", "2026-01-02T00:00:00Z");
        PersistentVolumeStrategy.prepare_for_status_update(&mut bound, &old);
        assert_eq!(time(&bound), "2026-01-02T00:00:00Z");
        old.status.clone_from(&bound.status);
        let mut same = of_phase("Bound", "2026-01-03T00:00:00Z");
        PersistentVolumeStrategy.prepare_for_status_update(&mut same, &old);
        assert_eq!(time(&same), "2026-01-02T00:00:00Z");
    }
}
