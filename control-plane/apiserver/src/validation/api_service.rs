//! Which group-versions of the API there are, and who serves them.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIServiceCondition, APIServiceSpec, ServiceReference,
};

use super::{faults, one_of, text};

const MAX_GROUP_PRIORITY: i32 = 20_000;
const MAX_VERSION_PRIORITY: i32 = 1000;

/// The spec of the APIService of this name, which is that of its version and group.
pub(crate) fn validate_api_service(spec: &APIServiceSpec, name: &str, errors: &mut ErrorList) {
    let (group, version) = (text(&spec.group), text(&spec.version));
    let required = format!("{version}.{group}");
    if name != required {
        let at = Path::new("metadata").child("name");
        let detail = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
        errors.push(Error::invalid(&at, name, detail));
    }
    let at = Path::new("spec");
    if !group.is_empty() {
        faults(
            group,
            names::dns_subdomain(group),
            &at.child("group"),
            errors,
        );
    } else if version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.push(Error::required(&at.child("group"), detail));
    }
    let wrong = names::dns1035_label(version);
    faults(version, wrong, &at.child("version"), errors);
    for (field, priority, max) in [
        (
            "groupPriorityMinimum",
            spec.group_priority_minimum,
            MAX_GROUP_PRIORITY,
        ),
        (
            "versionPriority",
            spec.version_priority,
            MAX_VERSION_PRIORITY,
        ),
    ] {
        if !(1..=max).contains(&priority) {
            let detail = format!("must be positive and less than {max}");
            errors.push(Error::invalid(&at.child(field), priority, detail));
        }
    }
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    let insecure_at = at.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let detail = "local APIServices may not have a caBundle";
            let shown = format!("{bundle} bytes");
            errors.push(Error::invalid(&at.child("caBundle"), shown, detail));
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(Error::invalid(&insecure_at, true, detail));
        }
        return;
    };
    validate_service(service, &at.child("service"), errors);
    if insecure && bundle > 0 {
        let detail = "may not be true if caBundle is present";
        errors.push(Error::invalid(&insecure_at, true, detail));
    }
}

fn validate_service(service: &ServiceReference, at: &Path, errors: &mut ErrorList) {
    for (field, value) in [("namespace", &service.namespace), ("name", &service.name)] {
        if text(value).is_empty() {
            errors.push(Error::required(&at.child(field), ""));
        }
    }
    let port = service.port.unwrap_or_default();
    for fault in names::port_number(port) {
        let detail = format!("port is not valid: {fault}");
        errors.push(Error::invalid(&at.child("port"), port, detail));
    }
}

/// The states of conditions.
pub(crate) fn validate_conditions(conditions: &[APIServiceCondition], errors: &mut ErrorList) {
    for (i, condition) in conditions.iter().enumerate() {
        let at = Path::new("status").child("conditions").index(i);
        let states = &["False", "True", "Unknown"];
        one_of(&condition.status, states, &at.child("status"), errors);
    }
}
