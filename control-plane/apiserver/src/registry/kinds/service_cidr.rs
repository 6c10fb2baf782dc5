//! ServiceCIDR: a range from which Services get their addresses.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::networking::v1::ServiceCIDR;

use super::workload::spec_and_status;
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::address::{family_of_cidr, validate_canonical_cidr};
use crate::validation::{IMMUTABLE, items, shown};

pub(super) struct ServiceCIDRStrategy;

impl Strategy for ServiceCIDRStrategy {
    type Object = ServiceCIDR;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ServiceCIDR>().subresources(&[Subresource::Status])
    }

    fn set_defaults(&self, object: &mut ServiceCIDR) {
        object.spec.get_or_insert_default();
        object.status.get_or_insert_default();
    }

    spec_and_status!(ServiceCIDR, without metadata);

    fn validate(&self, object: &ServiceCIDR) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec").child("cidrs");
        let cidrs = cidrs(object);
        match cidrs.len() {
            0 => errors.push(Error::required(&at, "at least one CIDR required")),
            1 | 2 => {
                for (i, cidr) in cidrs.iter().enumerate() {
                    validate_canonical_cidr(cidr, &at.index(i), &mut errors);
                }
            }
            _ => {
                let detail = "may only hold up to 2 values";
                errors.push(Error::invalid(&at, shown(&object.spec), detail));
            }
        }
        if let [first, second] = cidrs
            && family_of_cidr(first).is_some()
            && family_of_cidr(first) == family_of_cidr(second)
        {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(Error::invalid(&at, shown(&cidrs), detail));
        }
        errors
    }

    /// The ranges stay, but for one of the other family that is added.
    fn validate_update(&self, new: &ServiceCIDR, old: &ServiceCIDR) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec").child("cidrs");
        let (cidrs, was) = (cidrs(new), cidrs(old));
        let grows = was.len() == 1 && cidrs.len() == 2;
        if cidrs.len() != was.len() && !grows {
            errors.push(Error::invalid(&at, shown(&cidrs), IMMUTABLE));
            return errors;
        }
        for (i, (cidr, _)) in cidrs
            .iter()
            .zip(was)
            .enumerate()
            .filter(|(_, (cidr, was))| cidr != was)
        {
            errors.push(Error::invalid(&at.index(i), cidr.as_str(), IMMUTABLE));
        }
        if grows {
            errors.extend(self.validate(new));
        }
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("CIDRs", "The ranges of addresses."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ServiceCIDR, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(cidrs(object).join(",")),
            printing::age(&object.metadata, now),
        ]
    }
}

fn cidrs(object: &ServiceCIDR) -> &[String] {
    object
        .spec
        .as_ref()
        .map(|spec| items(&spec.cidrs))
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn range(cidrs: Value) -> ServiceCIDR {
        serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}}))
            .unwrap()
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!(["10.0.0.0/16", "fd00::/64"]), vec![]),
            (
                json!([]),
                vec!["spec.cidrs FieldValueRequired at least one CIDR required"],
            ),
            (
                json!(["10.0.0.1/16", "x"]),
                vec![
                    "spec.cidrs[0] FieldValueInvalid must not have bits set beyond the prefix length",
                    "spec.cidrs[1] FieldValueInvalid must be a valid CIDR value",
                ],
            ),
            (
                json!(["10.0.0.0/16", "10.1.0.0/16"]),
                vec!["spec.cidrs FieldValueInvalid may specify no more than one IP for each"],
            ),
        ];
        for (cidrs, want) in table {
            assert_causes(&ServiceCIDRStrategy.validate(&range(cidrs)), &want);
        }
        let old = range(json!(["10.0.0.0/16"]));
        let update = |cidrs| ServiceCIDRStrategy.validate_update(&range(cidrs), &old);
        assert_causes(&update(json!(["10.0.0.0/16", "fd00::/64"])), &[]);
        assert_causes(
            &update(json!(["10.1.0.0/16"])),
            &["spec.cidrs[0] FieldValueInvalid field is immutable"],
        );
        assert_causes(
            &update(json!([])),
            &["spec.cidrs FieldValueInvalid field is immutable"],
        );
    }
}
