//! What is claimed: requests for devices, constraints between them, and their configuration.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names::dns_subdomain;
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClaimConfiguration, DeviceConstraint, DeviceRequest, DeviceSelector,
    DeviceToleration, OpaqueDeviceConfiguration, ResourceClaimSpec,
};

use super::names::{validate_driver, validate_fully_qualified, validate_label};
use super::taint::validate_toleration;
use super::{at_most, unique, validate_raw};
use crate::validation::cel::{self, Environment, Type};
use crate::validation::{NOT_POSITIVE, faults, items};

const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
pub(super) const MAX_CONFIGURATIONS: usize = 32;
const MAX_CHOICES: usize = 8;
const MAX_SELECTORS: usize = 32;
const MAX_TOLERATIONS: usize = 16;
/// Bytes of one expression.
const MAX_EXPRESSION: usize = 10 * 1024;
/// Bytes of what a driver is given as it is.
const MAX_PARAMETERS: usize = 10 * 1024;
const MODES: &[&str] = &["All", "ExactCount"];
const ONE_SORT: &str = "exactly one of `exactly` or `firstAvailable` is required";
const NAMES_NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Names of requests, each with those of the requests among which it lets choose.
pub(super) struct Requests<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Requests<'a> {
    pub(super) fn of(claim: &'a DeviceClaim) -> Self {
        let requests = items(&claim.requests).iter();
        let requests = requests.map(|request| {
            let choices = items(&request.first_available).iter();
            (
                &*request.name,
                choices.map(|choice| &*choice.name).collect(),
            )
        });
        Self(requests.collect())
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, choice)) => self
                .0
                .get(request)
                .is_some_and(|choices| choices.contains(choice)),
        }
    }

    /// The name of a request, or of one of its choices.
    pub(super) fn validate_name(&self, name: &str, at: &Path, errors: &mut ErrorList) {
        if name.split('/').count() > 2 {
            errors.push(Error::invalid(at, name, NAMES_NO_REQUEST));
            return;
        }
        for segment in name.split('/') {
            validate_label(segment, at, errors);
        }
        if !self.has(name) {
            errors.push(Error::invalid(at, name, NAMES_NO_REQUEST));
        }
    }

    /// The requests that something is about; all where it names none.
    pub(super) fn validate_names(&self, names: &[String], at: &Path, errors: &mut ErrorList) {
        if !at_most(names, MAX_REQUESTS, at, errors) {
            return;
        }
        for (i, name) in names.iter().enumerate() {
            self.validate_name(name, &at.index(i), errors);
        }
        unique(names, |name| name, |name| name.as_str().into(), at, errors);
    }
}

/// The spec of a claim.
pub(crate) fn validate_claim_spec(spec: &ResourceClaimSpec, at: &Path, errors: &mut ErrorList) {
    let none = DeviceClaim::default();
    let claim = spec.devices.as_ref().unwrap_or(&none);
    let at = at.child("devices");
    let names = Requests::of(claim);
    let (requests, requests_at) = (items(&claim.requests), at.child("requests"));
    if at_most(requests, MAX_REQUESTS, &requests_at, errors) {
        for (i, request) in requests.iter().enumerate() {
            validate_request(request, &requests_at.index(i), errors);
        }
        unique(
            requests,
            |r| &r.name,
            |r| r.name.as_str().into(),
            &requests_at,
            errors,
        );
    }
    let (constraints, constraints_at) = (items(&claim.constraints), at.child("constraints"));
    if at_most(constraints, MAX_CONSTRAINTS, &constraints_at, errors) {
        for (i, constraint) in constraints.iter().enumerate() {
            validate_constraint(constraint, &names, &constraints_at.index(i), errors);
        }
    }
    let (config, config_at) = (items(&claim.config), at.child("config"));
    if at_most(config, MAX_CONFIGURATIONS, &config_at, errors) {
        for (i, config) in config.iter().enumerate() {
            validate_configuration(config, &names, &config_at.index(i), errors);
        }
    }
}

fn validate_request(request: &DeviceRequest, at: &Path, errors: &mut ErrorList) {
    validate_label(&request.name, &at.child("name"), errors);
    let (choices, choices_at) = (items(&request.first_available), at.child("firstAvailable"));
    match &request.exactly {
        None if choices.is_empty() => errors.push(Error::required(at, ONE_SORT)),
        Some(_) if !choices.is_empty() => {
            let detail = format!("{ONE_SORT}, but multiple fields are set");
            errors.push(Error::invalid(at, serde_json::Value::Null, detail));
        }
        Some(exactly) => {
            let wanted = Wanted {
                class: &exactly.device_class_name,
                selectors: items(&exactly.selectors),
                mode: exactly.allocation_mode.as_deref(),
                count: exactly.count,
                tolerations: items(&exactly.tolerations),
            };
            wanted.validate(&at.child("exactly"), errors);
        }
        None => {
            if !at_most(choices, MAX_CHOICES, &choices_at, errors) {
                return;
            }
            for (i, choice) in choices.iter().enumerate() {
                let at = choices_at.index(i);
                validate_label(&choice.name, &at.child("name"), errors);
                let wanted = Wanted {
                    class: &choice.device_class_name,
                    selectors: items(&choice.selectors),
                    mode: choice.allocation_mode.as_deref(),
                    count: choice.count,
                    tolerations: items(&choice.tolerations),
                };
                wanted.validate(&at, errors);
            }
            unique(
                choices,
                |c| &c.name,
                |c| c.name.as_str().into(),
                &choices_at,
                errors,
            );
        }
    }
}

/// What a request and the choices of a request have in common.
struct Wanted<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: Option<&'a str>,
    count: Option<i64>,
    tolerations: &'a [DeviceToleration],
}

impl Wanted<'_> {
    fn validate(&self, at: &Path, errors: &mut ErrorList) {
        let class_at = at.child("deviceClassName");
        if self.class.is_empty() {
            errors.push(Error::required(&class_at, ""));
        } else {
            faults(self.class, dns_subdomain(self.class), &class_at, errors);
        }
        validate_selectors(self.selectors, false, &at.child("selectors"), errors);
        self.validate_count(at, errors);
        let tolerations_at = at.child("tolerations");
        if at_most(self.tolerations, MAX_TOLERATIONS, &tolerations_at, errors) {
            for (i, toleration) in self.tolerations.iter().enumerate() {
                validate_toleration(toleration, &tolerations_at.index(i), errors);
            }
        }
    }

    fn validate_count(&self, at: &Path, errors: &mut ErrorList) {
        let count = self.count.unwrap_or_default();
        let (mode_at, count_at) = (at.child("allocationMode"), at.child("count"));
        match self.mode.unwrap_or_default() {
            "All" if count != 0 => {
                let detail = "must not be specified when allocationMode is 'All'";
                errors.push(Error::invalid(&count_at, count, detail));
            }
            "All" => {}
            "ExactCount" if count <= 0 => {
                errors.push(Error::invalid(&count_at, count, NOT_POSITIVE));
            }
            "ExactCount" => {}
            mode => errors.push(Error::not_supported(&mode_at, mode, MODES)),
        }
    }
}

/// Selectors of devices, of which all have to match. Those that are `stored` were compiled once.
pub(super) fn validate_selectors(
    selectors: &[DeviceSelector],
    stored: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    if !at_most(selectors, MAX_SELECTORS, at, errors) {
        return;
    }
    for (i, selector) in selectors.iter().enumerate() {
        let at = at.index(i).child("cel");
        match &selector.cel {
            None => errors.push(Error::required(&at, "")),
            Some(_) if stored => {}
            Some(cel) => {
                let at = at.child("expression");
                if let Some(error) = fault_of_selector(&cel.expression, &at) {
                    errors.push(error);
                }
            }
        }
    }
}

fn fault_of_selector(expression: &str, at: &Path) -> Option<Error> {
    if expression.len() > MAX_EXPRESSION {
        return Some(Error::too_long(at, MAX_EXPRESSION));
    }
    let fault = match cel::compile(expression, &Environment::device()) {
        // An attribute may be the answer: only its value tells whether it is one.
        Ok(Type::Bool | Type::Any) => return None,
        Ok(other) => format!("must evaluate to bool or the unknown type, not {other}"),
        Err(fault) => fault,
    };
    Some(Error::invalid(at, expression, fault))
}

fn validate_constraint(
    constraint: &DeviceConstraint,
    names: &Requests<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let requests = items(&constraint.requests);
    names.validate_names(requests, &at.child("requests"), errors);
    let attributes = [
        ("matchAttribute", &constraint.match_attribute),
        ("distinctAttribute", &constraint.distinct_attribute),
    ];
    // Kubernetes takes both at once: the first counts.
    for (field, name) in attributes {
        if let Some(name) = name {
            validate_fully_qualified(name, &at.child(field), errors);
        }
    }
    if attributes.iter().all(|(_, name)| name.is_none()) {
        let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.push(Error::required(at, detail));
    }
}

fn validate_configuration(
    config: &DeviceClaimConfiguration,
    names: &Requests<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    names.validate_names(items(&config.requests), &at.child("requests"), errors);
    validate_opaque(config.opaque.as_ref(), false, at, errors);
}

/// The configuration of a device that its driver understands.
pub(super) fn validate_opaque(
    config: Option<&OpaqueDeviceConfiguration>,
    stored: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    let at = at.child("opaque");
    let Some(config) = config else {
        errors.push(Error::required(&at, ""));
        return;
    };
    validate_driver(&config.driver, &at.child("driver"), errors);
    let parameters_at = at.child("parameters");
    validate_raw(
        &config.parameters,
        stored,
        MAX_PARAMETERS,
        &parameters_at,
        errors,
    );
}
