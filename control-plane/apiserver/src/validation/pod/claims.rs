//! Claims of devices that a Pod names, and those that were made for it.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    Container, PodExtendedResourceClaimStatus, PodResourceClaim, PodResourceClaimStatus, PodSpec,
    PodStatus,
};

use crate::validation::{faults, items, shown};

/// The claims that a spec names, each by its own name or by that of a template.
pub(super) fn validate_resource_claims(
    claims: &[PodResourceClaim],
    at: &Path,
    errors: &mut ErrorList,
) {
    let mut seen = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let idx = at.index(i);
        let name_at = idx.child("name");
        if claim.name.is_empty() {
            errors.push(Error::required(&name_at, ""));
        } else if !seen.insert(&claim.name) {
            errors.push(Error::duplicate(&name_at, claim.name.as_str()));
        } else {
            faults(&claim.name, names::dns_label(&claim.name), &name_at, errors);
        }
        let sources = [
            ("resourceClaimName", &claim.resource_claim_name),
            (
                "resourceClaimTemplateName",
                &claim.resource_claim_template_name,
            ),
        ];
        match sources.iter().filter(|(_, name)| name.is_some()).count() {
            0 => {
                let detail =
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(Error::invalid(&idx, shown(claim), detail));
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(Error::invalid(&idx, shown(claim), detail));
            }
        }
        for (field, name) in sources {
            if let Some(name) = name {
                faults(name, names::dns_subdomain(name), &idx.child(field), errors);
            }
        }
    }
}

/// What a status says of claims: only of those that the spec names, and of resources that its
/// containers ask for.
pub(super) fn validate_claim_statuses(
    status: &PodStatus,
    spec: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_statuses(
        items(&status.resource_claim_statuses),
        items(&spec.resource_claims),
        &at.child("resourceClaimStatuses"),
        errors,
    );
    if let Some(extended) = &status.extended_resource_claim_status {
        let at = at.child("extendedResourceClaimStatus");
        validate_extended(extended, spec, &at, errors);
    }
}

fn validate_statuses(
    statuses: &[PodResourceClaimStatus],
    claims: &[PodResourceClaim],
    at: &Path,
    errors: &mut ErrorList,
) {
    let names: BTreeSet<&str> = claims.iter().map(|claim| &*claim.name).collect();
    let mut seen = BTreeSet::new();
    for (i, status) in statuses.iter().enumerate() {
        let (name, at) = (status.name.as_str(), at.index(i));
        let name_at = at.child("name");
        if !names.contains(name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(Error::invalid(&name_at, name, detail));
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&name_at, name));
        }
        if let Some(claim) = &status.resource_claim_name {
            let at = at.child("resourceClaimName");
            faults(claim, names::dns_subdomain(claim), &at, errors);
        }
    }
}

fn validate_extended(
    status: &PodExtendedResourceClaimStatus,
    spec: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mappings_at = at.child("requestMappings");
    if status.request_mappings.is_empty() {
        let detail = "at least one request mapping is required";
        errors.push(Error::required(&mappings_at, detail));
    }
    let containers = items(&spec.init_containers).iter().chain(&spec.containers);
    // Of several of one name the first counts, and the last that is collected stays.
    let by_name: BTreeMap<&str, &Container> = containers.rev().map(|c| (&*c.name, c)).collect();
    let mut seen = BTreeSet::new();
    for (i, mapping) in status.request_mappings.iter().enumerate() {
        let (idx, resource) = (mappings_at.index(i), mapping.resource_name.as_str());
        let asks = |container: &Container| {
            let resources = container.resources.as_ref();
            let requests = resources.and_then(|resources| resources.requests.as_ref());
            requests.is_some_and(|requests| requests.contains_key(resource))
        };
        match by_name.get(mapping.container_name.as_str()).copied() {
            None => {
                let detail = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                let at = idx.child("containerName");
                errors.push(Error::invalid(&at, mapping.container_name.as_str(), detail));
            }
            Some(container) if !asks(container) => {
                let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.push(Error::invalid(&idx.child("resourceName"), resource, detail));
            }
            Some(_) => {}
        }
        let request = mapping.request_name.as_str();
        let request_at = at.child("requestName");
        faults(request, names::dns_label(request), &request_at, errors);
        if !seen.insert((&mapping.container_name, resource, request)) {
            for (field, value) in [
                ("containerName", mapping.container_name.as_str()),
                ("resourceName", resource),
                ("requestName", request),
            ] {
                errors.push(Error::duplicate(&idx.child(field), value));
            }
        }
    }
    let (claim, at) = (
        status.resource_claim_name.as_str(),
        at.child("resourceClaimName"),
    );
    if claim.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        faults(claim, names::dns_subdomain(claim), &at, errors);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn statuses_of_claims() {
        let spec = json!({
            "containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}],
            "resourceClaims": [{"name": "a", "resourceClaimName": "x"}],
        });
        let spec = serde_json::from_value(spec).unwrap();
        let mapping =
            json!({"containerName": "c", "resourceName": "example.com/gpu", "requestName": "r"});
        let wrong = json!({"containerName": "d", "resourceName": "e", "requestName": "R"});
        let none = json!({"containerName": "c", "resourceName": "e", "requestName": "r"});
        let status = |claims, extended| {
            let status =
                json!({"resourceClaimStatuses": claims, "extendedResourceClaimStatus": extended});
            let mut errors = ErrorList::default();
            let status = serde_json::from_value(status).unwrap();
            validate_claim_statuses(&status, &spec, &Path::new("status"), &mut errors);
            errors
        };
        let right = status(
            json!([{"name": "a", "resourceClaimName": "x"}]),
            json!({"requestMappings": [mapping], "resourceClaimName": "y"}),
        );
        assert_causes(&right, &[]);
        let faults = status(
            json!([{"name": "b"}, {"name": "b", "resourceClaimName": "X"}]),
            json!({"requestMappings": [mapping, mapping, wrong, none], "resourceClaimName": ""}),
        );
        assert_causes(
            &faults,
            &[
                "status.resourceClaimStatuses[0].name FieldValueInvalid must match the name",
                "status.resourceClaimStatuses[1].name FieldValueInvalid must match the name",
                "status.resourceClaimStatuses[1].name FieldValueDuplicate",
                "status.resourceClaimStatuses[1].resourceClaimName FieldValueInvalid",
                "status.extendedResourceClaimStatus.requestMappings[1].containerName FieldValueDuplicate",
                "status.extendedResourceClaimStatus.requestMappings[1].resourceName FieldValueDuplicate",
                "status.extendedResourceClaimStatus.requestMappings[1].requestName FieldValueDuplicate",
                "status.extendedResourceClaimStatus.requestMappings[2].containerName FieldValueInvalid must match the name",
                "status.extendedResourceClaimStatus.requestName FieldValueInvalid",
                "status.extendedResourceClaimStatus.requestMappings[3].resourceName FieldValueInvalid must match the extended",
                "status.extendedResourceClaimStatus.resourceClaimName FieldValueRequired",
            ],
        );
    }
}
