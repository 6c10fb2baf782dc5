//! Which requests are meant: rules of groups, versions, resources and operations, and selectors.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, RuleWithOperations,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::validation::labels::validate_label_selector;
use crate::validation::{faults, items, shown};

const ALL: &str = "*";
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];

/// A rule of a webhook.
pub(super) fn validate_rule(rule: &RuleWithOperations, at: &Path, errors: &mut ErrorList) {
    let operations_at = at.child("operations");
    let operations = items(&rule.operations);
    validate_all_or_some(operations, "operations", &operations_at, errors);
    for (i, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str()) {
            let at = operations_at.index(i);
            errors.push(Error::not_supported(&at, operation.as_str(), OPERATIONS));
        }
    }
    let groups_at = at.child("apiGroups");
    validate_all_or_some(items(&rule.api_groups), "API groups", &groups_at, errors);
    let (versions, versions_at) = (items(&rule.api_versions), at.child("apiVersions"));
    validate_all_or_some(versions, "API versions", &versions_at, errors);
    for (i, version) in versions.iter().enumerate() {
        if version.is_empty() {
            errors.push(Error::required(&versions_at.index(i), ""));
        }
    }
    validate_resources(items(&rule.resources), &at.child("resources"), errors);
    if let Some(scope) = &rule.scope
        && !SCOPES.contains(&scope.as_str())
    {
        let at = at.child("scope");
        errors.push(Error::not_supported(&at, scope.as_str(), SCOPES));
    }
}

/// Questions, by their groups, about which no webhook is asked: it might ask them itself.
const ASKED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// What is told of rules that name what no webhook is asked about.
pub(crate) fn warn_of_rules(rules: &[RuleWithOperations], at: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let (groups, resources) = (items(&rule.api_groups), items(&rule.resources));
        if groups.iter().chain(resources).any(|name| name == ALL) {
            continue;
        }
        let resources = among(resources, &ASKED.map(|(_, resource)| resource));
        for group in among(groups, &ASKED.map(|(group, _)| group)) {
            for resource in resources
                .iter()
                .filter(|resource| ASKED.contains(&(group, **resource)))
            {
                let at = at.index(i);
                warnings.push(format!(
                    "{at}: {resource}.{group} is excluded from admission webhooks; this rule will have no effect"
                ));
            }
        }
    }
    warnings
}

/// Those of the names that are among the known ones, each once.
fn among<'a>(names: &'a [String], known: &[&str]) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for name in names.iter().map(String::as_str) {
        if known.contains(&name) && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// A list of which `*` is all: required, and alone where it is in it.
fn validate_all_or_some(list: &[String], what: &str, at: &Path, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(Error::required(at, ""));
    } else if list.len() > 1 && list.iter().any(|member| member == ALL) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(Error::invalid(at, shown(&list), detail));
    }
}

/// Resources and subresources; none that another one covers.
fn validate_resources(resources: &[String], at: &Path, errors: &mut ErrorList) {
    if resources.is_empty() {
        errors.push(Error::required(at, ""));
    }
    let mut of_resource: BTreeSet<&str> = BTreeSet::new();
    let mut of_subresource: BTreeSet<&str> = BTreeSet::new();
    for (i, resource) in resources.iter().enumerate() {
        let at = at.index(i);
        if resource.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let Some((main, sub)) = resource.split_once('/') else {
            continue;
        };
        let mut covered = |by: String| {
            let detail = format!("if '{by}' is present, must not specify {resource}");
            errors.push(Error::invalid(&at, resource.as_str(), detail));
        };
        if of_resource.contains(main) {
            covered(format!("{main}/*"));
        }
        if of_subresource.contains(sub) {
            covered(format!("*/{sub}"));
        }
        if sub == ALL {
            of_resource.insert(main);
        }
        if main == ALL {
            of_subresource.insert(sub);
        }
    }
    if resources.len() > 1 && resources.iter().any(|resource| resource == "*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(Error::invalid(at, shown(&resources), detail));
    }
    // As Kubernetes has it, of the resources without subresource the last one counts.
    let mut mains = resources
        .iter()
        .filter(|r| !r.is_empty() && !r.contains('/'));
    if mains.clone().any(|main| main == ALL) && mains.next_back().is_some_and(|last| last != ALL) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(Error::invalid(at, shown(&resources), detail));
    }
}

/// What a policy or a binding is about.
pub(super) fn validate_match_resources(
    resources: &MatchResources,
    at: &Path,
    errors: &mut ErrorList,
) {
    let policy_at = at.child("matchPolicy");
    match resources.match_policy.as_deref() {
        None => errors.push(Error::required(&policy_at, "")),
        Some(policy) if !MATCH_POLICIES.contains(&policy) => {
            errors.push(Error::not_supported(&policy_at, policy, MATCH_POLICIES));
        }
        Some(_) => {}
    }
    validate_required_selector(
        resources.namespace_selector.as_ref(),
        &at.child("namespaceSelector"),
        errors,
    );
    validate_required_selector(
        resources.object_selector.as_ref(),
        &at.child("objectSelector"),
        errors,
    );
    for (field, rules) in [
        ("resourceRules", &resources.resource_rules),
        ("excludeResourceRules", &resources.exclude_resource_rules),
    ] {
        for (i, rule) in items(rules).iter().enumerate() {
            validate_named_rule(rule, &at.child(field).index(i), errors);
        }
    }
}

fn validate_required_selector(selector: Option<&LabelSelector>, at: &Path, errors: &mut ErrorList) {
    match selector {
        None => errors.push(Error::required(at, "")),
        Some(selector) => validate_label_selector(selector, at, errors),
    }
}

fn validate_named_rule(rule: &NamedRuleWithOperations, at: &Path, errors: &mut ErrorList) {
    let names_at = at.child("resourceNames");
    let names = items(&rule.resource_names);
    let mut seen = BTreeSet::new();
    for (i, name) in names.iter().enumerate() {
        let at = names_at.index(i);
        faults(name, names::path_segment(name), &at, errors);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at, name.as_str()));
        }
    }
    let rule = RuleWithOperations {
        api_groups: rule.api_groups.clone(),
        api_versions: rule.api_versions.clone(),
        operations: rule.operations.clone(),
        resources: rule.resources.clone(),
        scope: rule.scope.clone(),
    };
    validate_rule(&rule, at, errors);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn rules() {
        let rule = |resources: Value| json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": resources});
        let table: Vec<(Value, &[&str])> = vec![
            (rule(json!(["pods", "pods/log", "*/scale"])), &[]),
            (rule(json!(["*", "*/status"])), &[]),
            (
                json!({"apiGroups": ["*", "a"], "apiVersions": ["*", ""], "operations": ["*", "GET"], "resources": [], "scope": "World"}),
                &[
                    "r.operations FieldValueInvalid if '*' is present, must not specify other operations",
                    "r.operations[1] FieldValueNotSupported supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                    "r.apiGroups FieldValueInvalid if '*' is present, must not specify other API groups",
                    "r.apiVersions FieldValueInvalid if '*' is present, must not specify other API versions",
                    "r.apiVersions[1] FieldValueRequired",
                    "r.resources FieldValueRequired",
                    "r.scope FieldValueNotSupported supported values: \"*\", \"Cluster\", \"Namespaced\"",
                ],
            ),
            (
                rule(json!(["pods/*", "pods/log", "*/scale", "rs/scale", ""])),
                &[
                    "r.resources[1] FieldValueInvalid if 'pods/*' is present, must not specify pods/log",
                    "r.resources[3] FieldValueInvalid if '*/scale' is present, must not specify rs/scale",
                    "r.resources[4] FieldValueRequired",
                ],
            ),
            (
                rule(json!(["*/*", "a"])),
                &[
                    "r.resources FieldValueInvalid if '*/*' is present, must not specify other resources",
                ],
            ),
            (
                rule(json!(["*", "a"])),
                &[
                    "r.resources FieldValueInvalid if '*' is present, must not specify other resources without",
                ],
            ),
        ];
        for (rule, want) in table {
            let mut errors = ErrorList::default();
            let rule = serde_json::from_value(rule).unwrap();
            validate_rule(&rule, &Path::new("r"), &mut errors);
            assert_causes(&errors, want);
        }
    }

    #[test]
    fn rules_without_effect() {
        let rule = |groups: Value, resources: Value| -> RuleWithOperations {
            serde_json::from_value(json!({"apiGroups": groups, "resources": resources})).unwrap()
        };
        let rules = [
            rule(json!(["*"]), json!(["tokenreviews"])),
            rule(
                json!(["", "authentication.k8s.io"]),
                json!(["pods", "tokenreviews", "tokenreviews"]),
            ),
        ];
        assert_eq!(
            warn_of_rules(&rules, &Path::new("r")),
            [
                "r[1]: tokenreviews.authentication.k8s.io is excluded from admission webhooks; this rule will have no effect"
            ]
        );
    }

    #[test]
    fn resources_that_are_matched() {
        let resources = json!({
            "matchPolicy": "Some", "namespaceSelector": {"matchLabels": {"": "a"}},
            "resourceRules": [{"resourceNames": ["a/b", "c", "c"], "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        });
        let mut errors = ErrorList::default();
        let resources = serde_json::from_value(resources).unwrap();
        validate_match_resources(&resources, &Path::new("m"), &mut errors);
        assert_causes(
            &errors,
            &[
                "m.matchPolicy FieldValueNotSupported",
                "m.namespaceSelector.matchLabels FieldValueInvalid name part must be non-empty",
                "m.namespaceSelector.matchLabels FieldValueInvalid name part must consist of",
                "m.objectSelector FieldValueRequired",
                "m.resourceRules[0].resourceNames[0] FieldValueInvalid may not contain '/'",
                "m.resourceRules[0].resourceNames[2] FieldValueDuplicate",
            ],
        );
    }
}
