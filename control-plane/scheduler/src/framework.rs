//! What a plugin is.
//!
//! A filter says whether a node is possible for a Pod, a score how good it is. A plugin keeps no
//! state and does no I/O, but for [`Bind`], which writes.

use futures::future::BoxFuture;

use crate::cache::{NodeInfo, PodInfo};

/// The best score.
pub(crate) const MAX_SCORE: i64 = 100;

/// What happened in the cluster that may make a Pod schedulable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterEvent {
    NodeAdded,
    NodeLabelsChanged,
    /// Taints, or whether it is cordoned.
    NodeTaintsChanged,
    NodeAllocatableChanged,
    /// A Pod that used a node is gone, or uses less.
    PodRemoved,
}

/// Whether a node is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fits,
    /// It is not, for these reasons; the removal of other Pods might help.
    Unschedulable(Vec<String>),
    /// It is not, and the removal of other Pods would not help.
    Unresolvable(String),
}

/// What all plugins have.
pub(crate) trait Plugin: Send + Sync {
    /// The name that Kubernetes gives the plugin.
    fn name(&self) -> &'static str;

    /// Whether a Pod that this plugin found no node for may fit after such an event.
    fn wakes_on(&self, _event: ClusterEvent) -> bool {
        false
    }
}

/// Says which nodes are possible.
pub(crate) trait Filter: Plugin {
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Verdict;
}

/// Finds a way where no node was possible: preemption will be one.
pub(crate) trait PostFilter: Plugin {
    /// The node that will become possible, after what this did to make it so.
    fn post_filter(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Option<String>;
}

/// Says how good a possible node is.
pub(crate) trait Score: Plugin {
    /// How much this score counts.
    fn weight(&self) -> i64;

    /// A figure for one node, among all `nodes` of the cluster.
    fn score(&self, pod: &PodInfo, node: &NodeInfo, nodes: &[&NodeInfo]) -> i64;

    /// Brings the figures of all possible nodes to 0..=[`MAX_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Tells the world which node a Pod got.
pub(crate) trait Bind: Send + Sync {
    fn bind(&self, pod: &PodInfo, node: &str) -> BoxFuture<'static, Result<(), kube::Error>>;
}

/// The plugins of a scheduler, in the order in which they are asked.
pub(crate) struct Framework {
    pub(crate) filters: Vec<Box<dyn Filter>>,
    pub(crate) post_filters: Vec<Box<dyn PostFilter>>,
    pub(crate) scores: Vec<Box<dyn Score>>,
}

impl Framework {
    /// Whether a Pod that these plugins rejected may fit after such an event.
    pub(crate) fn wakes(&self, rejected_by: &[&'static str], event: ClusterEvent) -> bool {
        // With no node at all no plugin was asked: any node is news.
        rejected_by.is_empty()
            || self
                .filters
                .iter()
                .any(|f| rejected_by.contains(&f.name()) && f.wakes_on(event))
    }
}

/// Scales scores so that the highest becomes [`MAX_SCORE`]; with `reverse` the lowest is best.
pub(crate) fn scale(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if highest == 0 {
            0
        } else {
            *score * MAX_SCORE / highest
        };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
