//! IPAddress: who has an address; its name is the address.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, NameRule, Strategy};
use crate::validation::references::validate_segment;
use crate::validation::{faults, immutable, text};

pub(super) struct IPAddressStrategy;

impl Strategy for IPAddressStrategy {
    type Object = IPAddress;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<IPAddress>()
            .short_names(&["ip"])
            .names(NameRule::IpAddress)
    }

    fn validate(&self, object: &IPAddress) -> ErrorList {
        let mut errors = ErrorList::default();
        let parent = &object.spec.parent_ref;
        let at = Path::new("spec").child("parentRef");
        if *parent == ParentReference::default() {
            errors.push(Error::required(&at, ""));
            return errors;
        }
        let group = text(&parent.group);
        if !group.is_empty() {
            let at = at.child("group");
            faults(group, names::dns_subdomain(group), &at, &mut errors);
        }
        validate_segment(&parent.resource, &at.child("resource"), &mut errors);
        validate_segment(&parent.name, &at.child("name"), &mut errors);
        let namespace = text(&parent.namespace);
        if !namespace.is_empty() {
            let at = at.child("namespace");
            faults(namespace, names::path_segment(namespace), &at, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &IPAddress, old: &IPAddress) -> ErrorList {
        let mut errors = self.validate(new);
        let at = Path::new("spec").child("parentRef");
        immutable(&new.spec.parent_ref, &old.spec.parent_ref, &at, &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("ParentRef", "Who has the address."),
            Column::age(),
        ]
    }

    fn row(&self, object: &IPAddress, now: jiff::Timestamp) -> Vec<Cell> {
        let parent = &object.spec.parent_ref;
        let mut owner = parent.resource.to_lowercase();
        for (separator, part) in [
            (".", text(&parent.group)),
            ("/", text(&parent.namespace)),
            ("/", parent.name.as_str()),
        ] {
            if !part.is_empty() {
                owner += separator;
                owner += part;
            }
        }
        vec![
            printing::name(&object.metadata),
            Cell::from(owner),
            printing::age(&object.metadata, now),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn validation() {
        let table: [(Value, &[&str]); 3] = [
            (json!({"resource": "services", "name": "s"}), &[]),
            (json!({}), &["spec.parentRef FieldValueRequired"]),
            (
                json!({"group": "A", "resource": "a/b", "namespace": "n"}),
                &[
                    "spec.parentRef.group FieldValueInvalid",
                    "spec.parentRef.resource FieldValueInvalid",
                    "spec.parentRef.name FieldValueRequired",
                ],
            ),
        ];
        for (parent, want) in table {
            let spec = json!({ "parentRef": parent });
            let object: IPAddress = serde_json::from_value(json!({ "spec": spec })).unwrap();
            assert_causes(&IPAddressStrategy.validate(&object), want);
        }
    }
}
