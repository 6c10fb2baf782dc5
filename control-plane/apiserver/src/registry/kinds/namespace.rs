//! Namespace: a scope for names. It goes in two steps: its contents first (the namespace
//! controller empties it and then takes its finalizer from `spec.finalizers`), then itself.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use crate::registry::printing;
use crate::registry::strategy::{
    Cell, Column, Descriptor, ErrorList, NameRule, Strategy, Subresource,
};
use crate::validation::object_meta::validate_finalizer;
use crate::validation::{items, text};

/// The finalizer that every namespace starts with.
const FINALIZER: &str = "kubernetes";
/// A label that is always the name, so that selectors can pick namespaces by it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    type Object = Namespace;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Namespace>()
            .short_names(&["ns"])
            // They are deleted one by one, each by its name.
            .without("deletecollection")
            .returns_deleted()
            .names(NameRule::DnsLabel)
            .subresources(&[Subresource::Status, Subresource::Finalize])
            .fields(&["status.phase"])
    }

    fn set_defaults(&self, object: &mut Namespace) {
        if let Some(name) = object.metadata.name.clone().filter(|name| !name.is_empty()) {
            object
                .metadata
                .labels
                .get_or_insert_default()
                .insert(NAME_LABEL.to_owned(), name);
        }
        object.spec.get_or_insert_default();
        let status = object.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Active".to_owned());
        }
    }

    fn prepare_for_create(&self, object: &mut Namespace) {
        object.status = Some(NamespaceStatus {
            phase: Some("Active".to_owned()),
            conditions: None,
        });
        let finalizers = object
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn validate(&self, object: &Namespace) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec").child("finalizers");
        for finalizer in finalizers(object) {
            validate_finalizer(finalizer, &at, &mut errors);
        }
        errors
    }

    fn prepare_for_update(&self, new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, _new: &Namespace, _old: &Namespace) -> ErrorList {
        ErrorList::default()
    }

    fn prepare_for_status_update(&self, new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Namespace, _old: &Namespace) -> ErrorList {
        let phase = new.status.as_ref().map_or("", |status| text(&status.phase));
        let at = Path::new("status").child("Phase");
        let detail = match (&new.metadata.deletion_timestamp, phase) {
            (None, "Active") | (Some(_), "Terminating") => return ErrorList::default(),
            (None, _) => "may only be 'Active' if `deletionTimestamp` is empty",
            (Some(_), _) => "may only be 'Terminating' if `deletionTimestamp` is not empty",
        };
        Error::invalid(&at, phase, detail).into()
    }

    fn selectable_fields(&self, object: &Namespace) -> Vec<(&'static str, String)> {
        vec![("status.phase", phase(object).to_owned())]
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Status", "The status of the namespace"),
            Column::age(),
        ]
    }

    fn row(&self, object: &Namespace, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(phase(object)),
            printing::age(&object.metadata, now),
        ]
    }

    fn begin_deletion(&self, object: &mut Namespace) {
        object.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }

    fn holds_deletion(&self, object: &Namespace) -> bool {
        !finalizers(object).is_empty()
    }
}

/// Everything that is wrong with the spec that is given to the finalize subresource.
#[must_use]
pub(crate) fn validate_finalize(new: &Namespace) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("spec").child("finalizers");
    for (i, finalizer) in finalizers(new).iter().enumerate() {
        validate_finalizer(finalizer, &at.index(i), &mut errors);
    }
    errors
}

fn finalizers(object: &Namespace) -> &[String] {
    object
        .spec
        .as_ref()
        .map(|spec| items(&spec.finalizers))
        .unwrap_or_default()
}

fn phase(object: &Namespace) -> &str {
    object
        .status
        .as_ref()
        .map_or("", |status| text(&status.phase))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn life_of_a_namespace() {
        let mut object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        NamespaceStrategy.set_defaults(&mut object);
        NamespaceStrategy.prepare_for_create(&mut object);
        assert_eq!(
            serde_json::to_value(&object).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            })
        );
        assert!(NamespaceStrategy.validate(&object).is_empty());
        assert!(NamespaceStrategy.holds_deletion(&object));

        let mut gone = object.clone();
        NamespaceStrategy.begin_deletion(&mut gone);
        assert_eq!(phase(&gone), "Terminating");
        gone.spec = None;
        assert!(!NamespaceStrategy.holds_deletion(&gone));

        let mut changed = object.clone();
        changed.spec = None;
        NamespaceStrategy.prepare_for_update(&mut changed, &object);
        assert_eq!(
            changed.spec, object.spec,
            "only the finalize subresource changes finalizers"
        );
    }

    #[test]
    fn finalizers_and_phases() {
        let object: Namespace = serde_json::from_value(
            json!({"spec": {"finalizers": ["mine", "a/b"]}, "status": {"phase": "Terminating"}}),
        )
        .unwrap();
        assert_causes(
            &NamespaceStrategy.validate(&object),
            &["spec.finalizers FieldValueInvalid name is neither a standard finalizer"],
        );
        assert_causes(
            &validate_finalize(&object),
            &["spec.finalizers[0] FieldValueInvalid"],
        );
        assert_causes(
            &NamespaceStrategy.validate_status_update(&object, &object),
            &["status.Phase FieldValueInvalid may only be 'Active'"],
        );
    }
}
