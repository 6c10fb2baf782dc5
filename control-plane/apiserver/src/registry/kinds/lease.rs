//! Lease: who leads, or that a node lives.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{non_negative, one_of, text};

pub(super) struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    type Object = Lease;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Lease>()
            .create_on_update()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut Lease) {
        object.spec.get_or_insert_default();
    }

    /// What coordinated elections would read, which are not on.
    fn prepare_for_create(&self, object: &mut Lease) {
        drop_coordination(object, None);
    }

    fn prepare_for_update(&self, new: &mut Lease, old: &Lease) {
        drop_coordination(new, old.spec.as_ref());
    }

    fn validate(&self, object: &Lease) -> ErrorList {
        let mut errors = ErrorList::default();
        let Some(spec) = &object.spec else {
            return errors;
        };
        let at = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds
            && seconds <= 0
        {
            let at = at.child("leaseDurationSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than 0"));
        }
        non_negative(
            spec.lease_transitions.unwrap_or(0),
            &at.child("leaseTransitions"),
            &mut errors,
        );
        if let Some(strategy) = &spec.strategy {
            one_of(
                strategy,
                &["OldestEmulationVersion"],
                &at.child("strategy"),
                &mut errors,
            );
        } else if !text(&spec.preferred_holder).is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.push(Error::forbidden(&at.child("preferredHolder"), detail));
        }
        errors
    }

    fn validate_update(&self, new: &Lease, _old: &Lease) -> ErrorList {
        self.validate(new)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Holder", "Identity of the holder of the lease."),
            Column::age(),
        ]
    }

    fn row(&self, object: &Lease, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(
                object
                    .spec
                    .as_ref()
                    .map_or("", |spec| text(&spec.holder_identity)),
            ),
            printing::age(&object.metadata, now),
        ]
    }
}

fn drop_coordination(object: &mut Lease, old: Option<&LeaseSpec>) {
    let Some(spec) = &mut object.spec else { return };
    if old.is_none_or(|old| old.strategy.is_none()) {
        spec.strategy = None;
    }
    if old.is_none_or(|old| old.preferred_holder.is_none()) {
        spec.preferred_holder = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn validation() {
        let lease = serde_json::from_value(json!({"spec": {
            "leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a",
        }}))
        .unwrap();
        assert_causes(
            &LeaseStrategy.validate(&lease),
            &[
                "spec.leaseDurationSeconds FieldValueInvalid must be greater than 0",
                "spec.leaseTransitions FieldValueInvalid",
                "spec.preferredHolder FieldValueForbidden may only be specified if",
            ],
        );
        let mut new: Lease = lease;
        let old = new.clone();
        LeaseStrategy.prepare_for_update(&mut new, &old);
        assert_eq!(new, old);
        LeaseStrategy.prepare_for_create(&mut new);
        assert_eq!(new.spec.unwrap().preferred_holder, None);
    }
}
