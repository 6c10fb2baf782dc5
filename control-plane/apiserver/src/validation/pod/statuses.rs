//! What a node says of a Pod beside how its containers run: addresses, users, and the health of
//! what containers were given.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{
    Container, LinuxContainerUser, Pod, PodSpec, PodStatus, ResourceStatus,
};
use serde_json::{Value, json};

use super::security::validate_id;
use crate::validation::address::{self, is_dual_stack};
use crate::validation::legacy_address::{Was, validate_legacy_ip};
use crate::validation::{items, shown, text};

const HEALTHS: &[&str] = &["Healthy", "Unhealthy", "Unknown"];
/// Longest message about a device, in bytes.
const MAX_HEALTH_MESSAGE: usize = 1024;

/// The addresses of a Pod and of its node; what was there before is kept.
pub(super) fn validate_addresses(
    new: &PodStatus,
    old: &PodStatus,
    at: &Path,
    errors: &mut ErrorList,
) {
    let (ips, ips_at) = (pod_ips(new), at.child("podIPs"));
    validate_ips(&ips, &pod_ips(old), &ips_at, errors);
    if !ips.is_empty() && text(&new.pod_ip).is_empty() {
        let detail = "podIP and podIPs must either both be set or both be unset";
        errors.push(Error::invalid(&ips_at, shown(&new.pod_ips), detail));
    }
    let hosts = host_ips(new);
    let hosts_at = at.child("hostIPs");
    if let Some(first) = hosts.first()
        && *first != text(&new.host_ip)
    {
        errors.push(Error::invalid(
            &hosts_at.index(0).child("ip"),
            *first,
            "must be equal to `hostIP`",
        ));
    }
    validate_ips(&hosts, &host_ips(old), &hosts_at, errors);
}

fn pod_ips(status: &PodStatus) -> Vec<&str> {
    let ips = items(&status.pod_ips).iter();
    ips.map(|ip| ip.ip.as_str()).collect()
}

fn host_ips(status: &PodStatus) -> Vec<&str> {
    let ips = items(&status.host_ips).iter();
    ips.map(|ip| ip.ip.as_str()).collect()
}

/// At most one address of each family.
fn validate_ips(new: &[&str], old: &[&str], at: &Path, errors: &mut ErrorList) {
    let was: Was<'_> = old.iter().copied().collect();
    for (i, ip) in new.iter().enumerate() {
        validate_legacy_ip(ip, &was, &at.index(i), errors);
    }
    let all_are = new.iter().all(|ip| address::parse(ip).is_some());
    if new.len() > 1 && !(all_are && is_dual_stack(new)) {
        let list: Vec<Value> = new.iter().map(|ip| json!({ "ip": ip })).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid(at, Value::from(list), detail));
    }
}

/// What is said of the containers, list by list.
pub(super) fn validate_container_statuses(new: &Pod, at: &Path, errors: &mut ErrorList) {
    let (none, no_spec) = (PodStatus::default(), PodSpec::default());
    let spec = new.spec.as_ref().unwrap_or(&no_spec);
    let status = new.status.as_ref().unwrap_or(&none);
    let os = spec.os.as_ref().map_or("linux", |os| os.name.as_str());
    let lists = [
        ("containerStatuses", &status.container_statuses),
        ("initContainerStatuses", &status.init_container_statuses),
        (
            "ephemeralContainerStatuses",
            &status.ephemeral_container_statuses,
        ),
    ];
    for (field, statuses) in lists {
        let containers = match field {
            "containerStatuses" => Some(&spec.containers[..]),
            "initContainerStatuses" => Some(items(&spec.init_containers)),
            _ => None,
        };
        let by_name = containers.map(|containers| {
            let named = containers.iter().map(|c| (c.name.as_str(), c));
            named.collect::<BTreeMap<&str, &Container>>()
        });
        for (i, of) in items(statuses).iter().enumerate() {
            let at = at.child(field).index(i);
            let user = of.user.as_ref().and_then(|user| user.linux.as_ref());
            if let Some(user) = user {
                validate_user(user, os, &at.child("user").child("linux"), errors);
            }
            let resources = items(&of.allocated_resources_status);
            let at = at.child("allocatedResourcesStatus");
            let Some(by_name) = &by_name else {
                if !resources.is_empty() {
                    let detail = "must not be specified in container status";
                    errors.push(Error::forbidden(&at, detail));
                }
                continue;
            };
            let container = by_name.get(of.name.as_str()).copied();
            for (j, resource) in resources.iter().enumerate() {
                validate_resource(resource, container, &at.index(j), errors);
            }
        }
    }
}

fn validate_user(user: &LinuxContainerUser, os: &str, at: &Path, errors: &mut ErrorList) {
    match os {
        "windows" => errors.push(Error::forbidden(at, "cannot be set for a windows pod")),
        "linux" => {
            // Runtimes report any ID that Linux has.
            if u32::try_from(user.uid).is_err() {
                let detail = format!("must be between 0 and {}, inclusive", u32::MAX);
                errors.push(Error::invalid(&at.child("uid"), user.uid, detail));
            }
            validate_id(Some(user.gid), &at.child("gid"), errors);
            let groups_at = at.child("supplementalGroups");
            for (i, group) in items(&user.supplemental_groups).iter().enumerate() {
                validate_id(Some(*group), &groups_at.index(i), errors);
            }
        }
        _ => {}
    }
}

fn validate_resource(
    resource: &ResourceStatus,
    container: Option<&Container>,
    at: &Path,
    errors: &mut ErrorList,
) {
    // A claim may also stand for an extended resource, which the status of the Pod says.
    let is_claim = resource.name.starts_with("claim:");
    if let Some(container) = container.filter(|_| !is_claim) {
        let given = container.resources.as_ref();
        let requests = given.and_then(|given| given.requests.as_ref());
        if !requests.is_some_and(|requests| requests.contains_key(&resource.name)) {
            let detail = "must match one of the container's resource requests";
            let name = resource.name.as_str();
            errors.push(Error::invalid(&at.child("name"), name, detail));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, health) in items(&resource.resources).iter().enumerate() {
        let at = at.child("resources").index(i);
        let word = text(&health.health);
        if !HEALTHS.contains(&word) {
            errors.push(Error::not_supported(&at.child("health"), word, HEALTHS));
        }
        match health.message.as_deref() {
            Some("") => {
                let detail = "must be non-empty if specified";
                errors.push(Error::required(&at.child("message"), detail));
            }
            Some(message) if message.len() > MAX_HEALTH_MESSAGE => {
                errors.push(Error::too_long(&at.child("message"), MAX_HEALTH_MESSAGE));
            }
            _ => {}
        }
        let id = health.resource_id.as_str();
        if !seen.insert(id) {
            errors.push(Error::duplicate(&at.child("resourceID"), id));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn what_is_said_of_containers() {
        let said = |resource: &str, id: &str| json!({"name": resource, "resources": [{"resourceID": id, "health": "Healthy"}, {"resourceID": "b", "health": "Odd"}]});
        let table: Vec<(&str, Value, Vec<&str>)> = vec![
            (
                "linux",
                json!({"containerStatuses": [{"name": "c", "user": {"linux": {"uid": 4_294_967_295_u32, "gid": -1}}}]}),
                vec![
                    "status.containerStatuses[0].user.linux.gid FieldValueInvalid must be between",
                ],
            ),
            (
                "windows",
                json!({"initContainerStatuses": [{"name": "i", "user": {"linux": {"uid": 0, "gid": 0}}}]}),
                vec![
                    "status.initContainerStatuses[0].user.linux FieldValueForbidden cannot be set",
                ],
            ),
            (
                "linux",
                json!({"containerStatuses": [{"name": "c", "allocatedResourcesStatus": [said("cpu", "a"), said("a.b/c", "b")]}]}),
                vec![
                    "status.containerStatuses[0].allocatedResourcesStatus[0].resources[1].health FieldValueNotSupported",
                    "status.containerStatuses[0].allocatedResourcesStatus[1].name FieldValueInvalid must match one of",
                    "status.containerStatuses[0].allocatedResourcesStatus[1].resources[1].health FieldValueNotSupported",
                    "status.containerStatuses[0].allocatedResourcesStatus[1].resources[1].resourceID FieldValueDuplicate",
                ],
            ),
            (
                "linux",
                json!({"ephemeralContainerStatuses": [{"name": "e", "allocatedResourcesStatus": [said("cpu", "a")]}]}),
                vec![
                    "status.ephemeralContainerStatuses[0].allocatedResourcesStatus FieldValueForbidden must not",
                ],
            ),
        ];
        for (os, status, want) in table {
            let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
            let spec = json!({"os": {"name": os}, "containers": [container]});
            let pod = json!({"metadata": {}, "spec": spec, "status": status});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let mut errors = ErrorList::default();
            validate_container_statuses(&pod, &Path::new("status"), &mut errors);
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn addresses_mean_one_thing() {
        let status = |ips: Value| -> PodStatus {
            serde_json::from_value(json!({"podIP": "x", "podIPs": ips})).unwrap()
        };
        let (old, new) = (
            status(json!([{"ip": "010.0.0.2"}])),
            status(json!([{"ip": "010.0.0.1"}])),
        );
        let want = "status.podIPs[0] FieldValueInvalid must not have leading 0s";
        let two = status(json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]));
        let more = "status.podIPs FieldValueInvalid may specify no more than one IP";
        for (new, old, want) in [
            (&new, &old, vec![want]),
            (&old, &old, vec![]),
            (&two, &old, vec![more]),
        ] {
            let mut errors = ErrorList::default();
            validate_addresses(new, old, &Path::new("status"), &mut errors);
            assert_causes(&errors, &want);
        }
    }
}
