//! IngressClass: a controller of Ingresses.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::references::{validate_domain_prefixed, validate_segment};
use crate::validation::{equality, faults, immutable, text};

/// Says of a class that it is the one of Ingresses that name none.
pub(crate) const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// Longest name of a controller.
const MAX_CONTROLLER: usize = 250;

pub(super) struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    type Object = IngressClass;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<IngressClass>().generation()
    }

    fn set_defaults(&self, object: &mut IngressClass) {
        let spec = object.spec.get_or_insert_default();
        if let Some(parameters) = &mut spec.parameters {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn validate(&self, object: &IngressClass) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        let spec = object.spec.clone().unwrap_or_default();
        let (controller, controller_at) = (text(&spec.controller), at.child("controller"));
        if controller.len() > MAX_CONTROLLER {
            errors.push(Error::too_long(&controller_at, MAX_CONTROLLER));
        }
        validate_domain_prefixed(controller, &controller_at, &mut errors);
        if let Some(parameters) = &spec.parameters {
            validate_parameters(parameters, &at.child("parameters"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> ErrorList {
        let mut errors = ErrorList::default();
        let controller = |class: &IngressClass| class.spec.clone().and_then(|s| s.controller);
        let at = Path::new("spec").child("controller");
        immutable(&controller(new), &controller(old), &at, &mut errors);
        errors.extend(self.validate(new));
        errors
    }

    fn spec_changed(&self, new: &IngressClass, old: &IngressClass) -> bool {
        !equality::semantic(&new.spec, &old.spec)
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text(
                "Controller",
                "Controller that is responsible for handling this class",
            ),
            Column::text(
                "Parameters",
                "A reference to a resource with additional parameters",
            ),
            Column::age(),
        ]
    }

    fn row(&self, object: &IngressClass, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let parameters = spec.parameters.as_ref().map(|parameters| {
            let group = parameters.api_group.as_ref();
            let group = group.map_or_else(String::new, |group| format!(".{group}"));
            format!("{}{group}/{}", parameters.kind, parameters.name)
        });
        let annotations = object.metadata.annotations.as_ref();
        let is_default = annotations
            .and_then(|all| all.get(IS_DEFAULT))
            .is_some_and(|value| value == "true");
        let mut name = object.metadata.name.clone().unwrap_or_default();
        if is_default {
            name += " (default)";
        }
        vec![
            Cell::from(name),
            Cell::from(text(&spec.controller)),
            Cell::from(parameters.unwrap_or_else(|| "<none>".to_owned())),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_parameters(
    parameters: &IngressClassParametersReference,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(group) = &parameters.api_group {
        let at = at.child("apiGroup");
        faults(group, names::dns_subdomain(group), &at, errors);
    }
    validate_segment(&parameters.kind, &at.child("kind"), errors);
    validate_segment(&parameters.name, &at.child("name"), errors);
    let namespace_at = at.child("namespace");
    match (text(&parameters.scope), &parameters.namespace) {
        ("Namespace", None) => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(Error::required(&namespace_at, detail));
        }
        ("Namespace", Some(namespace)) => {
            let wrong = names::dns_label(namespace);
            faults(namespace, wrong, &namespace_at, errors);
        }
        ("Cluster", Some(_)) => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.push(Error::forbidden(&namespace_at, detail));
        }
        ("Cluster", None) => {}
        (other, _) => {
            let supported = &["Cluster", "Namespace"];
            errors.push(Error::not_supported(&at.child("scope"), other, supported));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn class(spec: Value) -> IngressClass {
        let mut class =
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": spec})).unwrap();
        IngressClassStrategy.set_defaults(&mut class);
        class
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"controller": "example.com/c", "parameters": {"kind": "K", "name": "n"}}),
                vec![],
            ),
            (
                json!({"parameters": {"kind": "", "name": "n", "scope": "Namespace"}}),
                vec![
                    "spec.controller FieldValueRequired",
                    "spec.parameters.kind FieldValueRequired",
                    "spec.parameters.namespace FieldValueRequired `parameters.scope` is set to 'Namespace'",
                ],
            ),
            (
                json!({"controller": "c", "parameters": {"kind": "K", "name": "n", "namespace": "a"}}),
                vec![
                    "spec.controller FieldValueInvalid must be a domain-prefixed path",
                    "spec.parameters.namespace FieldValueForbidden `parameters.scope` is set to 'Cluster'",
                ],
            ),
        ];
        for (spec, want) in table {
            assert_causes(&IngressClassStrategy.validate(&class(spec)), &want);
        }
        let mut marked = class(json!({"controller": "a.b/c"}));
        let name = |class: &IngressClass| {
            let row = IngressClassStrategy.row(class, jiff::Timestamp::UNIX_EPOCH);
            row[0].clone()
        };
        assert_eq!(name(&marked), Cell::from("c"));
        let annotations = marked.metadata.annotations.get_or_insert_default();
        annotations.insert(IS_DEFAULT.to_owned(), "true".to_owned());
        assert_eq!(name(&marked), Cell::from("c (default)"));
        let (new, old) = (
            json!({"controller": "a.b/c"}),
            json!({"controller": "a.b/d"}),
        );
        assert_causes(
            &IngressClassStrategy.validate_update(&class(new), &class(old)),
            &["spec.controller FieldValueInvalid field is immutable"],
        );
    }
}
