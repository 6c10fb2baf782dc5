//! StorageVersionMigration: the wish that all objects of a resource are written anew, in the version
//! in which they are stored now.
//!
//! Deliberately absent: who writes them.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::gvk::GroupResource;
use coracle_apimachinery::names;
use k8s_openapi::api::storagemigration::v1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::workload::spec_and_status;
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::conditions::validate_conditions;
use crate::validation::{IMMUTABLE, immutable, items, shown, text};

const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";
/// What a migration can be said to be.
const STATES: [&str; 3] = ["Running", SUCCEEDED, FAILED];

pub(super) struct StorageVersionMigrationStrategy;

impl Strategy for StorageVersionMigrationStrategy {
    type Object = StorageVersionMigration;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<StorageVersionMigration>()
            .subresources(&[Subresource::Status])
            .conditional_update()
    }

    fn set_defaults(&self, object: &mut StorageVersionMigration) {
        object.spec.get_or_insert_default();
        object.status.get_or_insert_default();
    }

    spec_and_status!(StorageVersionMigration, without metadata);

    fn validate(&self, object: &StorageVersionMigration) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec").child("resource");
        let (group, resource) = migrated(object);
        let resource_at = at.child("resource");
        if resource.is_empty() {
            errors.push(Error::required(
                &resource_at,
                "resource is required to be set",
            ));
        } else {
            refuse(
                resource,
                &names::dns1035_label(resource),
                &resource_at,
                &mut errors,
            );
        }
        if !group.is_empty() {
            refuse(
                group,
                &names::dns_subdomain(group),
                &at.child("group"),
                &mut errors,
            );
        }
        errors
    }

    fn validate_update(
        &self,
        new: &StorageVersionMigration,
        old: &StorageVersionMigration,
    ) -> ErrorList {
        let mut errors = self.validate(new);
        immutable(&new.spec, &old.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_status_update(
        &self,
        new: &StorageVersionMigration,
        old: &StorageVersionMigration,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("status");
        let (version, was) = (resource_version(new), resource_version(old));
        let version_at = at.child("resourceVersion");
        if !version.is_empty() && !is_resource_version(version) {
            let detail = format!("resource version is not well formed: {version}");
            errors.push(Error::invalid(&version_at, version, detail));
        }
        let at = at.child("conditions");
        validate_conditions(conditions(new), &at, &mut errors);
        if !was.is_empty() && version != was {
            errors.push(Error::invalid(&version_at, version, IMMUTABLE));
        }
        let mut invalid =
            |detail: &str| errors.push(Error::invalid(&at, shown(&conditions(new)), detail));
        if is(new, SUCCEEDED) && is(new, FAILED) {
            invalid("Both success and failed conditions cannot be true at the same time");
        }
        if is(old, SUCCEEDED) && !is(new, SUCCEEDED) {
            invalid("Success condition cannot be set to false once it is true");
        }
        if is(old, FAILED) && !is(new, FAILED) {
            invalid("Failed condition cannot be set to false once it is true");
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Resource", "Whose objects are written anew."),
            Column::text("Status", "How far that is."),
        ]
    }

    fn row(&self, object: &StorageVersionMigration, _now: jiff::Timestamp) -> Vec<Cell> {
        let (group, resource) = migrated(object);
        let resource = GroupResource::new(group.to_owned(), resource.to_owned());
        let mut known = conditions(object)
            .iter()
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.type_.as_str())
            .filter(|state| STATES.contains(state));
        vec![
            printing::name(&object.metadata),
            Cell::from(resource.to_string()),
            Cell::from(known.next_back().unwrap_or("Unknown")),
        ]
    }
}

/// One error with everything that is wrong with a name.
fn refuse(name: &str, faults: &[String], at: &Path, errors: &mut ErrorList) {
    if !faults.is_empty() {
        errors.push(Error::invalid(at, name, faults.join(",")));
    }
}

/// The group and the resource.
fn migrated(object: &StorageVersionMigration) -> (&str, &str) {
    let spec = object.spec.as_ref();
    spec.map(|spec| {
        (
            spec.resource.group.as_str(),
            spec.resource.resource.as_str(),
        )
    })
    .unwrap_or_default()
}

fn conditions(object: &StorageVersionMigration) -> &[Condition] {
    let status = object.status.as_ref();
    status.map(|s| items(&s.conditions)).unwrap_or_default()
}

fn resource_version(object: &StorageVersionMigration) -> &str {
    let status = object.status.as_ref();
    status
        .map(|s| text(&s.resource_version))
        .unwrap_or_default()
}

/// Whether it is one that an object can have: a whole number above zero, of any length.
fn is_resource_version(version: &str) -> bool {
    !version.starts_with('0') && version.bytes().all(|byte| byte.is_ascii_digit())
}

fn is(object: &StorageVersionMigration, state: &str) -> bool {
    let mut conditions = conditions(object).iter();
    conditions
        .find(|condition| condition.type_ == state)
        .is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    const STRATEGY: StorageVersionMigrationStrategy = StorageVersionMigrationStrategy;

    fn migration(group: &str, resource: &str, status: Value) -> StorageVersionMigration {
        let spec = json!({"resource": {"group": group, "resource": resource}});
        let object = json!({"metadata": {"name": "m"}, "spec": spec, "status": status});
        serde_json::from_value(object).unwrap()
    }

    fn condition(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn specs() {
        let table: [(&str, &str, &[&str]); 5] = [
            ("", "secrets", &[]),
            ("apps", "deployments", &[]),
            (
                "apps",
                "",
                &["spec.resource.resource FieldValueRequired resource is required to be set"],
            ),
            (
                "apps",
                "deployments/scale",
                &["spec.resource.resource FieldValueInvalid a DNS-1035 label must"],
            ),
            (
                "A_",
                "9",
                &[
                    "spec.resource.resource FieldValueInvalid a DNS-1035 label must",
                    "spec.resource.group FieldValueInvalid a lowercase RFC 1123 subdomain must",
                ],
            ),
        ];
        for (group, resource, want) in table {
            assert_causes(
                &STRATEGY.validate(&migration(group, resource, json!({}))),
                want,
            );
        }
        let (new, old) = (
            migration("", "pods", json!({})),
            migration("", "secrets", json!({})),
        );
        assert_causes(&STRATEGY.validate_update(&old, &old), &[]);
        assert_causes(
            &STRATEGY.validate_update(&new, &old),
            &["spec FieldValueInvalid field is immutable"],
        );
    }

    #[test]
    fn statuses() {
        let with = |version: &str, conditions: Value| {
            let status = json!({"resourceVersion": version, "conditions": conditions});
            migration("", "secrets", status)
        };
        let none = migration("", "secrets", json!({}));
        let running = with("12", json!([condition("Running", "True")]));
        let done = with("12", json!([condition("Succeeded", "True")]));
        let failed = with("12", json!([condition("Failed", "True")]));
        let both = [condition("Succeeded", "True"), condition("Failed", "True")];
        let table: [(&StorageVersionMigration, &StorageVersionMigration, &[&str]); 8] = [
            (&running, &none, &[]),
            (&done, &running, &[]),
            (&done, &done, &[]),
            (
                &with("012", json!([condition("Running", "Perhaps")])),
                &none,
                &[
                    "status.resourceVersion FieldValueInvalid resource version is not well formed: 012",
                    "status.conditions[0].status FieldValueNotSupported",
                ],
            ),
            (
                &with("1x", json!([])),
                &none,
                &[
                    "status.resourceVersion FieldValueInvalid resource version is not well formed: 1x",
                ],
            ),
            (
                &none,
                &running,
                &["status.resourceVersion FieldValueInvalid field is immutable"],
            ),
            (
                &with("12", json!(both)),
                &running,
                &["status.conditions FieldValueInvalid Both success and failed"],
            ),
            (
                &failed,
                &done,
                &["status.conditions FieldValueInvalid Success condition cannot be set to false"],
            ),
        ];
        for (new, old, want) in table {
            assert_causes(&STRATEGY.validate_status_update(new, old), want);
        }
        assert_causes(
            &STRATEGY.validate_status_update(&done, &failed),
            &["status.conditions FieldValueInvalid Failed condition cannot be set to false"],
        );
    }

    #[test]
    fn rows_tell_what_is_true() {
        let conditions = [
            condition("Running", "False"),
            condition("Succeeded", "True"),
            condition("Other", "True"),
        ];
        let now = jiff::Timestamp::UNIX_EPOCH;
        for (status, state) in [
            (json!({}), "Unknown"),
            (json!({ "conditions": conditions }), "Succeeded"),
        ] {
            let row = STRATEGY.row(&migration("apps", "deployments", status), now);
            let want = ["m", "deployments.apps", state].map(Cell::from);
            assert_eq!(row, want);
        }
    }
}
