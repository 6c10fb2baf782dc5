//! What an update of a Pod may change: little, and its status only forward.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStatus, NodeAffinity, NodeSelectorTerm, Pod,
    PodSchedulingGate, PodSpec, PodStatus, Toleration,
};

use super::claims::validate_claim_statuses;
use super::container::is_sidecar;
use super::statuses::{validate_addresses, validate_container_statuses};
use crate::validation::equality::semantic;
use crate::validation::scheduling::taints::validate_tolerations;
use crate::validation::{IMMUTABLE, faults, items, shown, text};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What an update of a Pod's spec may not change.
pub(crate) fn validate_spec_update(
    new: &PodSpec,
    old: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let lists = [
        ("containers", &new.containers[..], &old.containers[..]),
        (
            "initContainers",
            items(&new.init_containers),
            items(&old.init_containers),
        ),
    ];
    for (field, new, old) in lists {
        if new.len() != old.len() {
            let detail = "pod updates may not add or remove containers";
            errors.push(Error::forbidden(&at.child(field), detail));
            return;
        }
    }
    if !validate_deadline(
        new.active_deadline_seconds,
        old.active_deadline_seconds,
        at,
        errors,
    ) {
        return;
    }
    let (new_tolerations, old_tolerations) = (items(&new.tolerations), items(&old.tolerations));
    validate_added_tolerations(
        new_tolerations,
        old_tolerations,
        &at.child("tolerations"),
        errors,
    );
    let (new_gates, old_gates) = (items(&new.scheduling_gates), items(&old.scheduling_gates));
    validate_removed_gates(new_gates, old_gates, &at.child("schedulingGates"), errors);

    // What may change is made equal; what differs then may not.
    let mut rest = new.clone();
    keep_images(&mut rest.containers, &old.containers);
    keep_images(
        rest.init_containers.as_deref_mut().unwrap_or_default(),
        items(&old.init_containers),
    );
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    let grace = (
        old.termination_grace_period_seconds,
        new.termination_grace_period_seconds,
    );
    if matches!(grace, (Some(..0), Some(1))) {
        rest.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if !old_gates.is_empty() {
        validate_gated_update(&mut rest, old, at, errors);
    }
    if !semantic(&rest, old) {
        let fields = changed_fields(&rest, old);
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\nchanged: {}",
            fields.join(", ")
        );
        errors.push(Error::forbidden(at, detail));
    }
}

/// The members of a spec in which two differ: what a person looks for in the refusal.
fn changed_fields(new: &PodSpec, old: &PodSpec) -> Vec<String> {
    let (new, old) = (shown(new), shown(old));
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return Vec::new();
    };
    let mut fields: Vec<String> = new
        .keys()
        .chain(old.keys())
        .filter(|field| new.get(*field) != old.get(*field))
        .cloned()
        .collect();
    fields.sort();
    fields.dedup();
    fields
}

fn keep_images(containers: &mut [Container], old: &[Container]) {
    for (container, old) in containers.iter_mut().zip(old) {
        container.image.clone_from(&old.image);
    }
}

/// A deadline may be set, and then only come closer. Returns whether it is worth going on.
fn validate_deadline(
    new: Option<i64>,
    old: Option<i64>,
    at: &Path,
    errors: &mut ErrorList,
) -> bool {
    let at = at.child("activeDeadlineSeconds");
    match (new, old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            let detail = "must be between 0 and 2147483647, inclusive";
            errors.push(Error::invalid(&at, new, detail));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.push(Error::invalid(
                &at,
                new,
                "must be less than or equal to previous value",
            ));
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(Error::invalid(&at, serde_json::Value::Null, detail));
            true
        }
        _ => true,
    }
}

fn validate_added_tolerations<'a>(
    new: &'a [Toleration],
    old: &'a [Toleration],
    at: &Path,
    errors: &mut ErrorList,
) {
    // For how long may change.
    let what = |one: &'a Toleration| (&one.key, &one.operator, &one.effect, &one.value);
    let kept: BTreeSet<_> = new.iter().map(what).collect();
    if !old.iter().all(|old| kept.contains(&what(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Error::forbidden(at, detail));
        return;
    }
    validate_tolerations(new, at, errors);
}

fn validate_removed_gates(
    new: &[PodSchedulingGate],
    old: &[PodSchedulingGate],
    at: &Path,
    errors: &mut ErrorList,
) {
    let old: BTreeSet<&str> = old.iter().map(|gate| &*gate.name).collect();
    let added = new.iter().enumerate();
    for (i, gate) in added.filter(|(_, gate)| !old.contains(&*gate.name)) {
        let detail = format!(
            "only deletion is allowed, but found new scheduling gate '{}'",
            gate.name
        );
        errors.push(Error::forbidden(&at.index(i).child("name"), detail));
    }
}

/// Before it is considered for scheduling, a Pod may be tied to fewer nodes, never to more.
fn validate_gated_update(rest: &mut PodSpec, old: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let empty = BTreeMap::new();
    let new_selector = rest.node_selector.as_ref().unwrap_or(&empty);
    let old_selector = old.node_selector.as_ref().unwrap_or(&empty);
    if old_selector
        .iter()
        .any(|(key, value)| new_selector.get(key) != Some(value))
    {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(Error::invalid(
            &at.child("nodeSelector"),
            shown(new_selector),
            detail,
        ));
    }
    rest.node_selector.clone_from(&old.node_selector);

    let old_affinity = old
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.clone());
    let new_affinity = rest
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.clone());
    if new_affinity == old_affinity {
        return;
    }
    let at = at.child("affinity").child("nodeAffinity");
    validate_narrowed(new_affinity.as_ref(), old_affinity.as_ref(), &at, errors);
    let mut affinity = rest.affinity.take().unwrap_or_default();
    affinity.node_affinity = old_affinity;
    rest.affinity = (old.affinity.is_some() || affinity != Default::default()).then_some(affinity);
}

fn validate_narrowed(
    new: Option<&NodeAffinity>,
    old: Option<&NodeAffinity>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let terms = |affinity: Option<&NodeAffinity>| {
        affinity
            .and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            })
            .map(|selector| selector.node_selector_terms)
            .unwrap_or_default()
    };
    let at = at
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    let (new, old) = (terms(new), terms(old));
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(Error::invalid(&at, shown(&new), detail));
        return;
    }
    let narrowed = |new: &NodeSelectorTerm, old: &NodeSelectorTerm| {
        let empty = items(&old.match_expressions).is_empty() && items(&old.match_fields).is_empty();
        let begins = items(&new.match_expressions).starts_with(items(&old.match_expressions))
            && items(&new.match_fields).starts_with(items(&old.match_fields));
        // An empty term matches nothing: whatever replaces it matches more.
        if empty { new == old } else { begins }
    };
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        if !narrowed(new, old) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&at.index(i), shown(new), detail));
        }
    }
}

/// What an update of a Pod's status may not do.
pub(crate) fn validate_status_update(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let at = Path::new("status");
    let (none, no_spec) = (PodStatus::default(), PodSpec::default());
    let new_spec = new.spec.as_ref().unwrap_or(&no_spec);
    let old_spec = old.spec.as_ref().unwrap_or(&no_spec);
    let new_status = new.status.as_ref().unwrap_or(&none);
    let old_status = old.status.as_ref().unwrap_or(&none);
    for (i, condition) in items(&new_status.conditions).iter().enumerate() {
        let at = at.child("conditions").index(i);
        if let Some(generation) = condition.observed_generation.filter(|n| *n < 0) {
            let at = at.child("observedGeneration");
            let detail = "must be a non-negative integer";
            errors.push(Error::invalid(&at, generation, detail));
        }
        faults(
            &condition.type_,
            names::qualified_name(&condition.type_),
            &at.child("Type"),
            errors,
        );
    }
    if let Some(generation) = new_status.observed_generation.filter(|n| *n < 0) {
        let at = at.child("observedGeneration");
        let detail = "must be a non-negative integer";
        errors.push(Error::invalid(&at, generation, detail));
    }
    if text(&new_spec.node_name) != text(&old_spec.node_name) {
        errors.push(Error::forbidden(
            &at.child("nodeName"),
            "may not be changed directly",
        ));
    }
    let nominated = text(&new_status.nominated_node_name);
    if nominated != text(&old_status.nominated_node_name) && !nominated.is_empty() {
        faults(
            nominated,
            names::dns_subdomain(nominated),
            &at.child("nominatedNodeName"),
            errors,
        );
    }
    let (class, was) = (text(&new_status.qos_class), text(&old_status.qos_class));
    if class != was {
        errors.push(Error::invalid(&at.child("qosClass"), class, IMMUTABLE));
    }
    let restart = text(&old_spec.restart_policy);
    let regular = by_name(&old_spec.containers);
    let init = by_name(items(&old_spec.init_containers));
    validate_transition(
        items(&new_status.container_statuses),
        items(&old_status.container_statuses),
        |name| restarts(regular.get(name).copied(), restart),
        &at.child("containerStatuses"),
        errors,
    );
    validate_transition(
        items(&new_status.init_container_statuses),
        items(&old_status.init_container_statuses),
        |name| restarts(init.get(name).copied(), restart),
        &at.child("initContainerStatuses"),
        errors,
    );
    validate_transition(
        items(&new_status.ephemeral_container_statuses),
        items(&old_status.ephemeral_container_statuses),
        |_| Restarts::Never,
        &at.child("ephemeralContainerStatuses"),
        errors,
    );
    validate_addresses(new_status, old_status, &at, errors);
    validate_container_statuses(new, &at, errors);
    validate_claim_statuses(new_status, new_spec, &at, errors);
}

/// When a container that has ended may run again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Restarts {
    Always,
    OnFailure,
    Never,
}

/// The first of each name: the last that is collected stays.
fn by_name(containers: &[Container]) -> BTreeMap<&str, &Container> {
    containers.iter().rev().map(|c| (&*c.name, c)).collect()
}

fn restarts(container: Option<&Container>, pod: &str) -> Restarts {
    let own = container
        .map(|container| text(&container.restart_policy))
        .filter(|own| !own.is_empty());
    let rules = container.is_some_and(|c| !items(&c.restart_policy_rules).is_empty());
    if container.is_some_and(is_sidecar) || rules {
        return Restarts::Always;
    }
    match own.unwrap_or(pod) {
        "Always" => Restarts::Always,
        "OnFailure" => Restarts::OnFailure,
        _ => Restarts::Never,
    }
}

fn validate_transition(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    restarts: impl Fn(&str) -> Restarts,
    at: &Path,
    errors: &mut ErrorList,
) {
    fn end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
        status.state.as_ref()?.terminated.as_ref()
    }
    let running = new.iter().filter(|status| end(status).is_none());
    let running: BTreeSet<&str> = running.map(|status| &*status.name).collect();
    for (i, was) in old.iter().enumerate() {
        let Some(end) = end(was) else {
            continue;
        };
        let may = match restarts(&was.name) {
            Restarts::Always => true,
            Restarts::OnFailure => end.exit_code != 0,
            Restarts::Never => false,
        };
        if !may && running.contains(&*was.name) {
            let detail = "may not be transitioned to non-terminated state";
            errors.push(Error::forbidden(&at.index(i).child("state"), detail));
        }
    }
}
