//! Endpoints that somebody wrote for a Service without a selector, mirrored to EndpointSlices:
//! proxies and DNS read nothing else.
//!
//! Not mirrored are Endpoints that say so by a label, those that a leader election of old uses,
//! and those whose Service selects Pods or is not there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::managed::last_applied;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::backend::family;
use super::packing::{Action, Frame, Groups, MANAGED_BY, add, plan_family};
use super::{PACE, SERVICE_NAME, WORKERS, write_slice};
use crate::context::{Context, Writes};
use crate::error::Error;
use crate::owners::controller_reference;
use crate::queue::WorkQueue;

type Key = ObjectRef<Endpoints>;

const US: &str = "endpointslicemirroring-controller.k8s.io";
/// Keeps Endpoints from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints with it are a lock and no endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints object itself.
const OWN: [&str; 2] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    last_applied::ANNOTATION,
];
/// Addresses of one subset that are mirrored at most, and endpoints in one slice.
const FULL: usize = 1000;

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let informers = &context.informers;
    context.route(&informers.endpoints, &queue, |endpoints| {
        vec![Key::from_obj(endpoints)]
    });
    context.route(&informers.services, &queue, |service| {
        vec![Key::new(&service.name_any()).within(&service.namespace().unwrap_or_default())]
    });
    context.route(&informers.endpoint_slices, &queue, |slice| {
        let of = slice.labels().get(SERVICE_NAME).filter(|_| ours(slice));
        let namespace = slice.namespace().unwrap_or_default();
        of.map(|name| Key::new(name).within(&namespace))
            .into_iter()
            .collect()
    });
    let cancel = context.cancel.clone();
    let (context, writes) = (Arc::new(context), Arc::new(Writes::new()));
    queue
        .drive("endpointslicemirroring", WORKERS, cancel, move |key| {
            let (context, writes) = (context.clone(), writes.clone());
            async move { reconcile(&context, &writes, key).await }
        })
        .await;
}

async fn reconcile(
    context: &Context,
    writes: &Writes<Key>,
    key: Key,
) -> Result<Option<Duration>, Error> {
    let informers = &context.informers;
    if let Err(wait) = writes.shown(&key, informers.endpoint_slices.revision()) {
        return Ok(Some(wait));
    }
    let namespace = key.namespace.clone().unwrap_or_default();
    let service = ObjectRef::<Service>::new(&key.name).within(&namespace);
    let service = informers.services.store().get(&service);
    let endpoints = informers.endpoints.store().get(&key);
    let slices = informers.endpoint_slices.store().state_filter(|slice| {
        ours(slice)
            && slice.metadata.namespace == key.namespace
            && slice.labels().get(SERVICE_NAME) == Some(&key.name)
    });
    for action in plan(endpoints.as_deref(), service.as_deref(), &slices) {
        let written = write_slice(context.client.clone(), &namespace, action).await?;
        if let Some(revision) = written {
            writes.wrote(&key, revision);
        }
    }
    Ok(None)
}

/// Whether the slice is this controller's.
fn ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|by| by == US)
}

/// Whether the slices of this Service show these Endpoints.
fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selects = spec.is_some_and(|spec| spec.selector.iter().flatten().next().is_some());
    let skipped = endpoints
        .labels()
        .get(SKIP)
        .is_some_and(|skip| skip == "true");
    let ends = endpoints.metadata.deletion_timestamp.is_some()
        || service.metadata.deletion_timestamp.is_some();
    !selects && !skipped && !ends && !endpoints.annotations().contains_key(LEADER)
}

/// What to do so that `existing`, the mirrored slices of the Endpoints' name, show them.
fn plan(
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    existing: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let mirrored = endpoints
        .zip(service)
        .filter(|(endpoints, service)| is_mirrored(endpoints, service));
    let Some((endpoints, _)) = mirrored else {
        return existing.iter().cloned().map(Action::Delete).collect();
    };
    let frame = frame(endpoints);
    let mut actions = Vec::new();
    for name in ["IPv4", "IPv6"] {
        let mut groups = Groups::new();
        for subset in endpoints.subsets.iter().flatten() {
            let ports: Vec<discovery::EndpointPort> =
                subset.ports.iter().flatten().map(port).collect();
            let ready = subset.addresses.iter().flatten().map(|a| (a, true));
            let not_ready = subset.not_ready_addresses.iter().flatten();
            let all = ready.chain(not_ready.map(|a| (a, false))).take(FULL);
            for (address, ready) in all {
                let parsed: Option<IpAddr> = address.ip.parse().ok();
                if parsed.is_some_and(|parsed| family(parsed) == name) {
                    add(&mut groups, &ports, endpoint(address, ready));
                }
            }
        }
        let existing = existing.iter().filter(|slice| slice.address_type == name);
        let existing = existing.cloned().collect();
        actions.extend(plan_family(&frame, name, &groups, existing));
    }
    actions
}

fn frame(endpoints: &Endpoints) -> Frame {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), US.to_owned());
    let annotations = endpoints.annotations().iter();
    let annotations: BTreeMap<String, String> = annotations
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Frame {
        name: endpoints.name_any(),
        namespace: endpoints.namespace(),
        labels,
        annotations: Some(annotations),
        owner: controller_reference(endpoints),
        full: FULL,
        never_none: false,
    }
}

fn port(port: &EndpointPort) -> discovery::EndpointPort {
    discovery::EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
