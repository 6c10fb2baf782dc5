//! RoleBinding and ClusterRoleBinding.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, NameRule, Scope, Strategy};
use crate::validation::rbac::{GROUP, validate_role_ref, validate_same_role, validate_subjects};
use crate::validation::{items, text};

pub(in super::super) struct RoleBindingStrategy;

impl Strategy for RoleBindingStrategy {
    type Object = RoleBinding;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<RoleBinding>()
            .names(NameRule::PathSegment)
            .create_on_update()
    }

    fn set_defaults(&self, object: &mut RoleBinding) {
        set_groups(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(&self, object: &RoleBinding) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_role_ref(&object.role_ref, &["Role", "ClusterRole"], &mut errors);
        validate_subjects(items(&object.subjects), Scope::Namespaced, &mut errors);
        errors
    }

    fn validate_update(&self, new: &RoleBinding, old: &RoleBinding) -> ErrorList {
        let mut errors = self.validate(new);
        validate_same_role(&new.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn row(&self, object: &RoleBinding, now: jiff::Timestamp) -> Vec<Cell> {
        row(
            &object.metadata,
            &object.role_ref,
            items(&object.subjects),
            now,
        )
    }
}

pub(in super::super) struct ClusterRoleBindingStrategy;

impl Strategy for ClusterRoleBindingStrategy {
    type Object = ClusterRoleBinding;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ClusterRoleBinding>()
            .names(NameRule::PathSegment)
            .create_on_update()
    }

    fn set_defaults(&self, object: &mut ClusterRoleBinding) {
        set_groups(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(&self, object: &ClusterRoleBinding) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_role_ref(&object.role_ref, &["ClusterRole"], &mut errors);
        validate_subjects(items(&object.subjects), Scope::Cluster, &mut errors);
        errors
    }

    fn validate_update(&self, new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> ErrorList {
        let mut errors = self.validate(new);
        validate_same_role(&new.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn row(&self, object: &ClusterRoleBinding, now: jiff::Timestamp) -> Vec<Cell> {
        row(
            &object.metadata,
            &object.role_ref,
            items(&object.subjects),
            now,
        )
    }
}

/// Roles, users and groups are of one API group; an account is of the core one, which is empty.
fn set_groups(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    let of_rbac = |group: &mut Option<String>| {
        if text(group).is_empty() {
            *group = Some(GROUP.to_owned());
        }
    };
    of_rbac(&mut role.api_group);
    for subject in subjects.iter_mut().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            of_rbac(&mut subject.api_group);
        }
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::text("Role", "The role that is bound."),
        Column::age(),
        Column::text("Users", "The users who have the role.").wide(),
        Column::text("Groups", "The groups whose members have the role.").wide(),
        Column::text("ServiceAccounts", "The accounts that have the role.").wide(),
    ]
}

fn row(meta: &ObjectMeta, role: &RoleRef, subjects: &[Subject], now: jiff::Timestamp) -> Vec<Cell> {
    let of_kind = |kind: &str| {
        let names = subjects.iter().filter(|subject| subject.kind == kind);
        let names = names.map(|subject| match text(&subject.namespace) {
            namespace if kind == "ServiceAccount" => format!("{namespace}/{}", subject.name),
            _ => subject.name.clone(),
        });
        Cell::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        printing::name(meta),
        Cell::from(format!("{}/{}", role.kind, role.name)),
        printing::age(meta, now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}
