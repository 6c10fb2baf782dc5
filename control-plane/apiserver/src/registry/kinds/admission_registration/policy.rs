//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, ParamKind, ValidatingAdmissionPolicy,
};

use super::super::workload::spec_and_status;
use super::{CATEGORY, UNSET, compiling, defaults, static_warnings};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::admission_registration::mutating::validate_mutating_policy;
use crate::validation::admission_registration::policy::{validate_policy, validate_policy_status};
use crate::validation::{equality, items, text};

pub(in super::super) struct ValidatingPolicyStrategy;

impl Strategy for ValidatingPolicyStrategy {
    type Object = ValidatingAdmissionPolicy;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ValidatingAdmissionPolicy>()
            .categories(&[CATEGORY])
            .subresources(&[Subresource::Status])
            .generation()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut ValidatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        defaults::fail(&mut spec.failure_policy);
        defaults::match_resources(&mut spec.match_constraints);
        object.status.get_or_insert_default();
    }

    spec_and_status!(ValidatingAdmissionPolicy, without metadata);

    fn validate(&self, object: &ValidatingAdmissionPolicy) -> ErrorList {
        let spec = object.spec.clone().unwrap_or_default();
        compiling(|| validate_policy(text(&object.metadata.name), &spec, None))
    }

    fn validate_update(
        &self,
        new: &ValidatingAdmissionPolicy,
        old: &ValidatingAdmissionPolicy,
    ) -> ErrorList {
        let spec = new.spec.clone().unwrap_or_default();
        compiling(|| validate_policy(text(&new.metadata.name), &spec, old.spec.as_ref()))
    }

    fn validate_status_update(
        &self,
        new: &ValidatingAdmissionPolicy,
        _old: &ValidatingAdmissionPolicy,
    ) -> ErrorList {
        validate_policy_status(&new.status.clone().unwrap_or_default())
    }

    fn warnings(&self, object: &ValidatingAdmissionPolicy) -> Vec<String> {
        static_warnings(&object.metadata)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::integer("Validations", "How many validations there are."),
            param_column(),
            Column::age(),
        ]
    }

    fn row(&self, object: &ValidatingAdmissionPolicy, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.as_ref();
        let validations = spec.map_or(0, |spec| items(&spec.validations).len());
        vec![
            printing::name(&object.metadata),
            Cell::Json(validations.into()),
            param_cell(spec.and_then(|spec| spec.param_kind.as_ref())),
            printing::age(&object.metadata, now),
        ]
    }
}

pub(in super::super) struct MutatingPolicyStrategy;

impl Strategy for MutatingPolicyStrategy {
    type Object = MutatingAdmissionPolicy;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<MutatingAdmissionPolicy>()
            .categories(&[CATEGORY])
            .generation()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut MutatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        defaults::fail(&mut spec.failure_policy);
        defaults::match_resources(&mut spec.match_constraints);
    }

    fn validate(&self, object: &MutatingAdmissionPolicy) -> ErrorList {
        let spec = object.spec.clone().unwrap_or_default();
        compiling(|| validate_mutating_policy(&spec, None))
    }

    fn validate_update(
        &self,
        new: &MutatingAdmissionPolicy,
        old: &MutatingAdmissionPolicy,
    ) -> ErrorList {
        let spec = new.spec.clone().unwrap_or_default();
        compiling(|| validate_mutating_policy(&spec, old.spec.as_ref()))
    }

    fn spec_changed(&self, new: &MutatingAdmissionPolicy, old: &MutatingAdmissionPolicy) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn warnings(&self, object: &MutatingAdmissionPolicy) -> Vec<String> {
        static_warnings(&object.metadata)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::integer("Mutations", "How many mutations there are."),
            param_column(),
            Column::age(),
        ]
    }

    fn row(&self, object: &MutatingAdmissionPolicy, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.as_ref();
        let mutations = spec.map_or(0, |spec| items(&spec.mutations).len());
        vec![
            printing::name(&object.metadata),
            Cell::Json(mutations.into()),
            param_cell(spec.and_then(|spec| spec.param_kind.as_ref())),
            printing::age(&object.metadata, now),
        ]
    }
}

fn param_column() -> Column {
    Column::text("ParamKind", "Of which kind its parameters are.")
}

fn param_cell(kind: Option<&ParamKind>) -> Cell {
    Cell::from(kind.map_or_else(
        || UNSET.to_owned(),
        |kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)),
    ))
}
