//! Pods that wait for a node.
//!
//! ```text
//!            add                    take
//!   (new) ─────────► Active ──────────────────► InFlight ──► (bound: removed)
//!     │                ▲ ▲                       │    │
//!     │ gated          │ └──── back-off over ────┼────┼───┐
//!     ▼                │                         │    │   │
//!   Gated ── ungated ──┘            unschedulable│    │failed
//!                                                ▼    ▼   │
//!                       event ◄───────── Unschedulable  BackOff
//!                  (or five minutes)            │         ▲
//!                                               └─ event ─┘ while backing off
//! ```
//!
//! Among active Pods the higher priority goes first, then the one that has waited longer. The
//! queue reads no clock. It holds at most the cluster's Pods without a node.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::cache::PodInfo;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// After this long an unschedulable Pod is tried again without any event.
const FLUSH: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    InFlight,
    /// Until then.
    BackOff(Instant),
    /// Since then.
    Unschedulable(Instant),
    Gated,
}

#[derive(Debug)]
struct Entry {
    info: PodInfo,
    place: Place,
    /// The order of arrival.
    number: u64,
    attempts: u32,
    last_attempt: Option<Instant>,
    rejected_by: Vec<&'static str>,
    /// Something changed while it was in flight, which its failure cannot have taken into account.
    moved: bool,
}

impl Entry {
    fn rank(&self) -> (Reverse<i32>, u64) {
        let priority = self.info.pod.spec.as_ref().and_then(|spec| spec.priority);
        (Reverse(priority.unwrap_or(0)), self.number)
    }

    fn backs_off_until(&self) -> Option<Instant> {
        let factor = 1u32
            .checked_shl(self.attempts.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let wait = FIRST_BACKOFF.saturating_mul(factor).min(LAST_BACKOFF);
        self.last_attempt.map(|at| at + wait)
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<String, Entry>,
    active: BTreeSet<((Reverse<i32>, u64), String)>,
    /// Pods in `BackOff` and `Unschedulable`, by when they are due.
    timers: BTreeSet<(Instant, String)>,
    number: u64,
}

impl Queue {
    /// Adds a Pod, or takes note of its new form, which may make it schedulable.
    pub(crate) fn add(&mut self, pod: Arc<Pod>, gated: bool, now: Instant) {
        let uid = pod.uid().unwrap_or_default();
        let Some(entry) = self.entries.get_mut(&uid) else {
            self.number += 1;
            let entry = Entry {
                info: PodInfo::new(pod),
                place: Place::Gated,
                number: self.number,
                attempts: 0,
                last_attempt: None,
                rejected_by: Vec::new(),
                moved: false,
            };
            self.entries.insert(uid.clone(), entry);
            if !gated {
                self.settle(&uid, Place::Active);
            }
            return;
        };
        let differs = concerns_scheduling(&entry.info.pod, &pod);
        let place = entry.place;
        self.unlist(&uid);
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.info = PodInfo::new(pod);
        }
        match place {
            Place::InFlight => self.settle(&uid, place),
            _ if gated => self.settle(&uid, Place::Gated),
            Place::Gated => self.settle(&uid, Place::Active),
            Place::Unschedulable(_) if differs => self.reactivate(&uid, now),
            other => self.settle(&uid, other),
        }
    }

    /// Forgets a Pod: it is gone or has a node.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.unlist(uid);
        self.entries.remove(uid);
    }

    /// The uids of all that wait.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Whether a Pod can be taken.
    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// The Pod to schedule next; it is in flight until it is removed or [`Queue::failed`].
    pub(crate) fn take(&mut self, now: Instant) -> Option<PodInfo> {
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_attempt = Some(now);
        entry.moved = false;
        Some(entry.info.clone())
    }

    /// No node was possible; the Pod waits for an event that these plugins care for.
    pub(crate) fn unschedulable(
        &mut self,
        uid: &str,
        rejected_by: Vec<&'static str>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        entry.rejected_by = rejected_by;
        if entry.moved {
            self.reactivate(uid, now);
        } else {
            self.settle(uid, Place::Unschedulable(now));
        }
    }

    /// It could not be bound, for no reason of its own: it is tried again after a while.
    pub(crate) fn failed(&mut self, uid: &str, now: Instant) {
        if self.entries.contains_key(uid) {
            self.reactivate(uid, now);
        }
    }

    /// Something happened: Pods for which `wakes` is true, given the plugins that rejected them,
    /// are tried again, those that back off when that is over.
    pub(crate) fn event(&mut self, wakes: impl Fn(&[&'static str]) -> bool, now: Instant) {
        let mut woken = Vec::new();
        for (uid, entry) in &mut self.entries {
            match entry.place {
                Place::InFlight => entry.moved = true,
                Place::Unschedulable(_) if wakes(&entry.rejected_by) => woken.push(uid.clone()),
                _ => {}
            }
        }
        woken.iter().for_each(|uid| self.reactivate(uid, now));
    }

    /// Moves what is due: back-offs that are over, and Pods that were unschedulable for long.
    pub(crate) fn flush(&mut self, now: Instant) {
        while let Some((_, uid)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.settle(&uid, Place::Active);
        }
    }

    /// When [`Queue::flush`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn reactivate(&mut self, uid: &str, now: Instant) {
        let until = self.entries.get(uid).and_then(Entry::backs_off_until);
        match until.filter(|until| *until > now) {
            Some(until) => self.settle(uid, Place::BackOff(until)),
            None => self.settle(uid, Place::Active),
        }
    }

    /// Puts a Pod into a place: the one transition function.
    fn settle(&mut self, uid: &str, place: Place) {
        self.unlist(uid);
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        entry.place = place;
        match place {
            Place::Active => {
                self.active.insert((entry.rank(), uid.to_owned()));
            }
            Place::BackOff(until) => {
                self.timers.insert((until, uid.to_owned()));
            }
            Place::Unschedulable(since) => {
                self.timers.insert((since + FLUSH, uid.to_owned()));
            }
            Place::InFlight | Place::Gated => {}
        }
    }

    fn unlist(&mut self, uid: &str) {
        let Some(entry) = self.entries.get(uid) else {
            return;
        };
        match entry.place {
            Place::Active => {
                self.active.remove(&(entry.rank(), uid.to_owned()));
            }
            Place::BackOff(until) => {
                self.timers.remove(&(until, uid.to_owned()));
            }
            Place::Unschedulable(since) => {
                self.timers.remove(&(since + FLUSH, uid.to_owned()));
            }
            Place::InFlight | Place::Gated => {}
        }
    }
}

/// Whether an update may change where a Pod fits; its status, which the scheduler itself writes,
/// does not.
fn concerns_scheduling(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec || old.metadata.labels != new.metadata.labels
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plugins::testing::pod;
    use proptest::prelude::*;
    use serde_json::json;

    fn named(name: &str) -> Arc<Pod> {
        Arc::new(pod(name, json!({})))
    }

    fn taken(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.take(now).map(|info| info.pod.name_any())
    }

    #[test]
    fn priority_then_arrival() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(named("first"), false, now);
        queue.add(named("second"), false, now);
        queue.add(
            Arc::new(pod("urgent", json!({"spec": {"priority": 10}}))),
            false,
            now,
        );
        let order: Vec<_> = std::iter::from_fn(|| taken(&mut queue, now)).collect();
        assert_eq!(order, ["urgent", "first", "second"]);
    }

    #[test]
    fn an_event_wakes_whom_it_concerns() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        let mut queue = Queue::default();
        queue.add(named("a"), false, now);
        queue.take(now);
        queue.unschedulable("a", vec!["Fit"], now);
        queue.event(|by| by.contains(&"Taint"), later);
        assert!(!queue.has_active());
        queue.event(|by| by.contains(&"Fit"), later);
        assert_eq!(taken(&mut queue, later).as_deref(), Some("a"));
    }

    #[test]
    fn failures_back_off_and_double() {
        let mut now = Instant::now();
        let mut queue = Queue::default();
        queue.add(named("a"), false, now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            queue.take(now).unwrap();
            queue.failed("a", now);
            assert!(!queue.has_active());
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            queue.flush(now);
        }
    }

    #[test]
    fn what_happens_in_flight_is_not_missed() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(named("a"), false, now);
        queue.take(now);
        queue.event(|_| true, now);
        queue.unschedulable("a", vec!["Fit"], now);
        queue.flush(now + FIRST_BACKOFF);
        assert!(queue.has_active());
    }

    #[test]
    fn nobody_waits_longer_than_five_minutes() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(named("a"), false, now);
        queue.take(now);
        queue.unschedulable("a", vec!["Fit"], now);
        assert_eq!(queue.next_due(), Some(now + FLUSH));
        queue.flush(now + FLUSH);
        assert!(queue.has_active());
    }

    #[test]
    fn gates_and_updates() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(named("a"), true, now);
        assert!(!queue.has_active());
        queue.add(named("a"), false, now);
        assert!(queue.has_active());
        queue.take(now);
        queue.unschedulable("a", vec!["Fit"], now);
        let later = now + Duration::from_secs(5);
        queue.add(named("a"), false, later);
        assert!(!queue.has_active(), "nothing that matters changed");
        let changed = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        queue.add(Arc::new(pod("a", changed)), false, later);
        assert!(queue.has_active());
        queue.remove("a");
        assert!(queue.take(later).is_none());
    }

    proptest! {
        /// Whatever happens, a Pod that waits is in exactly one list, and is taken in the end.
        #[test]
        fn nothing_is_lost(steps in prop::collection::vec((0u8..6, 0u8..4), 0..150)) {
            let mut now = Instant::now();
            let mut queue = Queue::default();
            let mut flying = Vec::new();
            let mut waiting = std::collections::HashSet::new();
            for (step, n) in steps {
                now += Duration::from_millis(700);
                let name = n.to_string();
                match step {
                    0 => { queue.add(named(&name), false, now); waiting.insert(name); }
                    1 => { queue.remove(&name); waiting.remove(&name); flying.retain(|f| *f != name); }
                    2 => flying.extend(taken(&mut queue, now)),
                    3 => if let Some(name) = flying.pop() { queue.unschedulable(&name, vec!["F"], now); },
                    4 => if let Some(name) = flying.pop() { queue.failed(&name, now); },
                    _ => queue.event(|_| true, now),
                }
                prop_assert!(queue.active.len() + queue.timers.len() <= queue.entries.len());
            }
            for name in flying { queue.failed(&name, now); }
            now += FLUSH;
            queue.flush(now);
            while let Some(name) = taken(&mut queue, now) { waiting.remove(&name); }
            prop_assert!(waiting.is_empty(), "lost: {:?}", waiting);
        }
    }
}
