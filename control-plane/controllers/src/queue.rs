//! The work queue of a controller.
//!
//! [`Queue`] is the decision: a key waits at most once, is worked on by one worker at a time,
//! becomes dirty when it is added meanwhile, backs off exponentially after failures, and is not
//! handed out again within `pace` of its last start, so that a burst of changes costs one pass.
//! It holds no lock and reads no clock. [`WorkQueue`] shares one between tasks, and
//! [`WorkQueue::drive`] is the loop that works it off, by a function or by a controller
//! ([`Reconcile`]).
//!
//! Its size is bounded by the number of keys that exist.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// The first wait after a failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// The longest wait after failures.
const LAST_BACKOFF: Duration = Duration::from_secs(300);

/// A controller that is more than a function.
pub(crate) trait Reconcile<K>: Send + Sync + 'static {
    /// One pass over a key; after how long it is to be looked at again.
    fn reconcile(&self, key: K) -> impl Future<Output = Result<Option<Duration>, Error>> + Send;
}

/// How one pass over a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// Look again after this long.
    After(Duration),
    /// Try again with back-off.
    Failed,
}

#[derive(Debug, Default)]
struct Entry {
    phase: Phase,
    failures: u32,
    started: Option<Instant>,
    timer: Option<(Instant, u64)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Queued,
    Running,
    /// Running, and added again meanwhile.
    Dirty,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    pace: Duration,
    entries: HashMap<K, Entry>,
    ready: VecDeque<K>,
    timers: BTreeMap<(Instant, u64), K>,
    sequence: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(crate) fn new(pace: Duration) -> Self {
        Self {
            pace,
            entries: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Asks for a pass over `key` as soon as its pace allows.
    pub(crate) fn add(&mut self, key: K, now: Instant) {
        let pace = self.pace;
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.phase {
            Phase::Queued | Phase::Dirty => {}
            Phase::Running => entry.phase = Phase::Dirty,
            Phase::Idle => match entry.started.map(|s| s + pace).filter(|at| *at > now) {
                Some(at) => self.add_at(key, at),
                None => {
                    entry.phase = Phase::Queued;
                    self.ready.push_back(key);
                }
            },
        }
    }

    /// Asks for a pass over `key` at `at`, or earlier when one was asked for already.
    pub(crate) fn add_at(&mut self, key: K, at: Instant) {
        self.sequence += 1;
        let stamp = (at, self.sequence);
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.timer {
            Some((earlier, _)) if earlier <= at => return,
            Some(later) => drop(self.timers.remove(&later)),
            None => {}
        }
        entry.timer = Some(stamp);
        self.timers.insert(stamp, key);
    }

    /// The next key to work on, if one is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(due) = self.timers.first_entry().filter(|t| t.key().0 <= now) {
            let key = due.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.timer = None;
            }
            self.add(key, now);
        }
        let key = self.ready.pop_front()?;
        let entry = self.entries.entry(key.clone()).or_default();
        entry.phase = Phase::Running;
        entry.started = Some(now);
        Some(key)
    }

    /// Ends the pass over `key`.
    pub(crate) fn done(&mut self, key: &K, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let dirty = entry.phase == Phase::Dirty;
        entry.phase = Phase::Idle;
        let wait = match outcome {
            Outcome::Failed => {
                let factor = 1u32.checked_shl(entry.failures).unwrap_or(u32::MAX);
                entry.failures = entry.failures.saturating_add(1).min(31);
                Some(FIRST_BACKOFF.saturating_mul(factor).min(LAST_BACKOFF))
            }
            Outcome::Done => None,
            Outcome::After(wait) => Some(wait),
        };
        if outcome != Outcome::Failed {
            entry.failures = 0;
        }
        if let Some(wait) = wait {
            self.add_at(key.clone(), now + wait);
        }
        if dirty {
            self.add(key.clone(), now);
        }
        self.forget(key, now);
    }

    /// When the next key becomes due; `None` while nothing waits for the clock.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Drops an entry that carries nothing to remember. One that is within its pace is kept
    /// until a sweep, which happens when the queue is empty and so costs nothing.
    fn forget(&mut self, key: &K, now: Instant) {
        let pace = self.pace;
        let idle = |e: &Entry| e.phase == Phase::Idle && e.timer.is_none() && e.failures == 0;
        let stale = |e: &Entry| idle(e) && e.started.is_none_or(|s| s + pace <= now);
        if self.entries.get(key).is_some_and(stale) {
            self.entries.remove(key);
        } else if self.ready.is_empty() && self.entries.len() > 256 {
            self.entries.retain(|_, e| !stale(e));
        }
    }
}

/// A [`Queue`] shared between the tasks that add to it and the loop that works it off.
#[derive(Debug)]
pub(crate) struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    queue: Mutex<Queue<K>>,
    changed: Notify,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        let shared = self.shared.clone();
        Self { shared }
    }
}

impl<K> WorkQueue<K>
where
    K: Clone + Debug + Eq + Hash + Send + Sync + 'static,
{
    pub(crate) fn new(pace: Duration) -> Self {
        let shared = Shared {
            queue: Mutex::new(Queue::new(pace)),
            changed: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Asks for a pass over `key`.
    pub(crate) fn add(&self, key: K) {
        self.lock().add(key, Instant::now());
        self.shared.changed.notify_one();
    }

    /// Works the queue off until `cancel`, at most `workers` keys at a time, never the same key
    /// twice at once. Passes under way are dropped at their next await when `cancel` fires.
    pub(crate) async fn drive<F, Fut>(
        &self,
        controller: &'static str,
        workers: usize,
        cancel: CancellationToken,
        reconcile: F,
    ) where
        F: Fn(K) -> Fut,
        Fut: Future<Output = Result<Option<Duration>, Error>> + Send + 'static,
    {
        let mut running = JoinSet::new();
        let mut keys = HashMap::new();
        loop {
            while running.len() < workers {
                let Some(key) = self.lock().take(Instant::now()) else {
                    break;
                };
                let task = running.spawn(reconcile(key.clone()));
                keys.insert(task.id(), key);
            }
            let due = self.lock().next_due().filter(|_| running.len() < workers);
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return running.shutdown().await,
                () = self.shared.changed.notified() => {}
                () = timer => {}
                Some(ended) = running.join_next_with_id() => {
                    let (id, outcome) = match ended {
                        Ok((id, result)) => (id, result.map_err(Some)),
                        // A pass that panicked is a bug of that pass: its key is tried again.
                        Err(error) => (error.id(), Err(None)),
                    };
                    if let Some(key) = keys.remove(&id) {
                        let outcome = judge(controller, &key, outcome);
                        self.lock().done(&key, outcome, Instant::now());
                    }
                }
            }
        }
    }

    /// The same by a controller.
    pub(crate) async fn run<C: Reconcile<K>>(
        &self,
        name: &'static str,
        workers: usize,
        cancel: CancellationToken,
        controller: Arc<C>,
    ) {
        let reconcile = |key: K| {
            let controller = controller.clone();
            async move { controller.reconcile(key).await }
        };
        self.drive(name, workers, cancel, reconcile).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue<K>> {
        self.shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge<K: Debug>(
    controller: &str,
    key: &K,
    result: Result<Option<Duration>, Option<Error>>,
) -> Outcome {
    match result {
        Ok(None) => Outcome::Done,
        Ok(Some(wait)) => Outcome::After(wait),
        Err(Some(error)) if error.is_stale() => {
            tracing::debug!(controller, ?key, %error, "the cache was behind, trying again");
            Outcome::Failed
        }
        Err(Some(error)) => {
            tracing::warn!(controller, ?key, %error, "reconcile failed, will retry");
            Outcome::Failed
        }
        Err(None) => {
            tracing::error!(controller, ?key, "reconcile panicked, will retry");
            Outcome::Failed
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: Duration = Duration::from_millis(20);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_key_waits_once_and_runs_once_at_a_time() {
        let now = Instant::now();
        let mut queue = Queue::new(Duration::ZERO);
        queue.add("a", now);
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        assert_eq!(queue.take(now), None);
        queue.add("a", now);
        assert_eq!(queue.take(now), None, "it is being worked on");
        queue.done(&"a", Outcome::Done, now);
        assert_eq!(queue.take(now), Some("a"), "it was added meanwhile");
        queue.done(&"a", Outcome::Done, now);
        assert_eq!(queue.take(now), None);
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn a_burst_is_paced() {
        let now = Instant::now();
        let mut queue = Queue::new(PACE);
        queue.add(1, now);
        assert_eq!(
            queue.take(now),
            Some(1),
            "the first change is served at once"
        );
        queue.done(&1, Outcome::Done, now);
        queue.add(1, now + ms(1));
        queue.add(1, now + ms(2));
        assert_eq!(queue.take(now + ms(2)), None);
        assert_eq!(queue.next_due(), Some(now + PACE));
        assert_eq!(queue.take(now + PACE), Some(1));
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let mut now = Instant::now();
        let mut queue = Queue::new(Duration::ZERO);
        queue.add(1, now);
        for expected in [5, 10, 20, 40] {
            assert_eq!(queue.take(now), Some(1));
            queue.done(&1, Outcome::Failed, now);
            assert_eq!(queue.next_due(), Some(now + ms(expected)));
            now += ms(expected);
        }
        assert_eq!(queue.take(now), Some(1));
        queue.done(&1, Outcome::After(ms(7)), now);
        assert_eq!(queue.next_due(), Some(now + ms(7)));
    }

    proptest! {
        /// Whatever happens, no key runs twice at once and none that was added is lost.
        #[test]
        fn nothing_is_lost_and_nothing_doubled(steps in prop::collection::vec((0u8..4, 0u8..3), 1..200)) {
            let mut now = Instant::now();
            let mut queue = Queue::new(PACE);
            let mut running: Vec<u8> = Vec::new();
            let mut wanted = std::collections::HashSet::new();
            for (step, key) in steps {
                now += ms(3);
                match step {
                    0 => { queue.add(key, now); wanted.insert(key); }
                    1 => if let Some(key) = queue.take(now) {
                        prop_assert!(!running.contains(&key));
                        running.push(key);
                        wanted.remove(&key);
                    },
                    2 => if let Some(key) = running.pop() { queue.done(&key, Outcome::Done, now); },
                    _ => if let Some(key) = running.pop() {
                        queue.done(&key, Outcome::Failed, now);
                        wanted.insert(key);
                    },
                }
            }
            for key in running { queue.done(&key, Outcome::Done, now); }
            now += LAST_BACKOFF;
            while let Some(key) = queue.take(now) { wanted.remove(&key); }
            prop_assert!(wanted.is_empty(), "lost: {wanted:?}");
        }
    }
}
