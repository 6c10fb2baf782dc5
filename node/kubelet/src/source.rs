//! What the kubelet follows: the Pods that are bound to its node, and Services if nobody else
//! in the process does.

use std::collections::HashSet;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pod::{self, CONFIG_SOURCE};
use crate::static_pods::mirrors::{Mirrors, is_mirror};
use crate::worker::Workers;

/// Follows the Pods of the node until cancelled: those that are to run go to `workers`, what shows
/// static Pods to `mirrors`. `synced` turns true when all are known.
pub(crate) async fn follow(
    client: kube::Client,
    node_name: &str,
    workers: &Workers,
    mirrors: &Mirrors,
    synced: watch::Sender<bool>,
    cancel: CancellationToken,
) {
    let pods: Api<Pod> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let events = watcher::watcher(pods, config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = HashSet::new();
    let hand_on = |mut pod: Pod| {
        if is_mirror(&pod) {
            workers.mirrored(&pod);
            return mirrors.seen(&pod);
        }
        // Nobody says of himself that he comes from a file.
        let annotations = pod.metadata.annotations.as_mut();
        if let Some(source) = annotations.and_then(|all| all.get_mut(CONFIG_SOURCE)) {
            "api".clone_into(source);
        }
        workers.update(pod);
    };
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => tracing::warn!(%error, "the watch of Pods broke; it begins anew"),
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(pod))) => {
                listed.insert(pod::uid(&pod).to_owned());
                hand_on(pod);
            }
            Some(Ok(Event::InitDone)) => {
                for pod in workers.pods() {
                    if !pod::is_static(&pod) && !listed.contains(pod::uid(&pod)) {
                        workers.removed(pod::uid(&pod));
                    }
                }
                mirrors.listed(&listed);
                listed.clear();
                synced.send_replace(true);
            }
            Some(Ok(Event::Apply(pod))) => hand_on(pod),
            Some(Ok(Event::Delete(pod))) if is_mirror(&pod) => mirrors.gone(&pod),
            Some(Ok(Event::Delete(pod))) => workers.removed(pod::uid(&pod)),
        }
    }
}

/// Follows Services until cancelled.
pub(crate) async fn follow_services(
    client: kube::Client,
    writer: reflector::store::Writer<Service>,
    cancel: CancellationToken,
) {
    let services: Api<Service> = Api::all(client);
    let events = watcher::watcher(services, watcher::Config::default()).default_backoff();
    let events = events.modify(|service| {
        // Only names and addresses are read.
        service.metadata.managed_fields = None;
        service.metadata.annotations = None;
        service.status = None;
    });
    let mut events = std::pin::pin!(events.reflect(writer));
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            event = events.next() => match event {
                None => return,
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of Services broke; it begins anew");
                }
                Some(Ok(_)) => {}
            }
        }
    }
}
