//! LimitRange: what one Pod, container or claim of a namespace may ask for, and what it gets that
//! asks for nothing. Admission holds Pods and claims to it (`admission/limit_ranger`).

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{ResourceList, parse};
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::faults;
use crate::validation::resources::{
    canonicalize, may_overcommit, parse_quantity, validate_container_resource, validate_name,
};

const CONTAINER: &str = "Container";
const POD: &str = "Pod";
const CLAIM: &str = "PersistentVolumeClaim";

pub(super) struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    type Object = LimitRange;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<LimitRange>()
            .short_names(&["limits"])
            .create_on_update()
    }

    fn set_defaults(&self, object: &mut LimitRange) {
        let spec = object.spec.get_or_insert_default();
        spec.limits.iter_mut().for_each(set_item_defaults);
    }

    fn validate(&self, object: &LimitRange) -> ErrorList {
        let mut errors = ErrorList::default();
        let at = Path::new("spec").child("limits");
        let limits = object.spec.as_ref().map(|spec| &spec.limits[..]);
        let mut seen = BTreeSet::new();
        for (i, limit) in limits.unwrap_or_default().iter().enumerate() {
            let at = at.index(i);
            validate_type(&limit.type_, &at.child("type"), &mut errors);
            if !seen.insert(limit.type_.as_str()) {
                errors.push(Error::duplicate(&at.child("type"), limit.type_.as_str()));
            }
            validate_item(limit, &at, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &LimitRange, _old: &LimitRange) -> ErrorList {
        self.validate(new)
    }

    fn columns(&self) -> Vec<Column> {
        printing::created_columns()
    }

    fn row(&self, object: &LimitRange, _now: jiff::Timestamp) -> Vec<Cell> {
        printing::created_row(&object.metadata)
    }
}

/// Each default of a container follows from what is given: the limit from the maximum, the
/// request from the limit, else from the minimum.
fn set_item_defaults(item: &mut LimitRangeItem) {
    for list in [
        &mut item.default,
        &mut item.default_request,
        &mut item.max,
        &mut item.max_limit_request_ratio,
        &mut item.min,
    ] {
        canonicalize(list);
    }
    if item.type_ != CONTAINER {
        return;
    }
    let mut limits = item.default.take().unwrap_or_default();
    for (name, quantity) in item.max.iter().flatten() {
        limits
            .entry(name.clone())
            .or_insert_with(|| quantity.clone());
    }
    let mut requests = item.default_request.take().unwrap_or_default();
    for (name, quantity) in limits.iter().chain(item.min.iter().flatten()) {
        requests
            .entry(name.clone())
            .or_insert_with(|| quantity.clone());
    }
    item.default = Some(limits).filter(|limits| !limits.is_empty());
    item.default_request = Some(requests).filter(|requests| !requests.is_empty());
}

fn validate_type(kind: &str, at: &Path, errors: &mut ErrorList) {
    let wrong = names::qualified_name(kind);
    if !wrong.is_empty() {
        faults(kind, wrong, at, errors);
    } else if !kind.contains('/') && ![POD, CONTAINER, CLAIM].contains(&kind) {
        let detail = "must be a standard limit type or fully qualified";
        errors.push(Error::invalid(at, kind, detail));
    }
}

fn validate_item(item: &LimitRangeItem, at: &Path, errors: &mut ErrorList) {
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    for (field, list) in lists {
        let at = at.child(field);
        if item.type_ == POD && field.starts_with("default") {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(Error::forbidden(&at, detail));
            }
            continue;
        }
        for (name, quantity) in list.iter().flatten() {
            let at = at.key(name);
            if matches!(item.type_.as_str(), POD | CONTAINER) {
                validate_container_resource(name, &at, errors);
            } else {
                validate_name(name, &at, errors);
            }
            // Which quantities make sense is not asked, in Kubernetes neither.
            parse_quantity(quantity, &at, errors);
        }
    }
    let bounds = Bounds {
        min: parse(item.min.as_ref()),
        max: parse(item.max.as_ref()),
        default: parse(item.default.as_ref()),
        request: parse(item.default_request.as_ref()),
        ratio: parse(item.max_limit_request_ratio.as_ref()),
    };
    if item.type_ == CLAIM
        && !bounds.min.contains_key("storage")
        && !bounds.max.contains_key("storage")
    {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(&at.child("limits"), detail));
    }
    let names: BTreeSet<&String> = [&bounds.min, &bounds.max, &bounds.default]
        .into_iter()
        .chain([&bounds.request, &bounds.ratio])
        .flat_map(ResourceList::keys)
        .collect();
    for name in names {
        bounds.validate(name, item.type_ != POD, at, errors);
    }
}

/// The lists of an item.
struct Bounds {
    min: ResourceList,
    max: ResourceList,
    default: ResourceList,
    request: ResourceList,
    ratio: ResourceList,
}

impl Bounds {
    /// What is said of one resource agrees with itself.
    fn validate(&self, name: &str, with_defaults: bool, at: &Path, errors: &mut ErrorList) {
        let (min, max) = (self.min.get(name), self.max.get(name));
        let (default, request) = if with_defaults {
            (self.default.get(name), self.request.get(name))
        } else {
            (None, None)
        };
        let (min_at, default_at, request_at) = (
            at.child("min").key(name),
            at.child("default").key(name),
            at.child("defaultRequest").key(name),
        );
        // Smaller and larger of a pair, what they are called, whose path and value is shown.
        type Rule<'a> = (
            Option<&'a Quantity>,
            &'a str,
            Option<&'a Quantity>,
            &'a str,
            &'a Path,
            Option<&'a Quantity>,
        );
        let rules: [Rule<'_>; 6] = [
            (min, "min", max, "max", &min_at, min),
            (min, "min", request, "default request", &request_at, request),
            (request, "default request", max, "max", &request_at, request),
            (
                request,
                "default request",
                default,
                "default limit",
                &request_at,
                request,
            ),
            (min, "min", default, "default", &default_at, min),
            (default, "default", max, "max", &default_at, max),
        ];
        for (low, low_name, high, high_name, at, value) in rules {
            if let (Some(low), Some(high), Some(value)) = (low, high, value)
                && low > high
            {
                let detail =
                    format!("{low_name} value {low} is greater than {high_name} value {high}");
                errors.push(Error::invalid(at, value.to_string(), detail));
            }
        }
        if let Some(ratio) = self.ratio.get(name) {
            validate_ratio(
                ratio,
                min,
                max,
                &at.child("maxLimitRequestRatio").key(name),
                errors,
            );
        }
        if let (Some(default), Some(request)) = (default, request)
            && !may_overcommit(name)
            && default != request
        {
            let detail = format!(
                "default value {default} must equal to defaultRequest value {request} in {name}"
            );
            errors.push(Error::invalid(&request_at, request.to_string(), detail));
        }
    }
}

fn validate_ratio(
    ratio: &Quantity,
    min: Option<&Quantity>,
    max: Option<&Quantity>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if ratio.as_f64() < 1.0 {
        let detail = format!("ratio {ratio} is less than 1");
        errors.push(Error::invalid(at, ratio.to_string(), detail));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let most = max.as_f64() / min.as_f64();
        if ratio.as_f64() > most {
            let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
            errors.push(Error::invalid(at, ratio.to_string(), detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn range(limits: Value) -> LimitRange {
        let mut range = serde_json::from_value(json!({"spec": {"limits": limits}})).unwrap();
        LimitRangeStrategy.set_defaults(&mut range);
        range
    }

    #[test]
    fn defaults_of_containers_follow_from_their_bounds() {
        let item = json!([{"type": "Container", "min": {"cpu": "50m", "ephemeral-storage": "1Gi"}, "max": {"cpu": "500m", "memory": "1024Mi"}, "default": {"memory": "200Mi"}}]);
        let spec = serde_json::to_value(range(item).spec).unwrap();
        let item = &spec["limits"][0];
        assert_eq!(item["default"], json!({"cpu": "500m", "memory": "200Mi"}));
        assert_eq!(
            item["defaultRequest"],
            json!({"cpu": "500m", "memory": "200Mi", "ephemeral-storage": "1Gi"})
        );
        assert_eq!(item["max"]["memory"], "1Gi");
        let pod = range(json!([{"type": "Pod", "max": {"cpu": "1"}}]));
        assert_eq!(pod.spec.unwrap().limits[0].default, None);
        let bare = serde_json::to_value(range(json!([{"type": "Container"}])).spec).unwrap();
        assert_eq!(bare["limits"][0], json!({"type": "Container"}));
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!([{"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "2"}}]),
                vec![],
            ),
            (
                json!([{"type": "Container", "min": {"cpu": "-1", "memory": "500m"}}]),
                vec![],
            ),
            (
                json!([{"type": "Pod", "default": {"cpu": "1"}}, {"type": "Pod"}, {"type": "Node"}]),
                vec![
                    "spec.limits[0].default FieldValueForbidden may not be specified when `type` is 'Pod'",
                    "spec.limits[1].type FieldValueDuplicate",
                    "spec.limits[2].type FieldValueInvalid must be a standard limit type or fully qualified",
                ],
            ),
            (
                json!([{"type": "PersistentVolumeClaim"}]),
                vec!["spec.limits[0].limits FieldValueRequired either minimum or maximum storage"],
            ),
            (
                json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]),
                vec![
                    "spec.limits[0].min[cpu] FieldValueInvalid min value 2 is greater than max value 1",
                    "spec.limits[0].defaultRequest[cpu] FieldValueInvalid min value 2 is greater than default request value 1",
                    "spec.limits[0].default[cpu] FieldValueInvalid min value 2 is greater than default value 1",
                ],
            ),
            (
                json!([{"type": "Container", "default": {"cpu": "2"}, "defaultRequest": {"cpu": "3"}}]),
                vec![
                    "spec.limits[0].defaultRequest[cpu] FieldValueInvalid default request value 3 is greater than default limit value 2",
                ],
            ),
            (
                json!([{"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3", "memory": "500m", "pods": "1"}}]),
                vec![
                    "spec.limits[0].maxLimitRequestRatio[pods] FieldValueInvalid must be a standard resource for containers",
                    "spec.limits[0].maxLimitRequestRatio[cpu] FieldValueInvalid ratio 3 is greater than max/min = 2.000000",
                    "spec.limits[0].maxLimitRequestRatio[memory] FieldValueInvalid ratio 500m is less than 1",
                ],
            ),
            (
                json!([{"type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"}}]),
                vec![
                    "spec.limits[0].defaultRequest[example.com/gpu] FieldValueInvalid default value 2 must equal",
                ],
            ),
        ];
        for (limits, want) in table {
            assert_causes(&LimitRangeStrategy.validate(&range(limits)), &want);
        }
    }
}
