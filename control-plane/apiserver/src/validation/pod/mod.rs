//! Pods and templates of Pods: what a spec may say, by subject.

pub(crate) mod container;
pub(crate) mod env;
pub(crate) mod resize;
pub(crate) mod template;
pub(crate) mod update;
pub(crate) mod warnings;

mod annotations;
mod claims;
mod dns;
mod probe;
mod profiles;
mod security;
mod statuses;
mod windows;

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::resources as requests;
use k8s_openapi::api::core::v1::{
    PodReadinessGate, PodSchedulingGate, PodSpec, ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::claims::validate_resource_claims;
use self::container::{
    Known, validate_containers, validate_ephemeral_containers, validate_init_containers,
};
use self::security::validate_pod_security_context;
use super::labels::validate_labels;
use super::resources::{Claims, validate_overhead, validate_pod_requirements};
use super::scheduling::spread::validate_topology_spread;
use super::scheduling::taints::validate_tolerations;
use super::scheduling::validate_affinity;
use super::volume::validate_volumes;
use super::{faults, items, one_of, text};

pub(crate) use annotations::{validate_pod_annotation_update, validate_pod_annotations};
pub(crate) use profiles::{set_profiles, validate_same_profiles};
pub(crate) use security::validate_id;

/// Everything that is wrong with a spec. `pod` is the metadata of the Pod whose spec it is, none
/// where it is that of a template.
pub(crate) fn validate_spec(
    spec: &PodSpec,
    pod: Option<&ObjectMeta>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(Error::required(
            &at.child("terminationGracePeriodSeconds"),
            "",
        ));
    }
    // What a container says of a volume that is not valid, it says of none.
    let volumes = validate_volumes(items(&spec.volumes), pod, &at.child("volumes"), errors);
    validate_resource_claims(
        items(&spec.resource_claims),
        &at.child("resourceClaims"),
        errors,
    );
    let known = Known {
        volumes,
        claims: Claims::of(items(&spec.resource_claims)),
    };
    validate_containers(spec, &known, &at.child("containers"), errors);
    validate_init_containers(spec, &known, &at.child("initContainers"), errors);
    let ephemeral_at = at.child("ephemeralContainers");
    validate_ephemeral_containers(spec, &known, &ephemeral_at, errors);
    if let Some(resources) = &spec.resources {
        let at = at.child("resources");
        if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
            errors.push(Error::forbidden(&at, "may not be set for a windows pod"));
        } else {
            validate_pod_resources(spec, resources, &known.claims, &at, errors);
        }
    }
    validate_host_ports(spec, pod.is_some(), &at.child("containers"), errors);
    let restart = text(&spec.restart_policy);
    one_of(
        restart,
        &["Always", "OnFailure", "Never"],
        &at.child("restartPolicy"),
        errors,
    );
    dns::validate_dns(spec, at, errors);
    validate_labels(
        spec.node_selector.as_ref(),
        &at.child("nodeSelector"),
        errors,
    );
    if let Some(context) = &spec.security_context {
        validate_pod_security_context(context, spec, &at.child("securityContext"), errors);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        let at = at.child("shareProcessNamespace");
        errors.push(Error::invalid(&at, true, detail));
    }
    if let Some(affinity) = &spec.affinity {
        validate_affinity(affinity, &at.child("affinity"), errors);
    }
    validate_readiness_gates(
        items(&spec.readiness_gates),
        &at.child("readinessGates"),
        errors,
    );
    validate_scheduling_gates(
        items(&spec.scheduling_gates),
        &at.child("schedulingGates"),
        errors,
    );
    let spread = items(&spec.topology_spread_constraints);
    validate_topology_spread(spread, &at.child("topologySpreadConstraints"), errors);
    windows::validate_host_process(spec, at, errors);
    validate_host_users(spec, at, errors);
    validate_references(spec, at, errors);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(Error::invalid(
            &at.child("activeDeadlineSeconds"),
            seconds,
            detail,
        ));
    }
    dns::validate_hostnames(spec, at, errors);
    validate_tolerations(items(&spec.tolerations), &at.child("tolerations"), errors);
    dns::validate_host_aliases(items(&spec.host_aliases), &at.child("hostAliases"), errors);
    if let Some(policy) = &spec.preemption_policy {
        one_of(
            policy,
            &["PreemptLowerPriority", "Never"],
            &at.child("preemptionPolicy"),
            errors,
        );
    }
    if let Some(overhead) = &spec.overhead {
        validate_overhead(overhead, &at.child("overhead"), errors);
    }
    windows::validate_os(spec, at, errors);
}

/// What holds for the spec of a Pod, but not for that of a template.
pub(crate) fn validate_pod_only(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    if text(&spec.service_account_name).is_empty() {
        for (v, volume) in items(&spec.volumes).iter().enumerate() {
            let sources = volume
                .projected
                .as_ref()
                .map(|p| items(&p.sources))
                .unwrap_or_default();
            let at = at
                .child("volumes")
                .index(v)
                .child("projected")
                .child("sources");
            for (s, _) in sources
                .iter()
                .enumerate()
                .filter(|(_, s)| s.service_account_token.is_some())
            {
                let detail = "must not be specified when serviceAccountName is not set";
                errors.push(Error::forbidden(
                    &at.index(s).child("serviceAccountToken"),
                    detail,
                ));
            }
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        container::validate_image_padding(container, &at.child("containers").index(i), errors);
    }
    for (i, container) in items(&spec.init_containers).iter().enumerate() {
        container::validate_image_padding(container, &at.child("initContainers").index(i), errors);
    }
}

/// Visits the security context of every container, with the container's path.
fn each_container(
    spec: &PodSpec,
    at: &Path,
    mut visit: impl FnMut(Option<&SecurityContext>, &Path),
) {
    let lists = [
        ("initContainers", items(&spec.init_containers)),
        ("containers", &spec.containers[..]),
    ];
    for (field, containers) in lists {
        let at = at.child(field);
        for (i, container) in containers.iter().enumerate() {
            visit(container.security_context.as_ref(), &at.index(i));
        }
    }
    let at = at.child("ephemeralContainers");
    for (i, container) in items(&spec.ephemeral_containers).iter().enumerate() {
        visit(container.security_context.as_ref(), &at.index(i));
    }
}

/// Names of other objects.
fn validate_references(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let names = [
        ("serviceAccountName", text(&spec.service_account_name)),
        ("nodeName", text(&spec.node_name)),
        ("priorityClassName", text(&spec.priority_class_name)),
    ];
    for (field, name) in names.into_iter().filter(|(_, name)| !name.is_empty()) {
        faults(name, names::dns_subdomain(name), &at.child(field), errors);
    }
    if let Some(name) = &spec.runtime_class_name {
        faults(
            name,
            names::dns_subdomain(name),
            &at.child("runtimeClassName"),
            errors,
        );
    }
}

/// The resources of a Pod as a whole: valid, and enough for its containers.
fn validate_pod_resources(
    spec: &PodSpec,
    resources: &ResourceRequirements,
    claims: &Claims<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_pod_requirements(resources, claims, at, errors);
    let own = requests::parse(resources.requests.as_ref());
    let without = PodSpec {
        resources: None,
        overhead: None,
        ..spec.clone()
    };
    // What is not said of a template is filled in for the Pod.
    for (name, sum) in requests::pod_requests(&without) {
        if let Some(request) = own.get(&name).filter(|request| sum > **request) {
            let detail =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            let at = at.child("requests").key(&name);
            errors.push(Error::invalid(&at, request.to_string(), detail));
        }
    }
    let limits = requests::parse(resources.limits.as_ref());
    for (name, sum) in requests::pod_limits(&without) {
        let huge = super::resources::is_huge_pages(&name);
        if let Some(limit) = limits.get(&name).filter(|limit| huge && sum > **limit) {
            let detail =
                format!("must be greater than or equal to aggregate container limits of {sum}");
            let at = at.child("limits").key(&name);
            errors.push(Error::invalid(&at, limit.to_string(), detail));
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let own = container
            .resources
            .as_ref()
            .and_then(|resources| resources.limits.as_ref());
        for (name, limit) in requests::parse(own) {
            if let Some(pod) = limits.get(&name).filter(|pod| limit > **pod) {
                let at = at.child("containers").index(i).key(&name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {pod}");
                errors.push(Error::invalid(&at, limit.to_string(), detail));
            }
        }
    }
}

/// On the host's network a port of a container is one of the host.
fn validate_host_ports(spec: &PodSpec, is_pod: bool, at: &Path, errors: &mut ErrorList) {
    if spec.host_network != Some(true) {
        return;
    }
    for (c, container) in spec.containers.iter().enumerate() {
        for (p, port) in items(&container.ports).iter().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if (is_pod || host_port != 0) && host_port != port.container_port {
                let at = at.index(c).child("ports").index(p).child("hostPort");
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&at, host_port, detail));
            }
        }
    }
}

fn validate_readiness_gates(gates: &[PodReadinessGate], at: &Path, errors: &mut ErrorList) {
    for (i, gate) in gates.iter().enumerate() {
        let at = at.index(i).child("conditionType");
        faults(
            &gate.condition_type,
            names::qualified_name(&gate.condition_type),
            &at,
            errors,
        );
    }
}

fn validate_scheduling_gates(gates: &[PodSchedulingGate], at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let idx = at.index(i);
        faults(&gate.name, names::qualified_name(&gate.name), &idx, errors);
        if !seen.insert(&gate.name) {
            errors.push(Error::duplicate(&idx, gate.name.as_str()));
        }
    }
}

/// Why something is refused beside `hostUsers: false`.
const HOST_USERS: &str = "when `hostUsers` is false";

/// A Pod with users of its own shares no other namespace with the host, and has no devices of
/// volumes, whose IDs cannot be mapped (KEP-127).
fn validate_host_users(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [
        ("hostNetwork", spec.host_network),
        ("HostPID", spec.host_pid),
        ("HostIPC", spec.host_ipc),
    ];
    for (field, set) in shared {
        if set == Some(true) {
            errors.push(Error::forbidden(&at.child(field), HOST_USERS));
        }
    }
    let lists = [
        ("initContainers", spec.init_containers.as_deref()),
        ("containers", Some(spec.containers.as_slice())),
    ];
    for (field, containers) in lists {
        let at = at.child(field);
        for (i, container) in containers.unwrap_or_default().iter().enumerate() {
            if !items(&container.volume_devices).is_empty() {
                let at = at.index(i).child("volumeDevices");
                errors.push(Error::forbidden(&at, HOST_USERS));
            }
        }
    }
    let at = at.child("ephemeralContainers");
    for (i, container) in items(&spec.ephemeral_containers).iter().enumerate() {
        if !items(&container.volume_devices).is_empty() {
            let at = at.index(i).child("volumeDevices");
            errors.push(Error::forbidden(&at, HOST_USERS));
        }
    }
}
