//! ResourceQuota: what all objects of a namespace may use together. Admission charges what is
//! created (`admission/resource_quota`); a controller counts anew what is there.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, Path, Shown};
use coracle_apimachinery::resources::parse;
use k8s_openapi::api::core::v1::{
    ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopeSelector,
    ScopedResourceSelectorRequirement,
};

use super::workload::spec_and_status;
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::resources::{
    ResourceList, canonicalize, is_quota_resource, validate_quantity, validate_quota_resource,
};
use crate::validation::{IMMUTABLE, items, shown};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Scopes of which no two may be together.
const CONFLICTS: [[&str; 2]; 2] = [
    ["BestEffort", "NotBestEffort"],
    ["NotTerminating", "Terminating"],
];

/// Pods, and resources of theirs. Kubernetes has no ephemeral storage here.
const COMPUTE: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];

pub(super) struct ResourceQuotaStrategy;

impl Strategy for ResourceQuotaStrategy {
    type Object = ResourceQuota;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ResourceQuota>()
            .short_names(&["quota"])
            .returns_deleted()
            .subresources(&[Subresource::Status])
    }

    fn set_defaults(&self, object: &mut ResourceQuota) {
        canonicalize(&mut object.spec.get_or_insert_default().hard);
        let status = object.status.get_or_insert_default();
        canonicalize(&mut status.hard);
        canonicalize(&mut status.used);
    }

    spec_and_status!(ResourceQuota);

    fn validate(&self, object: &ResourceQuota) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec");
        if let Some(spec) = &object.spec {
            validate_amounts(spec.hard.as_ref(), &at.child("hard"), &mut errors);
            let excluded = excluded(spec);
            // Each error about scopes shows all of them.
            let scopes = Shown::from(shown(&spec.scopes));
            let scopes_at = at.child("scopes");
            let named = items(&spec.scopes);
            validate_scopes(named, &scopes, &excluded, &scopes_at, &mut errors);
            if let Some(selector) = &spec.scope_selector {
                let at = at.child("scopeSelector").child("matchExpressions");
                validate_selector(selector, &scopes, &excluded, &at, &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
        let mut errors = self.validate(new);
        let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
            let spec = quota.spec.as_ref();
            let scopes = spec.and_then(|spec| spec.scopes.clone());
            scopes.unwrap_or_default().into_iter().collect()
        };
        if scopes(new) != scopes(old) {
            let at = Path::new("spec").child("scopes");
            let value = new.spec.as_ref().map(|spec| shown(&spec.scopes));
            errors.push(Error::invalid(&at, value.unwrap_or_default(), IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, new: &ResourceQuota, _old: &ResourceQuota) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("status");
        if let Some(status) = &new.status {
            validate_amounts(status.hard.as_ref(), &at.child("hard"), &mut errors);
            validate_amounts(status.used.as_ref(), &at.child("used"), &mut errors);
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Request", "What is used and may be used, of requests."),
            Column::text("Limit", "What is used and may be used, of limits."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ResourceQuota, now: jiff::Timestamp) -> Vec<Cell> {
        let none = ResourceQuotaStatus::default();
        let status = object.status.as_ref().unwrap_or(&none);
        let used = parse(status.used.as_ref());
        let mut parts: [Vec<String>; 2] = Default::default();
        for (name, hard) in parse(status.hard.as_ref()) {
            let used = used.get(&name).copied().unwrap_or_default();
            let column = usize::from(name.starts_with("limits."));
            parts[column].push(format!("{name}: {used}/{hard}"));
        }
        let [requests, limits] = parts.map(|parts| parts.join(", "));
        vec![
            printing::name(&object.metadata),
            Cell::from(requests),
            Cell::from(limits),
            printing::age(&object.metadata, now),
        ]
    }
}

fn validate_amounts(list: Option<&ResourceList>, at: &Path, errors: &mut ErrorList) {
    for (name, quantity) in list.into_iter().flatten() {
        let at = at.key(name);
        validate_quota_resource(name, &at, errors);
        validate_quantity(name, quantity, &at, errors);
    }
}

/// Whether a quota that counts within a scope can count a resource.
fn is_countable(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

/// How many of the resources that a quota limits cannot be counted within each scope.
type Excluded = BTreeMap<&'static str, usize>;

fn excluded(spec: &ResourceQuotaSpec) -> Excluded {
    let names = spec.hard.iter().flatten().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.filter(|name| is_quota_resource(name)).collect();
    let excluded = |scope: &&'static str| {
        let count = names
            .iter()
            .filter(|name| !is_countable(scope, name))
            .count();
        (*scope, count)
    };
    SCOPES.iter().map(excluded).collect()
}

/// One error for each resource that cannot be counted within a scope.
fn exclude(scope: &str, excluded: &Excluded, at: &Path, shown: &Shown, errors: &mut ErrorList) {
    let times = excluded.get(scope).copied().unwrap_or_default();
    let detail = "unsupported scope applied to resource";
    errors.push_times(&Error::invalid(at, shown.clone(), detail), times);
}

fn conflicting(scopes: &BTreeSet<&str>) -> usize {
    let all = |pair: &&[&str; 2]| pair.iter().all(|scope| scopes.contains(scope));
    CONFLICTS.iter().filter(all).count()
}

fn validate_scopes(
    scopes: &[String],
    all: &Shown,
    excluded: &Excluded,
    at: &Path,
    errors: &mut ErrorList,
) {
    for scope in scopes {
        if !SCOPES.contains(&scope.as_str()) {
            errors.push(Error::invalid(at, all.clone(), "unsupported scope"));
        }
        exclude(scope, excluded, at, all, errors);
    }
    let set = scopes.iter().map(String::as_str).collect();
    for _ in 0..conflicting(&set) {
        errors.push(Error::invalid(at, all.clone(), "conflicting scopes"));
    }
}

/// `scopes` are those beside the selector: Kubernetes shows them where those of the selector are in
/// conflict.
fn validate_selector(
    selector: &ScopeSelector,
    scopes: &Shown,
    excluded: &Excluded,
    at: &Path,
    errors: &mut ErrorList,
) {
    // Each error shows all of the selector.
    let all = Shown::from(shown(selector));
    let scope_at = at.child("scopeName");
    let requirements = items(&selector.match_expressions);
    for requirement in requirements {
        let scope = requirement.scope_name.as_str();
        if !SCOPES.contains(&scope) {
            errors.push(Error::invalid(&scope_at, scope, "unsupported scope"));
        }
        exclude(scope, excluded, at, &all, errors);
        validate_requirement(requirement, at, errors);
    }
    let set = requirements.iter().map(|r| r.scope_name.as_str()).collect();
    for _ in 0..conflicting(&set) {
        errors.push(Error::invalid(at, scopes.clone(), "conflicting scopes"));
    }
}

fn validate_requirement(
    requirement: &ScopedResourceSelectorRequirement,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (operator_at, values_at) = (at.child("operator"), at.child("values"));
    let (operator, values) = (requirement.operator.as_str(), items(&requirement.values));
    let plain = !matches!(
        requirement.scope_name.as_str(),
        "PriorityClass" | "VolumeAttributesClass"
    );
    if plain && SCOPES.contains(&requirement.scope_name.as_str()) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(Error::invalid(&operator_at, operator, detail));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail =
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Error::required(&values_at, detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail =
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Error::invalid(&values_at, shown(&values), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => {
            let detail = "not a valid selector operator";
            errors.push(Error::invalid(&operator_at, operator, detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn quota(spec: Value) -> ResourceQuota {
        let mut quota =
            serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
        ResourceQuotaStrategy.set_defaults(&mut quota);
        quota
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"hard": {"cpu": "1", "pods": "5", "count/deployments.apps": "2", "requests.example.com/gpu": "1", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi"}}),
                vec![],
            ),
            (
                json!({"hard": {"pods": "1.5", "storage": "1", "cpu": "-1", "widgets": "1"}}),
                vec![
                    "spec.hard[cpu] FieldValueInvalid must be greater than or equal to 0",
                    "spec.hard[pods] FieldValueInvalid must be an integer",
                    "spec.hard[storage] FieldValueInvalid must be a standard resource for quota",
                    "spec.hard[widgets] FieldValueInvalid must be a standard resource type or fully qualified",
                    "spec.hard[widgets] FieldValueInvalid must be a standard resource for quota",
                ],
            ),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort", "NotBestEffort", "Odd"]}),
                vec![
                    "spec.scopes FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopes FieldValueInvalid unsupported scope",
                    "spec.scopes FieldValueInvalid conflicting scopes",
                ],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "In"},
                    {"scopeName": "BestEffort", "operator": "In", "values": ["x"]},
                    {"scopeName": "PriorityClass", "operator": "Exists", "values": ["x"]},
                ]}}),
                vec![
                    "spec.scopeSelector.matchExpressions.values FieldValueRequired must be at least one value",
                    "spec.scopeSelector.matchExpressions.operator FieldValueInvalid must be 'Exists'",
                    "spec.scopeSelector.matchExpressions.values FieldValueInvalid must be no value",
                ],
            ),
            // An error for each scope and each resource that it has not.
            (
                json!({"hard": {"cpu": "1", "memory": "1", "pods": "1", "requests.example.com/gpu": "1", "limits.ephemeral-storage": "1"}, "scopes": ["BestEffort", "Terminating"]}),
                vec![
                    "spec.scopes FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopes FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopes FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopes FieldValueInvalid unsupported scope applied to resource",
                ],
            ),
            (
                json!({"hard": {"services": "1", "hugepages-2Mi": "2Mi"}, "scopeSelector": {"matchExpressions": [
                    {"scopeName": "PriorityClass", "operator": "Exists"}, {"scopeName": "VolumeAttributesClass", "operator": "Exists"},
                ]}}),
                vec![
                    "spec.scopeSelector.matchExpressions FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopeSelector.matchExpressions FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopeSelector.matchExpressions FieldValueInvalid unsupported scope applied to resource",
                    "spec.scopeSelector.matchExpressions FieldValueInvalid unsupported scope applied to resource",
                ],
            ),
        ];
        for (spec, want) in table {
            assert_causes(&ResourceQuotaStrategy.validate(&quota(spec)), &want);
        }
        assert_causes(
            &ResourceQuotaStrategy.validate_update(
                &quota(json!({"scopes": ["Terminating"]})),
                &quota(json!({})),
            ),
            &["spec.scopes FieldValueInvalid field is immutable"],
        );
    }

    /// What is shown is what Kubernetes shows: of scopes of a selector, those beside it.
    #[test]
    fn conflicts_show_scopes() {
        let both = json!([
            {"scopeName": "Terminating", "operator": "Exists"}, {"scopeName": "NotTerminating", "operator": "Exists"},
        ]);
        let table = [
            (
                json!({"scopes": ["BestEffort", "NotBestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
            (
                json!({"scopeSelector": {"matchExpressions": both}}),
                "spec.scopeSelector.matchExpressions: Invalid value: null: conflicting scopes",
            ),
            (
                json!({"scopes": ["BestEffort"], "scopeSelector": {"matchExpressions": both}}),
                "spec.scopeSelector.matchExpressions: Invalid value: [\"BestEffort\"]: conflicting scopes",
            ),
        ];
        for (spec, want) in table {
            let errors = ResourceQuotaStrategy.validate(&quota(spec));
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(errors, [want]);
        }
    }

    #[test]
    fn a_row_shows_what_is_used_of_what_there_is() {
        let mut object = quota(json!({}));
        object.status = serde_json::from_value(json!({
            "hard": {"pods": "5", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "3", "limits.cpu": "500m"},
        }))
        .unwrap();
        let row = ResourceQuotaStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row[1], Cell::from("cpu: 0/1, pods: 3/5"));
        assert_eq!(row[2], Cell::from("limits.cpu: 500m/2"));
    }
}
