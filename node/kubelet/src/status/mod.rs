//! The status of a Pod, from what runs.
//!
//! [`pod_status`] is a pure function of the Pod, its runtimes and what its worker remembers.
//! [`publisher`] sends what [`patch`] says of it and [`entry`] knows of the API, [`termination`] reads
//! what a container left as its last words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodIP, PodStatus};

use crate::containers::actions::{Actions, Failure};
use crate::containers::allocation::Allocation;
use crate::containers::observed::PodRuntime;
use crate::pod::{self, Role};
use crate::probes::ProbeView;
use crate::worker::resize::Unfinished;

pub(crate) mod conditions;
pub(crate) mod containers;
mod entry;
mod patch;
pub(crate) mod phase;
pub(crate) mod publisher;
pub(crate) mod termination;

/// Why a Pod ended that its own containers did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `DeadlineExceeded`, `OutOfcpu`, …
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The node had to, through no fault of the Pod (the condition `DisruptionTarget`).
    pub(crate) disrupted: bool,
}

/// All that a status is made of.
pub(crate) struct StatusInput<'a> {
    pub(crate) pod: &'a Pod,
    /// The status before: what was made last, or what the API had.
    pub(crate) old: &'a PodStatus,
    pub(crate) runtime: &'a PodRuntime,
    pub(crate) actions: &'a Actions,
    pub(crate) failures: &'a BTreeMap<String, Failure>,
    pub(crate) probes: &'a dyn ProbeView,
    /// Last words of ended containers, by container ID.
    pub(crate) messages: &'a BTreeMap<String, String>,
    /// What the containers have, once that is known.
    pub(crate) allocation: Option<&'a Allocation>,
    pub(crate) resize: &'a Unfinished,
    pub(crate) pod_ips: &'a [IpAddr],
    pub(crate) host_ips: &'a [IpAddr],
    /// Addresses are there and volumes are set up.
    pub(crate) ready_to_start: bool,
    /// Nothing of the Pod runs, and nothing will.
    pub(crate) terminated: bool,
    pub(crate) verdict: Option<&'a Verdict>,
    pub(crate) now: SystemTime,
}

/// The whole status that the kubelet vouches for. Conditions that others own are not in it.
pub(crate) fn pod_status(input: &StatusInput<'_>) -> PodStatus {
    let old = input.old;
    let statuses = |app: bool| -> Vec<ContainerStatus> {
        pod::containers(input.pod)
            .filter(|(_, role)| (*role == Role::App) == app)
            .map(|(container, role)| containers::status(input, container, role))
            .collect()
    };
    let ephemeral = pod::ephemeral::all(input.pod).iter().map(|container| {
        let container = pod::ephemeral::as_container(container);
        containers::status(input, &container, Role::Ephemeral)
    });
    let mut ephemeral: Vec<ContainerStatus> = ephemeral.collect();
    let (inits, mut apps) = (statuses(false), statuses(true));
    // As the kubelet has them: those of init containers alone are in the order of the spec.
    for list in [&mut ephemeral, &mut apps] {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let verdict = input.verdict.filter(|_| input.terminated);
    let phase = match verdict {
        Some(_) => "Failed",
        None => {
            let (initialized, terminated) = (input.actions.initialized, input.terminated);
            phase::phase(input.pod, &inits, &apps, initialized, terminated)
        }
    };
    let phase = match phase {
        // What has ended is not called so before nothing of it runs any more, sidecars neither; and
        // what was killed to be started again has not ended.
        "Succeeded" | "Failed" if !input.terminated => match input.actions.initialized {
            true => "Running",
            false => "Pending",
        },
        // It has been initialized before.
        "Pending" if old.phase.as_deref() == Some("Running") && pod::may_begin_anew(input.pod) => {
            "Running"
        }
        phase => phase,
    };
    let conditions = conditions::conditions(&conditions::Facts {
        pod: input.pod,
        old,
        inits: &inits,
        apps: &apps,
        phase,
        initialized: input.actions.initialized,
        anew: input.actions.anew,
        ready_to_start: input.ready_to_start && !input.terminated,
        resize: input.resize,
        resizes: input
            .allocation
            .is_some_and(|allocation| allocation.in_progress(input.runtime)),
        disrupted: verdict.filter(|v| v.disrupted).map(|v| &*v.message),
        now: input.now,
    });
    // What the Pod asks for as a whole (KEP-2837), and what of that it has (KEP-5419).
    let whole = pod::spec(input.pod).resources.as_ref();
    let runs = input.runtime.running().next().is_some();
    let actual = input.allocation.filter(|_| runs);
    let actual = actual.and_then(Allocation::actual_pod);
    let ips = input.pod_ips.iter().map(|ip| PodIP { ip: ip.to_string() });
    let host_ips = input
        .host_ips
        .iter()
        .map(|ip| HostIP { ip: ip.to_string() });
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: verdict.map(|v| v.reason.clone()).or(old.reason.clone()),
        message: verdict.map(|v| v.message.clone()).or(old.message.clone()),
        conditions: Some(conditions),
        host_ip: input.host_ips.first().map(ToString::to_string),
        host_ips: Some(host_ips.collect()),
        pod_ip: input.pod_ips.first().map(ToString::to_string),
        pod_ips: Some(ips.collect::<Vec<_>>()).filter(|ips| !ips.is_empty()),
        qos_class: old.qos_class.clone(),
        allocated_resources: whole.and_then(|of| of.requests.clone()),
        resources: whole.map(|of| actual.unwrap_or(of).clone()),
        start_time: old.start_time.clone().or(Some(pod::api_time(input.now))),
        init_container_statuses: Some(inits).filter(|inits| !inits.is_empty()),
        container_statuses: Some(apps),
        ephemeral_container_statuses: Some(ephemeral).filter(|list| !list.is_empty()),
        observed_generation: input.pod.metadata.generation,
        ..PodStatus::default()
    }
}

#[cfg(test)]
mod tests;
