//! Lease: who leads, or that a node lives.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::coordination::v1::Lease;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{NOT_POSITIVE, non_negative, one_of, text};

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

    fn validate(&self, object: &Lease) -> ErrorList {
        let mut errors = ErrorList::default();
        let Some(spec) = &object.spec else {
            return errors;
        };
        let at = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds
            && seconds <= 0
        {
            errors.push(Error::invalid(
                &at.child("leaseDurationSeconds"),
                seconds,
                NOT_POSITIVE,
            ));
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
            let detail = "may only be specified when `strategy` is defined";
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
                "spec.leaseDurationSeconds FieldValueInvalid must be greater than zero",
                "spec.leaseTransitions FieldValueInvalid",
                "spec.preferredHolder FieldValueForbidden",
            ],
        );
    }
}
