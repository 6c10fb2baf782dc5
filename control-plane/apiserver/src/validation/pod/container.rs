//! Containers: regular, init (and the sidecars among them), ephemeral.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    Container, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, PodSpec,
};

use super::env::{validate_env, validate_env_from};
use super::probe::validate_probes;
use super::security::validate_security_context;
use crate::validation::port::{validate_container_ports, validate_host_port_conflicts};
use crate::validation::resources::{Claims, validate_container_requirements};
use crate::validation::volume::Volumes;
use crate::validation::volume::mount::{validate_devices, validate_mounts};
use crate::validation::{faults, items, one_of, text};

/// Values of imagePullPolicy.
pub(crate) const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
/// Rules that a container may have, and exit codes that a rule may name.
const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// What of a Pod its containers may name.
pub(super) struct Known<'a> {
    pub(super) volumes: Volumes<'a>,
    pub(super) claims: Claims<'a>,
}

/// The regular containers: at least one, with names of their own and host ports of their own.
pub(super) fn validate_containers(
    spec: &PodSpec,
    known: &Known<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if spec.containers.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let idx = at.index(i);
        validate_common(container, spec, known, &idx, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(
                &idx.child("name"),
                container.name.as_str(),
            ));
        }
        validate_probes(
            container,
            spec.termination_grace_period_seconds,
            &idx,
            errors,
        );
        validate_restart(container, &idx, errors);
    }
    validate_host_port_conflicts(&spec.containers, at, errors);
}

/// The init containers. Those that restart always run beside the regular ones, and so may have
/// probes and hooks.
pub(super) fn validate_init_containers(
    spec: &PodSpec,
    known: &Known<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let containers = items(&spec.init_containers);
    let regular = spec.containers.iter();
    let mut names: BTreeSet<&str> = regular.map(|other| other.name.as_str()).collect();
    for (i, container) in containers.iter().enumerate() {
        let idx = at.index(i);
        validate_common(container, spec, known, &idx, errors);
        validate_init_restart(container, &idx, errors);
        if !names.insert(&container.name) {
            errors.push(Error::duplicate(
                &idx.child("name"),
                container.name.as_str(),
            ));
        }
        // They run one by one: only within one can host ports collide.
        validate_host_port_conflicts(std::slice::from_ref(container), at, errors);
        if is_sidecar(container) {
            validate_probes(
                container,
                spec.termination_grace_period_seconds,
                &idx,
                errors,
            );
            continue;
        }
        let forbidden = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, set) in forbidden {
            if set {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&idx.child(field), detail));
            }
        }
        // It runs once: a resize would restart what is done.
        for (j, policy) in items(&container.resize_policy).iter().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let at = idx.child("resizePolicy").index(j).child("restartPolicy");
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.push(Error::invalid(&at, "RestartContainer", detail));
            }
        }
    }
}

/// The containers that were added to a running Pod.
pub(super) fn validate_ephemeral_containers(
    spec: &PodSpec,
    known: &Known<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let containers = items(&spec.ephemeral_containers);
    let others = spec.containers.iter().chain(items(&spec.init_containers));
    let others: BTreeSet<&str> = others.map(|other| other.name.as_str()).collect();
    let mut taken = others.clone();
    for (i, ephemeral) in containers.iter().enumerate() {
        let idx = at.index(i);
        let container = as_container(ephemeral);
        validate_common(&container, spec, known, &idx, errors);
        validate_image_padding(&container, &idx, errors);
        if !taken.insert(&ephemeral.name) {
            errors.push(Error::duplicate(
                &idx.child("name"),
                ephemeral.name.as_str(),
            ));
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&idx.child("targetContainerName"), target));
        }
        validate_ephemeral_fields(ephemeral, &idx, errors);
    }
}

/// Whether an init container runs as long as the regular ones do.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    text(&container.restart_policy) == "Always"
}

/// What holds for the image of a Pod, but not of a template, where it may be filled in later.
pub(crate) fn validate_image_padding(container: &Container, at: &Path, errors: &mut ErrorList) {
    let image = text(&container.image);
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(Error::invalid(&at.child("image"), image, detail));
    }
}

fn validate_common(
    container: &Container,
    spec: &PodSpec,
    known: &Known<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if container.name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else {
        faults(
            &container.name,
            names::dns_label(&container.name),
            &at.child("name"),
            errors,
        );
    }
    if text(&container.image).is_empty() {
        errors.push(Error::required(&at.child("image"), ""));
    }
    let policy = text(&container.termination_message_policy);
    let policy_at = at.child("terminationMessagePolicy");
    one_of(
        policy,
        &["File", "FallbackToLogsOnError"],
        &policy_at,
        errors,
    );
    validate_container_ports(items(&container.ports), &at.child("ports"), errors);
    let volumes = &known.volumes;
    validate_env(items(&container.env), volumes, &at.child("env"), errors);
    validate_env_from(items(&container.env_from), &at.child("envFrom"), errors);
    validate_mounts(container, volumes, &at.child("volumeMounts"), errors);
    validate_devices(container, volumes, &at.child("volumeDevices"), errors);
    let pull = text(&container.image_pull_policy);
    one_of(pull, PULL_POLICIES, &at.child("imagePullPolicy"), errors);
    if let Some(requirements) = &container.resources {
        let at = at.child("resources");
        validate_container_requirements(requirements, &known.claims, &at, errors);
    }
    let pod_restart = text(&spec.restart_policy);
    validate_resize(
        items(&container.resize_policy),
        pod_restart,
        &at.child("resizePolicy"),
        errors,
    );
    if let Some(context) = &container.security_context {
        let host_users = spec.host_users.unwrap_or(true);
        validate_security_context(context, host_users, &at.child("securityContext"), errors);
    }
}

const RULES_WITHOUT_POLICY: &str = "must specify restartPolicy when restart rules are used";

/// Rules of an init container without a policy are not looked at.
fn validate_init_restart(container: &Container, at: &Path, errors: &mut ErrorList) {
    if container.restart_policy.is_some() {
        validate_restart(container, at, errors);
    } else if !items(&container.restart_policy_rules).is_empty() {
        let at = at.child("restartPolicy");
        errors.push(Error::required(&at, RULES_WITHOUT_POLICY));
    }
}

fn validate_restart(container: &Container, at: &Path, errors: &mut ErrorList) {
    let rules = items(&container.restart_policy_rules);
    match container.restart_policy.as_deref() {
        None if !rules.is_empty() => {
            let at = at.child("restartPolicy");
            errors.push(Error::required(&at, RULES_WITHOUT_POLICY));
        }
        Some(policy) if !RESTART_POLICIES.contains(&policy) => {
            errors.push(Error::not_supported(
                &at.child("restartPolicy"),
                policy,
                RESTART_POLICIES,
            ));
        }
        _ => {}
    }
    let at = at.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(Error::too_many(&at, rules.len(), MAX_RESTART_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        validate_restart_rule(rule, &at.index(i), errors);
    }
}

fn validate_restart_rule(rule: &ContainerRestartRule, at: &Path, errors: &mut ErrorList) {
    let actions = &["Restart", "RestartAllContainers"];
    if !actions.contains(&rule.action.as_str()) {
        let at = at.child("action");
        errors.push(Error::not_supported(&at, &*rule.action, actions));
    }
    let at = at.child("exitCodes");
    let Some(codes) = &rule.exit_codes else {
        errors.push(Error::required(&at, "must be specified"));
        return;
    };
    let operators = &["In", "NotIn"];
    if !operators.contains(&codes.operator.as_str()) {
        let at = at.child("operator");
        errors.push(Error::not_supported(&at, &*codes.operator, operators));
    }
    let values = items(&codes.values).len();
    if values > MAX_EXIT_CODES {
        errors.push(Error::too_many(&at.child("values"), values, MAX_EXIT_CODES));
    }
}

fn validate_resize(
    policies: &[ContainerResizePolicy],
    pod_restart: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        let (name, restart) = (
            policy.resource_name.as_str(),
            policy.restart_policy.as_str(),
        );
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at.index(i), name));
        }
        one_of(name, &["cpu", "memory"], at, errors);
        one_of(restart, &["NotRequired", "RestartContainer"], at, errors);
        if pod_restart == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(at, restart, detail));
        }
    }
}

fn validate_ephemeral_fields(container: &EphemeralContainer, at: &Path, errors: &mut ErrorList) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    let resources = container
        .resources
        .as_ref()
        .is_some_and(|resources| *resources != Default::default());
    let forbidden = [
        // An empty list is one that was set.
        ("ports", container.ports.is_some()),
        ("resources", resources),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        (
            "restartPolicyRules",
            container.restart_policy_rules.is_some(),
        ),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    for (field, set) in forbidden {
        if set {
            errors.push(Error::forbidden(&at.child(field), DETAIL));
        }
    }
    let mounts_at = at.child("volumeMounts");
    for (i, mount) in items(&container.volume_mounts).iter().enumerate() {
        for (field, path) in [
            ("subPath", &mount.sub_path),
            ("subPathExpr", &mount.sub_path_expr),
        ] {
            if !text(path).is_empty() {
                errors.push(Error::forbidden(&mounts_at.index(i).child(field), DETAIL));
            }
        }
    }
}

/// An ephemeral container by the rules of others. Probes, hooks and restarts, which are forbidden,
/// Kubernetes does not look into.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        ports: ephemeral.ports.clone(),
        resources: ephemeral.resources.clone(),
        resize_policy: ephemeral.resize_policy.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        volume_devices: ephemeral.volume_devices.clone(),
        security_context: ephemeral.security_context.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        ..Container::default()
    }
}
