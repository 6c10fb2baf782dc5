//! Pods that wait for room to grow, in the order in which they get it (KEP-1287): by priority, then
//! those whose requests are their limits, then who has waited longest.
//!
//! Who does not fit yet holds nobody up behind it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use coracle_apimachinery::resources::{Qos, ResourceList, qos};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use crate::pod;
use crate::status::conditions::RESIZE_PENDING;

/// The least goes first.
type Rank = (Reverse<i32>, bool, Timestamp, u64);

struct Wish {
    requests: ResourceList,
    rank: Rank,
}

/// Wishes by the UIDs of their Pods.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<String, Wish>,
    /// Tells those apart that are of the same rank otherwise.
    came: u64,
}

impl Queue {
    /// Has a Pod wait for these requests; true if it has waited for others. Its place is kept while it
    /// waits.
    pub(crate) fn put(&mut self, pod: &Pod, requests: ResourceList) -> bool {
        let rank = self.rank(pod);
        self.came = self.came.max(rank.3 + 1);
        let uid = pod::uid(pod).to_owned();
        let known = self.waiting.get(&uid);
        let others = known.is_some_and(|known| known.requests != requests);
        self.waiting.insert(uid, Wish { requests, rank });
        others
    }

    /// A Pod waits no more; true if it did.
    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        self.waiting.remove(uid).is_some()
    }

    /// Who goes before a Pod, in order, with their wishes.
    pub(crate) fn before(&self, pod: &Pod) -> Vec<(&str, &ResourceList)> {
        let own = self.rank(pod);
        let others = self.waiting.iter();
        let mut before: Vec<_> = others
            .filter(|(uid, wish)| uid.as_str() != pod::uid(pod) && wish.rank < own)
            .collect();
        before.sort_by_key(|(_, wish)| wish.rank);
        let wishes = before.into_iter();
        wishes
            .map(|(uid, wish)| (uid.as_str(), &wish.requests))
            .collect()
    }

    fn rank(&self, pod: &Pod) -> Rank {
        let spec = pod::spec(pod);
        let known = self.waiting.get(pod::uid(pod));
        let mut told = pod::status(pod).conditions.iter().flatten();
        let told = told.find(|of| of.type_ == RESIZE_PENDING);
        let since = told.and_then(|of| of.last_transition_time.as_ref());
        // It began to wait when that was told first, which an earlier agent may have done.
        let since = match known {
            Some(known) => known.rank.2,
            None => since.map_or(Timestamp::MAX, |since| since.0),
        };
        (
            Reverse(spec.priority.unwrap_or(0)),
            qos(spec) != Qos::Guaranteed,
            since,
            known.map_or(self.came, |known| known.rank.3),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, priority: i32, guaranteed: bool, since: Option<&str>) -> Pod {
        let all = json!({"cpu": "1", "memory": "1Mi"});
        let resources = match guaranteed {
            true => json!({"requests": all, "limits": all}),
            false => json!({"requests": all}),
        };
        let pending = json!({
            "type": "PodResizePending", "status": "True", "lastTransitionTime": since,
        });
        let conditions = match since {
            Some(_) => json!([pending]),
            None => Value::Null,
        };
        serde_json::from_value(json!({
            "metadata": {"uid": uid},
            "spec": {
                "priority": priority,
                "containers": [{"name": "c", "resources": resources}],
            },
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn they_get_room_by_priority_class_and_time() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let pods = [
            pod("new", 0, false, None),
            pod("newer", 0, false, None),
            pod("late", 0, false, Some(late)),
            pod("early", 0, false, Some(early)),
            pod("guaranteed", 0, true, Some(late)),
            pod("high", 7, false, Some(late)),
        ];
        let mut queue = Queue::default();
        for pod in &pods {
            queue.put(pod, ResourceList::new());
        }
        let before = |queue: &Queue, pod: &Pod| -> Vec<String> {
            let before = queue.before(pod).into_iter();
            before.map(|(uid, _)| uid.to_owned()).collect()
        };
        let last = pod("last", -1, true, Some(early));
        let order = ["high", "guaranteed", "early", "late", "new", "newer"];
        assert_eq!(before(&queue, &last), order);
        // Another wish of the same Pod keeps its place.
        queue.put(&pods[0], ResourceList::new());
        assert_eq!(before(&queue, &last), order);
        assert_eq!(before(&queue, &pods[2]), order[..3]);
        assert!(queue.remove("guaranteed") && !queue.remove("guaranteed"));
        assert_eq!(before(&queue, &pods[3]), ["high"]);
    }
}
