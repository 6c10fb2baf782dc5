//! What a node learns of itself from the API: the range of its Pods, and its zone.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::pods::Pool;
use super::{NodeNetwork, NodeNetworkConfig};
use crate::namespace::NamespaceError;
use crate::rules::Place;

/// In which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// How long after a range could not be used it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why a range cannot be the node's.
#[derive(Debug, thiserror::Error)]
pub(super) enum RangeError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("the addresses cannot be kept: {0}")]
    Record(#[from] io::Error),
}

type Event = watcher::Result<watcher::Event<Node>>;

/// What the API says of the node.
pub(super) type OwnNode = BoxStream<'static, Event>;

/// Follows a node, for as long as it is polled.
pub(super) fn follow(client: Client, name: &str) -> OwnNode {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(Api::<Node>::all(client), only)
        .default_backoff()
        .boxed()
}

/// Whether the node is in another zone by what is said of it. `place` is where it is then.
pub(super) fn is_moved(place: &mut Place, event: &Event) -> bool {
    let Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) = event else {
        return false;
    };
    let labels = node.metadata.labels.as_ref();
    let zone = labels.and_then(|labels| labels.get(ZONE)).cloned();
    let differs = place.zone != zone;
    place.zone = zone;
    differs
}

impl NodeNetwork {
    /// Waits for the range that the control plane gives the node.
    pub(super) async fn learn_range(self: &Arc<Self>, nodes: &mut OwnNode, place: &mut Place) {
        let mut refused = None;
        loop {
            let event = match refused {
                Some(_) => tokio::time::timeout(RETRY, nodes.next()).await.ok(),
                None => Some(nodes.next().await),
            };
            if let Some(Some(event)) = &event {
                is_moved(place, event);
            }
            let given = match event {
                Some(None) => return,
                Some(Some(Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)))) => {
                    node.spec
                        .and_then(|spec| spec.pod_cidr)
                        .and_then(|range| range.parse().ok())
                }
                Some(Some(Ok(_))) => None,
                Some(Some(Err(error))) => {
                    tracing::warn!(%error, "the node's range is not known yet");
                    None
                }
                // The one that did not work before.
                None => refused,
            };
            let Some(range) = given else { continue };
            let this = self.clone();
            let used = tokio::task::spawn_blocking(move || this.use_range(range)).await;
            match used {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::error!(%error, %range, "no Pod can start here, for the node's range cannot be used");
                    refused = Some(range);
                }
                Err(error) => {
                    tracing::error!(%error, %range, "taking the node's range panicked");
                    refused = Some(range);
                }
            }
        }
    }

    pub(super) fn use_range(&self, range: IpNet) -> Result<(), RangeError> {
        if self.pool.borrow().as_ref().map(|pool| pool.range) == Some(range) {
            return Ok(());
        }
        if let Some(namespace) = &self.namespace {
            namespace.use_range(range)?;
        }
        let pool = Pool::open(&self.config, range, self.namespace.as_deref())?;
        std::fs::write(range_path(&self.config), range.to_string())?;
        self.pool.send_replace(Some(pool));
        self.changed.notify_one();
        Ok(())
    }
}

/// Where the node's range is kept.
pub(super) fn range_path(config: &NodeNetworkConfig) -> PathBuf {
    config.directory.join("range")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_is_in_the_zone_that_its_label_says() {
        let mut place = Place::default();
        let mut moved = |labels: Value| {
            let node = json!({"metadata": {"name": "one", "labels": labels}});
            let node: Node = serde_json::from_value(node).unwrap();
            let moved = is_moved(&mut place, &Ok(watcher::Event::Apply(node)));
            (moved, place.zone.clone())
        };
        let zone = |name: &str| json!({"topology.kubernetes.io/zone": name});
        let a = || Some("a".to_owned());
        assert_eq!(moved(json!({})), (false, None));
        assert_eq!(moved(zone("a")), (true, a()));
        // A beat of its heart.
        assert_eq!(moved(zone("a")), (false, a()));
        assert_eq!(moved(zone("b")), (true, Some("b".to_owned())));
        assert_eq!(moved(Value::Null), (true, None));
        assert!(!is_moved(&mut place, &Ok(watcher::Event::Init)));
    }
}
