//! Where Pods come from: one watch of those that are bound to this node.

use std::collections::HashSet;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pod;
use crate::worker::Workers;

/// Follows the Pods of the node until cancelled. `synced` turns true when all are known.
pub(crate) async fn follow(
    client: kube::Client,
    node_name: &str,
    workers: &Workers,
    synced: watch::Sender<bool>,
    cancel: CancellationToken,
) {
    let pods: Api<Pod> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    let events = watcher::watcher(pods, config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = HashSet::new();
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
                workers.update(pod);
            }
            Some(Ok(Event::InitDone)) => {
                for uid in workers.uids() {
                    if !listed.contains(&uid) {
                        workers.removed(&uid);
                    }
                }
                listed.clear();
                synced.send_replace(true);
            }
            Some(Ok(Event::Apply(pod))) => workers.update(pod),
            Some(Ok(Event::Delete(pod))) => workers.removed(pod::uid(&pod)),
        }
    }
}
