//! VolumeAttachment: that a volume shall be attached to a node, and whether it is.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus, VolumeError};

use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, Strategy, Subresource, resets_with_metadata,
};
use crate::registry::{meta, printing};
use crate::validation::persistent_volume::{Described, validate_volume_spec};
use crate::validation::volume::storage::validate_driver_name;
use crate::validation::{faults, immutable, text};

/// Longest error.
const MAX_MESSAGE: usize = 1024;
/// Most bytes of what was said of the attachment.
const MAX_METADATA: usize = 256 * 1024;

pub(super) struct VolumeAttachmentStrategy;

impl Strategy for VolumeAttachmentStrategy {
    type Object = VolumeAttachment;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<VolumeAttachment>()
            .returns_deleted()
            .conditional_update()
            .subresources(&[Subresource::Status])
    }

    fn set_defaults(&self, object: &mut VolumeAttachment) {
        object.status.get_or_insert_default();
    }

    fn prepare_for_create(&self, object: &mut VolumeAttachment) {
        object.status = Some(VolumeAttachmentStatus::default());
    }

    fn validate(&self, object: &VolumeAttachment) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        let spec = &object.spec;
        validate_driver_name(&spec.attacher, &at.child("attacher"), &mut errors);
        let node_at = at.child("nodeName");
        let wrong = names::dns_subdomain(&spec.node_name);
        faults(&spec.node_name, wrong, &node_at, &mut errors);
        let source_at = at.child("source");
        let source = &spec.source;
        match (&source.persistent_volume_name, &source.inline_volume_spec) {
            (None, None) => {
                let detail =
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(Error::required(&source_at, detail));
            }
            (Some(_), Some(_)) => {
                let detail =
                    "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(Error::forbidden(&source_at, detail));
            }
            (Some(name), None) => {
                let at = source_at.child("persistentVolumeName");
                if name.is_empty() {
                    errors.push(Error::required(
                        &at,
                        "must specify non empty persistentVolumeName",
                    ));
                } else {
                    faults(name, names::dns_subdomain(name), &at, &mut errors);
                }
            }
            (None, Some(inline)) => {
                let at = source_at.child("inlineVolumeSpec");
                validate_volume_spec(inline, Described::Inline, &at, &mut errors);
            }
        }
        validate_status(object, &mut errors);
        errors
    }

    fn prepare_for_update(&self, new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &VolumeAttachment, old: &VolumeAttachment) -> ErrorList {
        let mut errors = self.validate(new);
        immutable(&new.spec, &old.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_status_update(&self, new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.spec.clone_from(&old.spec);
        meta::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        resets_with_metadata(subresource)
    }

    fn validate_status_update(&self, new: &VolumeAttachment, _old: &VolumeAttachment) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_status(new, &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column {
                format: "name".into(),
                ..Column::text("Attacher", "The driver that attaches it.")
            },
            Column::text("PV", "The volume."),
            Column::text("Node", "The node that it is attached to."),
            Column {
                kind: "boolean".into(),
                ..Column::text("Attached", "Whether it is attached.")
            },
            Column::age(),
        ]
    }

    fn row(&self, object: &VolumeAttachment, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let attached = object.status.as_ref().is_some_and(|s| s.attached);
        vec![
            printing::name(&object.metadata),
            Cell::from(spec.attacher.as_str()),
            Cell::from(text(&spec.source.persistent_volume_name)),
            Cell::from(spec.node_name.as_str()),
            Cell::Json(attached.into()),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_status(object: &VolumeAttachment, errors: &mut ErrorList) {
    let at = Path::new("status");
    let Some(status) = &object.status else {
        return;
    };
    let none = BTreeMap::new();
    let metadata = status.attachment_metadata.as_ref().unwrap_or(&none);
    let at_metadata = at.child("attachmentMetadata");
    let size: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_METADATA {
        errors.push(Error::too_long(&at_metadata, MAX_METADATA));
    }
    let faults: [(&str, &Option<VolumeError>); 2] = [
        ("attachError", &status.attach_error),
        ("detachError", &status.detach_error),
    ];
    for (field, fault) in faults {
        let Some(fault) = fault else { continue };
        let at = at.child(field);
        if text(&fault.message).len() > MAX_MESSAGE {
            errors.push(Error::too_long(&at.child("message"), MAX_MESSAGE));
        }
        if let Some(code) = fault.error_code.filter(|code| *code < 0) {
            let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
            errors.push(Error::invalid(&at.child("errorCode"), code, detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn attachment(source: Value) -> VolumeAttachment {
        let mut object = serde_json::from_value(json!({
            "metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "nodeName": "n1", "source": source},
        }))
        .unwrap();
        VolumeAttachmentStrategy.set_defaults(&mut object);
        object
    }

    #[test]
    fn validation() {
        let inline = |spec: Value| json!({ "inlineVolumeSpec": spec });
        let csi = json!({"driver": "d.example.com", "volumeHandle": "h"});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"persistentVolumeName": "v"}), vec![]),
            (
                inline(json!({"accessModes": ["ReadWriteOnce"], "csi": csi})),
                vec![],
            ),
            (
                json!({}),
                vec!["spec.source FieldValueRequired must specify exactly one of"],
            ),
            (
                inline(
                    json!({"accessModes": ["ReadWriteOnce"], "csi": csi, "capacity": {"storage": "1Gi"}}),
                ),
                vec![
                    "spec.source.inlineVolumeSpec.capacity FieldValueForbidden may not be specified in the context of inline volumes",
                ],
            ),
            (
                inline(
                    json!({"accessModes": ["ReadWriteOnce"], "csi": csi, "capacity": {}, "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"}),
                ),
                vec![],
            ),
            (
                inline(
                    json!({"accessModes": ["ReadWriteOnce"], "nfs": {"server": "s", "path": "/"}, "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Block"}),
                ),
                vec![
                    "spec.source.inlineVolumeSpec.csi FieldValueRequired has to be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy FieldValueForbidden may only be Retain in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.volumeMode FieldValueForbidden may not specify volumeMode other than Filesystem in the context of inline volumes",
                ],
            ),
        ];
        for (source, want) in table {
            let errors = VolumeAttachmentStrategy.validate(&attachment(source));
            assert_causes(&errors, &want);
        }
        assert_causes(
            &VolumeAttachmentStrategy.validate_update(
                &attachment(json!({"persistentVolumeName": "v"})),
                &attachment(json!({"persistentVolumeName": "w"})),
            ),
            &["spec FieldValueInvalid field is immutable"],
        );
        let mut object = attachment(json!({"persistentVolumeName": "v"}));
        let old = object.clone();
        object.metadata.annotations.get_or_insert_default();
        object.status = serde_json::from_value(json!({
            "attached": false, "attachmentMetadata": {"": "x"}, "detachError": {"errorCode": -1},
        }))
        .unwrap();
        assert_causes(
            &VolumeAttachmentStrategy.validate_status_update(&object, &old),
            &[
                "status.detachError.errorCode FieldValueInvalid must be between 0 and 2147483647, inclusive",
            ],
        );
        VolumeAttachmentStrategy.prepare_for_status_update(&mut object, &old);
        assert_eq!(object.metadata, old.metadata);
    }
}
