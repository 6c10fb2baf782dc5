//! Role and ClusterRole. The rules of a ClusterRole that aggregates others are a controller's.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, Role};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, NameRule, Scope, Strategy};
use crate::validation::items;
use crate::validation::labels::validate_label_selector;
use crate::validation::rbac::validate_rules;

pub(in super::super) struct RoleStrategy;

impl Strategy for RoleStrategy {
    type Object = Role;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Role>()
            .names(NameRule::PathSegment)
            .create_on_update()
    }

    fn validate(&self, object: &Role) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_rules(items(&object.rules), Scope::Namespaced, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Role, _old: &Role) -> ErrorList {
        self.validate(new)
    }

    fn columns(&self) -> Vec<Column> {
        printing::created_columns()
    }

    fn row(&self, object: &Role, _now: jiff::Timestamp) -> Vec<Cell> {
        printing::created_row(&object.metadata)
    }
}

pub(in super::super) struct ClusterRoleStrategy;

impl Strategy for ClusterRoleStrategy {
    type Object = ClusterRole;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ClusterRole>()
            .names(NameRule::PathSegment)
            .create_on_update()
    }

    fn validate(&self, object: &ClusterRole) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_rules(items(&object.rules), Scope::Cluster, &mut errors);
        if let Some(aggregation) = &object.aggregation_rule {
            validate_aggregation(aggregation, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &ClusterRole, _old: &ClusterRole) -> ErrorList {
        self.validate(new)
    }

    fn columns(&self) -> Vec<Column> {
        printing::created_columns()
    }

    fn row(&self, object: &ClusterRole, _now: jiff::Timestamp) -> Vec<Cell> {
        printing::created_row(&object.metadata)
    }
}

fn validate_aggregation(aggregation: &AggregationRule, errors: &mut ErrorList) {
    let at = Path::new("aggregationRule").child("clusterRoleSelectors");
    let selectors = items(&aggregation.cluster_role_selectors);
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(Error::required(&at, detail));
    }
    for (i, selector) in selectors.iter().enumerate() {
        let (at, before) = (at.index(i), errors.len());
        validate_label_selector(selector, &at, errors);
        if errors.len() > before {
            let detail = "invalid label selector.";
            errors.push(Error::invalid(&at, serde_json::Value::Null, detail));
        }
    }
}
