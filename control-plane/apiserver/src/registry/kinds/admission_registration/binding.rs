//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicyBinding, ParamRef, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{CATEGORY, UNSET, defaults, static_warnings};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::admission_registration::binding::{
    validate_mutating_binding, validate_validating_binding,
};
use crate::validation::{equality, items, text};

pub(in super::super) struct ValidatingBindingStrategy;

impl Strategy for ValidatingBindingStrategy {
    type Object = ValidatingAdmissionPolicyBinding;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ValidatingAdmissionPolicyBinding>()
            .categories(&[CATEGORY])
            .generation()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut ValidatingAdmissionPolicyBinding) {
        defaults::match_resources(&mut object.spec.match_resources);
    }

    fn validate(&self, object: &ValidatingAdmissionPolicyBinding) -> ErrorList {
        validate_validating_binding(&object.spec)
    }

    fn validate_update(
        &self,
        new: &ValidatingAdmissionPolicyBinding,
        _old: &ValidatingAdmissionPolicyBinding,
    ) -> ErrorList {
        self.validate(new)
    }

    fn spec_changed(
        &self,
        new: &ValidatingAdmissionPolicyBinding,
        old: &ValidatingAdmissionPolicyBinding,
    ) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn warnings(&self, object: &ValidatingAdmissionPolicyBinding) -> Vec<String> {
        static_warnings(&object.metadata)
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn row(&self, object: &ValidatingAdmissionPolicyBinding, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let params = spec.param_ref.as_ref();
        row(&object.metadata, &spec.policy_name, params, now)
    }
}

pub(in super::super) struct MutatingBindingStrategy;

impl Strategy for MutatingBindingStrategy {
    type Object = MutatingAdmissionPolicyBinding;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<MutatingAdmissionPolicyBinding>()
            .categories(&[CATEGORY])
            .generation()
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut MutatingAdmissionPolicyBinding) {
        let spec = object.spec.get_or_insert_default();
        defaults::match_resources(&mut spec.match_resources);
    }

    fn validate(&self, object: &MutatingAdmissionPolicyBinding) -> ErrorList {
        validate_mutating_binding(&object.spec.clone().unwrap_or_default())
    }

    fn validate_update(
        &self,
        new: &MutatingAdmissionPolicyBinding,
        _old: &MutatingAdmissionPolicyBinding,
    ) -> ErrorList {
        self.validate(new)
    }

    fn spec_changed(
        &self,
        new: &MutatingAdmissionPolicyBinding,
        old: &MutatingAdmissionPolicyBinding,
    ) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn warnings(&self, object: &MutatingAdmissionPolicyBinding) -> Vec<String> {
        static_warnings(&object.metadata)
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn row(&self, object: &MutatingAdmissionPolicyBinding, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.as_ref();
        let policy = spec.map_or("", |spec| text(&spec.policy_name));
        let params = spec.and_then(|spec| spec.param_ref.as_ref());
        row(&object.metadata, policy, params, now)
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("PolicyName", "The policy that is bound."),
        Column::text("ParamRef", "Its parameters."),
        Column::age(),
    ]
}

fn row(
    meta: &ObjectMeta,
    policy: &str,
    params: Option<&ParamRef>,
    now: jiff::Timestamp,
) -> Vec<Cell> {
    let params = params.map_or_else(|| UNSET.to_owned(), shown_params);
    vec![
        printing::name(meta),
        Cell::from(policy),
        Cell::from(params),
        printing::age(meta, now),
    ]
}

/// `namespace/name`, or the selector as Kubernetes writes one out.
fn shown_params(params: &ParamRef) -> String {
    let namespace = match text(&params.namespace) {
        "" => "*",
        namespace => namespace,
    };
    match (text(&params.name), &params.selector) {
        ("", Some(selector)) => shown_selector(selector),
        ("", None) => UNSET.to_owned(),
        (name, _) => format!("{namespace}/{name}"),
    }
}

fn shown_selector(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let requirements = items(&selector.match_expressions).iter();
    let requirements: String = requirements
        .map(|requirement| {
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                requirement.key,
                requirement.operator,
                items(&requirement.values).join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}
