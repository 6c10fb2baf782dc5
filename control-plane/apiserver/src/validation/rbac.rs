//! Roles and whom they are bound to.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use super::references::validate_segment;
use super::{IMMUTABLE, faults, items, shown, text};
use crate::registry::strategy::Scope;

/// The group of roles, users and groups.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of a role of this scope: one in a namespace has no say over paths.
pub(crate) fn validate_rules(rules: &[PolicyRule], scope: Scope, errors: &mut ErrorList) {
    for (i, rule) in rules.iter().enumerate() {
        validate_rule(rule, scope, &Path::new("rules").index(i), errors);
    }
}

fn validate_rule(rule: &PolicyRule, scope: Scope, at: &Path, errors: &mut ErrorList) {
    if rule.verbs.is_empty() {
        errors.push(Error::required(&at.child("verbs"), ""));
    }
    let (groups, resources) = (items(&rule.api_groups), items(&rule.resources));
    let urls = items(&rule.non_resource_urls);
    if !urls.is_empty() {
        let at = at.child("nonResourceURLs");
        if scope == Scope::Namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&at, shown(&urls), detail));
        }
        let names = items(&rule.resource_names);
        if !(groups.is_empty() && resources.is_empty() && names.is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&at, shown(&urls), detail));
        }
        return;
    }
    if groups.is_empty() {
        let detail = "resource rules must supply at least one api group";
        errors.push(Error::required(&at.child("apiGroups"), detail));
    }
    if resources.is_empty() {
        let detail = "resource rules must supply at least one resource";
        errors.push(Error::required(&at.child("resources"), detail));
    }
}

/// The role of a binding: one of these kinds.
pub(crate) fn validate_role_ref(role: &RoleRef, kinds: &[&str], errors: &mut ErrorList) {
    let at = Path::new("roleRef");
    let group = text(&role.api_group);
    if group != GROUP {
        errors.push(Error::not_supported(&at.child("apiGroup"), group, &[GROUP]));
    }
    let kind = role.kind.as_str();
    if !kinds.contains(&kind) {
        errors.push(Error::not_supported(&at.child("kind"), kind, kinds));
    }
    validate_segment(&role.name, &at.child("name"), errors);
}

/// Whom a binding of this scope names: in a namespace it may leave out that of an account.
pub(crate) fn validate_subjects(subjects: &[Subject], scope: Scope, errors: &mut ErrorList) {
    for (i, subject) in subjects.iter().enumerate() {
        let at = Path::new("subjects").index(i);
        let name = subject.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        let (group, group_at) = (text(&subject.api_group), at.child("apiGroup"));
        match subject.kind.as_str() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    let wrong = names::dns_subdomain(name);
                    faults(name, wrong, &at.child("name"), errors);
                }
                if !group.is_empty() {
                    errors.push(Error::not_supported(&group_at, group, &[""]));
                }
                if scope == Scope::Cluster && text(&subject.namespace).is_empty() {
                    errors.push(Error::required(&at.child("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.push(Error::not_supported(&group_at, group, &[GROUP]));
                }
            }
            other => {
                let kinds = &["ServiceAccount", "User", "Group"];
                errors.push(Error::not_supported(&at.child("kind"), other, kinds));
            }
        }
    }
}

/// An error where a binding is of another role than it was: it would be another binding.
pub(crate) fn validate_same_role(new: &RoleRef, old: &RoleRef, errors: &mut ErrorList) {
    if new != old {
        let at = Path::new("roleRef");
        errors.push(Error::invalid(&at, shown(new), IMMUTABLE));
    }
}
