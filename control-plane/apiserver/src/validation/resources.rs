//! Resource names, quantities and requirements.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
pub(crate) use coracle_apimachinery::quantity::{canonicalize, canonicalize_quantity};
use k8s_openapi::api::core::v1::{PodResourceClaim, ResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{NEGATIVE, faults, items, text};

/// Quantities by the name of the resource.
pub(crate) type ResourceList = BTreeMap<String, ApiQuantity>;

const HUGE_PAGES: &str = "hugepages-";

/// Resources with no domain that exist at all.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources that are counted.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources that may be requested for a Pod as a whole.
const POD_LEVEL: &[&str] = &["cpu", "hugepages-", "memory"];

/// Requests and limits of a container. `claims` are the names in `spec.resourceClaims`.
pub(crate) fn validate_container_requirements(
    requirements: &ResourceRequirements,
    claims: &Claims<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_requirements(requirements, validate_container_resource, at, errors);
    validate_claims(
        items(&requirements.claims),
        claims,
        &at.child("claims"),
        errors,
    );
}

/// Requests and limits of a Pod as a whole.
pub(crate) fn validate_pod_requirements(
    requirements: &ResourceRequirements,
    claims: &Claims<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if requirements.claims.is_some() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.push(Error::forbidden(&at.child("claims"), detail));
    }
    validate_requirements(requirements, validate_pod_resource, at, errors);
    let of_pod = items(&requirements.claims);
    validate_claims(of_pod, claims, &at.child("claims"), errors);
}

/// The overhead that a RuntimeClass adds to a Pod.
pub(crate) fn validate_overhead(overhead: &ResourceList, at: &Path, errors: &mut ErrorList) {
    let requirements = ResourceRequirements {
        limits: Some(overhead.clone()),
        ..Default::default()
    };
    validate_container_requirements(&requirements, &Claims::default(), at, errors);
}

/// A quantity of a named resource: not negative, and whole where the resource is counted.
/// Returns it where it is a quantity at all.
pub(crate) fn validate_quantity(
    name: &str,
    quantity: &ApiQuantity,
    at: &Path,
    errors: &mut ErrorList,
) -> Option<Quantity> {
    let parsed = parse_quantity(quantity, at, errors)?;
    if parsed.is_negative() {
        errors.push(Error::invalid(at, parsed.to_string(), NEGATIVE));
    }
    if is_counted(name) && parsed.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(at, parsed.to_string(), "must be an integer"));
    }
    Some(parsed)
}

/// A quantity, or the error that says why it is none.
pub(crate) fn parse_quantity(
    quantity: &ApiQuantity,
    at: &Path,
    errors: &mut ErrorList,
) -> Option<Quantity> {
    match Quantity::try_from(quantity) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            errors.push(Error::invalid(at, quantity.0.as_str(), error.to_string()));
            None
        }
    }
}

/// Whether a quota can count a resource that has no domain.
pub(crate) fn is_quota_resource(name: &str) -> bool {
    let huge = name.strip_prefix("requests.").unwrap_or(name);
    is_huge_pages(huge) || (STANDARD.contains(&name) && name != "storage")
}

/// The name of a resource that a quota can count.
pub(crate) fn validate_quota_resource(name: &str, at: &Path, errors: &mut ErrorList) {
    validate_name(name, at, errors);
    if !name.contains('/') && !is_quota_resource(name) {
        let detail = "must be a standard resource for quota";
        errors.push(Error::invalid(at, name, detail));
    }
}

/// Whether a resource is one of huge pages.
pub(crate) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a resource is one of those that drivers offer.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_counted(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether requests may be lower than limits.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// The name of a resource, of whatever it is one. Returns whether it is valid.
pub(crate) fn validate_name(name: &str, at: &Path, errors: &mut ErrorList) -> bool {
    let wrong = names::qualified_name(name);
    if !wrong.is_empty() {
        faults(name, wrong, at, errors);
        return false;
    }
    if !name.contains('/')
        && !STANDARD.contains(&name)
        && !is_huge_pages(name.strip_prefix("requests.").unwrap_or(name))
    {
        errors.push(Error::invalid(
            at,
            name,
            "must be a standard resource type or fully qualified",
        ));
        return false;
    }
    true
}

/// The name of a resource that a container may ask for.
pub(crate) fn validate_container_resource(name: &str, at: &Path, errors: &mut ErrorList) {
    validate_name(name, at, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_pages(name) {
            errors.push(Error::invalid(
                at,
                name,
                "must be a standard resource for containers",
            ));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(
            at,
            name,
            "doesn't follow extended resource name standard",
        ));
    }
}

fn validate_pod_resource(name: &str, at: &Path, errors: &mut ErrorList) {
    if validate_name(name, at, errors) && !matches!(name, "cpu" | "memory") && !is_huge_pages(name)
    {
        errors.push(Error::not_supported(at, name, POD_LEVEL));
    }
}

fn validate_requirements(
    requirements: &ResourceRequirements,
    validate_resource: fn(&str, &Path, &mut ErrorList),
    at: &Path,
    errors: &mut ErrorList,
) {
    let (limits_at, requests_at) = (at.child("limits"), at.child("requests"));
    let (mut compute, mut huge) = (false, false);
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    for (name, quantity) in requirements.limits.iter().flatten() {
        let at = limits_at.key(name);
        validate_resource(name, &at, errors);
        if let Some(limit) = validate_quantity(name, quantity, &at, errors) {
            huge |= validate_huge_pages(name, &limit, &at, errors);
            limits.insert(name, limit);
        }
        compute |= matches!(name.as_str(), "cpu" | "memory");
    }
    for (name, quantity) in requirements.requests.iter().flatten() {
        let at = requests_at.key(name);
        validate_resource(name, &at, errors);
        compute |= matches!(name.as_str(), "cpu" | "memory");
        let Some(request) = validate_quantity(name, quantity, &at, errors) else {
            continue;
        };
        match limits.get(name.as_str()) {
            Some(limit) if request != *limit && !may_overcommit(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests_at, request.to_string(), detail));
            }
            Some(limit) if request > *limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests_at, request.to_string(), detail));
            }
            None if !may_overcommit(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(Error::required(&limits_at, detail));
            }
            _ => {}
        }
        huge |= validate_huge_pages(name, &request, &at, errors);
    }
    if huge && !compute {
        errors.push(Error::forbidden(at, "HugePages require cpu or memory"));
    }
}

/// Whether the resource is one of huge pages, whose quantity is a multiple of the page's size.
fn validate_huge_pages(name: &str, quantity: &Quantity, at: &Path, errors: &mut ErrorList) -> bool {
    let Some(size) = name.strip_prefix(HUGE_PAGES) else {
        return false;
    };
    let size = size.parse::<Quantity>().map_or(0, |size| size.value());
    if size <= 0 || quantity.value() % size != 0 {
        let detail = format!("{quantity} is not positive integer multiple of {name}");
        errors.push(Error::invalid(at, quantity.to_string(), detail));
    }
    true
}

/// Claims of a Pod that are named where one is not among them, and the bytes of them in all: each
/// error names all of them.
const MAX_NAMED: usize = 64;
const MAX_NAMED_BYTES: usize = 4 * 1024;

/// The claims of a Pod, which its containers may use.
#[derive(Default)]
pub(crate) struct Claims<'a>(BTreeSet<&'a str>);

impl<'a> Claims<'a> {
    pub(crate) fn of(claims: &'a [PodResourceClaim]) -> Self {
        let names = claims.iter().map(|claim| claim.name.as_str());
        Self(names.filter(|name| !name.is_empty()).collect())
    }

    /// What is said of a name that is not among them.
    fn detail(&self) -> String {
        let names: Vec<&str> = self.0.iter().copied().collect();
        let bytes: usize = names.iter().map(|name| name.len()).sum();
        let known = if names.is_empty() {
            " which is empty".to_owned()
        } else if names.len() > MAX_NAMED || bytes > MAX_NAMED_BYTES {
            String::new()
        } else {
            format!(": {}", names.join(", "))
        };
        format!("must be one of the names in pod.spec.resourceClaims{known}")
    }
}

/// A container's use of the Pod's claims. A claim may be used as a whole or by its requests.
fn validate_claims(
    claims: &[ResourceClaim],
    known: &Claims<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut detail: Option<String> = None;
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        let (name, request) = (claim.name.as_str(), text(&claim.request));
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        if !request.is_empty() {
            faults(
                request,
                names::dns_label(request),
                &at.child("request"),
                errors,
            );
        }
        // As a whole it comes before its requests.
        let before = used.range((name, "")..).next();
        let before = before.filter(|(used, _)| *used == name);
        if before.is_some_and(|(_, whole)| request.is_empty() || whole.is_empty()) {
            errors.push(Error::duplicate(&at, name));
        } else if used.contains(&(name, request)) {
            errors.push(Error::duplicate(&at, format!("{name}/{request}")));
        }
        used.insert((name, request));
        if !known.0.contains(name) {
            let detail = detail.get_or_insert_with(|| known.detail());
            errors.push(Error::not_found(&at, name).with_detail(detail.as_str()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn container_requirements() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi", "example.com/gpu": "1"}}),
                vec![],
            ),
            (
                json!({"limits": {"cpu": "-1"}}),
                vec!["r.limits[cpu] FieldValueInvalid must be greater than or equal to 0"],
            ),
            (
                json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "1"}}),
                vec![
                    "r.requests FieldValueInvalid must be less than or equal to cpu limit of 500m",
                ],
            ),
            (
                json!({"limits": {"disk": "1"}}),
                vec![
                    "r.limits[disk] FieldValueInvalid must be a standard resource type or fully qualified",
                    "r.limits[disk] FieldValueInvalid must be a standard resource for containers",
                ],
            ),
            (
                json!({"requests": {"example.com/gpu": "1500m"}}),
                vec![
                    "r.requests[example.com/gpu] FieldValueInvalid must be an integer",
                    "r.limits FieldValueRequired Limit must be set for non overcommitable resources",
                ],
            ),
            (
                json!({"limits": {"cpu": "one"}}),
                vec!["r.limits[cpu] FieldValueInvalid"],
            ),
            (
                json!({"limits": {"hugepages-2Mi": "3Mi"}}),
                vec![
                    "r.limits[hugepages-2Mi] FieldValueInvalid 3Mi is not positive integer multiple",
                    "r FieldValueForbidden HugePages require cpu or memory",
                ],
            ),
            (
                json!({"claims": [{"name": "a"}, {"name": "a"}, {"name": "b"}]}),
                vec![
                    "r.claims[1] FieldValueDuplicate",
                    "r.claims[2] FieldValueNotFound must be one of the names in pod.spec.resourceClaims: a",
                ],
            ),
        ];
        for (value, want) in table {
            let mut errors = ErrorList::default();
            let requirements = serde_json::from_value(value).unwrap();
            let claims = Claims(BTreeSet::from(["a"]));
            validate_container_requirements(&requirements, &claims, &Path::new("r"), &mut errors);
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn quantities_become_canonical() {
        let mut list = Some(BTreeMap::from([
            ("cpu".to_owned(), ApiQuantity("1000m".to_owned())),
            ("memory".to_owned(), ApiQuantity("1024Mi".to_owned())),
            ("bad".to_owned(), ApiQuantity("x".to_owned())),
        ]));
        canonicalize(&mut list);
        let got: Vec<_> = list
            .unwrap()
            .into_values()
            .map(|quantity| quantity.0)
            .collect();
        assert_eq!(got, ["x", "1", "1Gi"]);
    }
}
