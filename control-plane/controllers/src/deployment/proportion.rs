//! Scaling a Deployment while several of its ReplicaSets have Pods: each gets its share.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::revision::{MAX, number};
use super::template::{age, replicas, wanted};

/// The new sizes of the active ReplicaSets, so that together they have as many replicas as the
/// Deployment and its surge allow.
pub(super) fn shares(
    deployment: &Deployment,
    active: &[&Arc<ReplicaSet>],
    surge: i32,
) -> Vec<(Arc<ReplicaSet>, i32)> {
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    let desired = wanted(deployment);
    let allowed = if desired > 0 { desired + surge } else { 0 };
    let to_add = allowed - total;
    let mut sets: Vec<Arc<ReplicaSet>> = active.iter().map(|set| Arc::clone(set)).collect();
    // Bigger ones first; among equals the newer grow first and the older shrink first.
    sets.sort_by_key(|set| age(set));
    if to_add > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|set| Reverse(replicas(set)));
    let mut added = 0;
    let mut sizes = Vec::new();
    for set in sets {
        let share = if to_add == 0 {
            0
        } else {
            share(deployment, &set, allowed, to_add, added)
        };
        added += share;
        let size = replicas(&set) + share;
        sizes.push((set, size));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

fn share(deployment: &Deployment, set: &ReplicaSet, max: i32, to_add: i32, added: i32) -> i32 {
    let size = replicas(set);
    if size == 0 || to_add == added {
        return 0;
    }
    let fraction = if wanted(deployment) == 0 {
        -size
    } else {
        let then = number(set, MAX)
            .and_then(|n| i32::try_from(n).ok())
            .filter(|n| *n > 0);
        let now = deployment.status.as_ref().and_then(|s| s.replicas);
        let then = then.or(now).filter(|n| *n > 0).unwrap_or(size);
        let scaled = f64::from(size) * f64::from(max) / f64::from(then);
        // Both are replica counts: the quotient of such numbers is one.
        scaled.round() as i32 - size
    };
    let left = to_add - added;
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}
