//! PersistentVolumeClaim: a wish for storage, and the volume that fulfils it.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    TypedLocalObjectReference,
};

use super::persistent_volume::{CLASS_ANNOTATION, class_annotation_warning};
use super::pod::set_claim_spec_defaults;
use super::storage_row::{
    access_modes, access_modes_column, attributes_class_column, storage_of, volume_mode_column,
};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::claim::{
    in_full, validate_claim_spec, validate_claim_status, validate_claim_update,
};
use crate::validation::pod::warnings::claim_warnings;
use crate::validation::resources::canonicalize;
use crate::validation::{items, text};

pub(super) struct PersistentVolumeClaimStrategy;

impl Strategy for PersistentVolumeClaimStrategy {
    type Object = PersistentVolumeClaim;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PersistentVolumeClaim>()
            .short_names(&["pvc"])
            .returns_deleted()
            .subresources(&[Subresource::Status])
    }

    fn set_defaults(&self, object: &mut PersistentVolumeClaim) {
        set_claim_defaults(object);
    }

    fn prepare_for_create(&self, object: &mut PersistentVolumeClaim) {
        object.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        if let Some(spec) = &mut object.spec {
            set_source(spec, None);
        }
    }

    fn validate(&self, object: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(spec) = &object.spec {
            validate_claim_spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.status.clone_from(&old.status);
        if let Some(spec) = &mut new.spec {
            set_source(spec, old.spec.as_ref());
        }
    }

    fn validate_update(
        &self,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) -> ErrorList {
        let mut errors = self.validate(new);
        validate_claim_update(new, old, &mut errors);
        errors
    }

    fn prepare_for_status_update(
        &self,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) {
        new.spec.clone_from(&old.spec);
        // CSIVolumeHealth is in alpha.
        if let Some(status) = &mut new.status {
            status.health_status = None;
        }
    }

    fn validate_status_update(
        &self,
        new: &PersistentVolumeClaim,
        _old: &PersistentVolumeClaim,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_claim_status(new, &mut errors);
        errors
    }

    fn warnings(&self, object: &PersistentVolumeClaim) -> Vec<String> {
        let mut warnings = class_annotation_warning(&object.metadata);
        if let Some(spec) = &object.spec {
            claim_warnings(spec, &Path::new("spec"), &mut warnings);
        }
        warnings
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Status", "Whether it is bound to a volume."),
            Column::text("Volume", "The volume that it is bound to."),
            Column::text("Capacity", "How much the volume holds."),
            access_modes_column(),
            Column::text("StorageClass", "The class that the volume shall be of."),
            attributes_class_column(),
            Column::age(),
            volume_mode_column(),
        ]
    }

    fn row(&self, object: &PersistentVolumeClaim, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        let phase = if object.metadata.deletion_timestamp.is_some() {
            "Terminating"
        } else {
            text(&status.phase)
        };
        let bound = !text(&spec.volume_name).is_empty();
        let (capacity, modes) = if bound {
            (
                storage_of(status.capacity.as_ref()),
                access_modes(items(&status.access_modes)),
            )
        } else {
            Default::default()
        };
        let annotations = object.metadata.annotations.as_ref();
        let class = annotations
            .and_then(|annotations| annotations.get(CLASS_ANNOTATION))
            .cloned()
            .unwrap_or_else(|| text(&spec.storage_class_name).to_owned());
        let unset = |value: Option<String>| Cell::from(value.unwrap_or_else(|| "<unset>".into()));
        vec![
            printing::name(&object.metadata),
            Cell::from(phase),
            Cell::from(text(&spec.volume_name)),
            Cell::from(capacity),
            Cell::from(modes),
            Cell::from(class),
            unset(spec.volume_attributes_class_name),
            printing::age(&object.metadata, now),
            unset(spec.volume_mode),
        ]
    }
}

/// The defaults of a claim, by itself or in a StatefulSet.
pub(super) fn set_claim_defaults(object: &mut PersistentVolumeClaim) {
    let spec = object.spec.get_or_insert_default();
    set_claim_spec_defaults(spec);
    let status = object.status.get_or_insert_default();
    if text(&status.phase).is_empty() {
        status.phase = Some("Pending".to_owned());
    }
    canonicalize(&mut status.capacity);
    canonicalize(&mut status.allocated_resources);
}

/// Puts what the volume begins with where it belongs (KEP-1495).
fn set_source(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let elsewhere = spec
        .data_source_ref
        .as_ref()
        .is_some_and(|source| !text(&source.namespace).is_empty());
    // CrossNamespaceVolumeDataSource is in alpha.
    if elsewhere && old.is_none_or(|old| old.data_source_ref.is_none()) {
        spec.data_source_ref = None;
    }
    let had = old.is_some_and(|old| old.data_source.is_some() || old.data_source_ref.is_some());
    // What else stood in the older field has always been ignored.
    if !had && spec.data_source_ref.is_none() {
        spec.data_source = spec.data_source.take().filter(|source| {
            matches!(
                (source.kind.as_str(), text(&source.api_group)),
                ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
            )
        });
    }
    agree_on_source(spec);
}

/// Of the two fields for what the volume begins with, whichever is given sets the other.
fn agree_on_source(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => spec.data_source_ref = Some(in_full(source)),
        (None, Some(source)) if text(&source.namespace).is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn claim(change: Value, status: Value) -> PersistentVolumeClaim {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        let value = json!({"metadata": {"name": "c"}, "spec": spec, "status": status});
        let mut claim = serde_json::from_value(value).unwrap();
        PersistentVolumeClaimStrategy.set_defaults(&mut claim);
        claim
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({}), vec![]),
            (
                json!({"accessModes": [], "resources": null, "storageClassName": "No_"}),
                vec![
                    "spec.accessModes FieldValueRequired at least 1 access mode is required",
                    "spec.resources[storage] FieldValueRequired",
                    "spec.storageClassName FieldValueInvalid",
                ],
            ),
            (
                json!({"dataSource": {"kind": "Pod", "name": "p"}, "dataSourceRef": {"apiGroup": "x.io", "kind": "Pod", "name": "p"}}),
                vec![
                    "spec.dataSource FieldValueInvalid must be 'PersistentVolumeClaim'",
                    "spec FieldValueInvalid must match dataSourceRef",
                ],
            ),
        ];
        for (change, want) in table {
            let errors = PersistentVolumeClaimStrategy.validate(&claim(change, json!({})));
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn a_claim_is_bound_once_and_grows_when_bound() {
        let bound = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let sized =
            |size: &str| json!({"volumeName": "v", "resources": {"requests": {"storage": size}}});
        let immutable = vec!["spec FieldValueForbidden spec is immutable after creation"];
        let pending = json!({});
        let table: Vec<(Value, Value, Value, Vec<&str>)> = vec![
            (
                json!({}),
                json!({"volumeName": "v", "storageClassName": "s"}),
                pending.clone(),
                vec![],
            ),
            (
                json!({"volumeName": "v"}),
                json!({"volumeName": "w"}),
                pending.clone(),
                immutable.clone(),
            ),
            (sized("1Gi"), sized("2Gi"), pending, immutable),
            (sized("1Gi"), sized("2Gi"), bound.clone(), vec![]),
            (sized("2Gi"), sized("1536Mi"), bound.clone(), vec![]),
            (
                sized("2Gi"),
                sized("1Gi"),
                bound,
                vec![
                    "spec.resources.requests.storage FieldValueForbidden field can not be less than status.capacity",
                ],
            ),
        ];
        for (old, new, status, want) in table {
            let (old, new) = (claim(old, status.clone()), claim(new, status));
            let errors = PersistentVolumeClaimStrategy.validate_update(&new, &old);
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn both_fields_name_the_same_source() {
        let mut object = claim(
            json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "p"}}),
            json!({}),
        );
        PersistentVolumeClaimStrategy.prepare_for_create(&mut object);
        assert_eq!(object.spec.unwrap().data_source_ref.unwrap().name, "p");
    }

    #[test]
    fn sources_that_the_older_field_cannot_have_are_ignored() {
        let table = [
            (
                json!({"dataSource": {"apiGroup": "x.io", "kind": "K", "name": "n"}}),
                false,
            ),
            (
                json!({"dataSource": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "n"}}),
                true,
            ),
            (
                json!({"dataSourceRef": {"apiGroup": "x.io", "kind": "K", "name": "n"}}),
                true,
            ),
            (
                json!({"dataSourceRef": {"apiGroup": "x.io", "kind": "K", "name": "n", "namespace": "other"}}),
                false,
            ),
        ];
        for (change, kept) in table {
            let mut object = claim(change.clone(), json!({}));
            PersistentVolumeClaimStrategy.prepare_for_create(&mut object);
            let spec = object.spec.unwrap();
            assert_eq!(spec.data_source.is_some(), kept, "{change}");
            assert_eq!(spec.data_source_ref.is_some(), kept, "{change}");
        }
    }
}
