//! PersistentVolume: storage of the cluster, which one claim at a time has.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeStatus};

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
use crate::validation::{items, text};

/// Where the class of a volume or claim stood before it had a field.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

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
        status.phase.get_or_insert_with(|| "Pending".to_owned());
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
            validate_volume_spec(spec, Described::Itself, &at, &mut errors);
        }
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
                json!({"capacity": {}, "accessModes": ["ReadWriteOncePod", "Odd"], "hostPath": null}),
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
                    "spec.nfs.path FieldValueInvalid must be an absolute path",
                    "spec.persistentVolumeReclaimPolicy FieldValueForbidden may not be 'recycle'",
                ],
            ),
            (
                json!({"hostPath": null, "local": {"path": "/d"}}),
                vec!["spec.nodeAffinity FieldValueRequired Local volume requires node affinity"],
            ),
            (
                json!({"hostPath": null, "csi": {"driver": "d.example.com", "volumeHandle": "", "nodeStageSecretRef": {"name": "s"}}, "volumeAttributesClassName": ""}),
                vec![
                    "spec.csi.volumeHandle FieldValueRequired",
                    "spec.csi.nodeStageSecretRef.namespace FieldValueRequired",
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
            json!({"driver": "d", "volumeHandle": "h", "nodeExpandSecretRef": {"name": "s", "namespace": "n"}}),
        );
        let errors = PersistentVolumeStrategy
            .validate_update(&late, &csi(json!({"driver": "d", "volumeHandle": "h"})));
        assert_causes(&errors, &[]);
    }
}
