//! Watches: who wants to hear of which keys, and the bounded queue to each.
//!
//! The hub is owned by the [`crate::replica::Replica`] and dispatches under its lock, so a
//! subscriber misses nothing between the history that it begins with and its queue. A subscriber
//! that does not keep up loses its queue and is told to list again: nobody waits for it. What one of
//! them makes of a change that waits in several queues is there for the others ([`Encodings`]).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream;
use tokio::sync::{mpsc, watch};

use crate::encodings::{Encodings, Recent, Told};
use crate::state::Change;
use crate::types::{Error, Event, Result, Revision, Watch};

/// Changes that wait for one subscriber. A list of ten thousand Pods scaled at once fits.
const QUEUE: usize = 16_384;

/// The subscribers, by the prefix that they watch.
#[derive(Default)]
pub(crate) struct Hub {
    by_prefix: HashMap<Arc<str>, Vec<Subscriber>>,
    /// How many prefixes of each length there are: which parts of a key to look up.
    lengths: BTreeMap<usize, usize>,
    /// What lies beside the changes that wait.
    recent: Arc<Recent>,
}

struct Subscriber {
    queue: mpsc::Sender<Arc<Told>>,
    fate: Arc<Fate>,
}

/// Why a queue ended: 0 while it has not, or with the store; else one more than the oldest
/// revision that was retained when the subscriber was cut off.
#[derive(Default)]
struct Fate(AtomicU64);

impl Hub {
    /// Sends a change to whom it concerns. `floor` is the oldest retained revision.
    pub(crate) fn dispatch(&mut self, change: &Arc<Change>, floor: Revision) {
        let key = change.key();
        let mut emptied = Vec::new();
        // Made where there is anybody to be told.
        let mut told = None;
        for length in self
            .lengths
            .keys()
            .take_while(|length| **length <= key.len())
        {
            let Some(prefix) = key.get(..*length) else {
                continue;
            };
            let Some(subscribers) = self.by_prefix.get_mut(prefix) else {
                continue;
            };
            let told = told.get_or_insert_with(|| Told::new(change.clone(), self.recent.clone()));
            subscribers.retain(|subscriber| subscriber.offer(told, floor));
            if subscribers.is_empty() {
                emptied.push(prefix);
            }
        }
        for prefix in emptied {
            self.forget(prefix);
        }
    }

    /// Cuts off every subscriber: the history jumped.
    pub(crate) fn expire_all(&mut self, floor: Revision) {
        for subscriber in self.by_prefix.values().flatten() {
            subscriber.fate.0.store(floor + 1, Ordering::Release);
        }
        self.by_prefix.clear();
        self.lengths.clear();
    }

    /// A watch that first tells `backlog` and then what is dispatched from now on. `now` is the
    /// revision that the backlog ends at.
    pub(crate) fn subscribe(
        &mut self,
        prefix: &str,
        backlog: VecDeque<Arc<Change>>,
        now: Revision,
        progress: watch::Receiver<Revision>,
    ) -> Watch {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let fate = Arc::new(Fate::default());
        let subscriber = Subscriber {
            queue,
            fate: fate.clone(),
        };
        if !self.by_prefix.contains_key(prefix) {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        // Those who left are otherwise noticed only when a change concerns them.
        let subscribers = self.by_prefix.entry(prefix.into()).or_default();
        subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        subscribers.push(subscriber);
        let told = Telling {
            backlog,
            now: Some(now),
            told: 0,
            receiver,
            progress,
            fate,
        };
        stream::unfold(Some(told), async |telling| {
            let mut telling = telling?;
            match telling.next().await {
                Ok(event) => Some((Ok(event), Some(telling))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    fn forget(&mut self, prefix: &str) {
        self.by_prefix.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}

impl Subscriber {
    /// Whether the subscriber stays.
    fn offer(&self, told: &Arc<Told>, floor: Revision) -> bool {
        match self.queue.try_send(told.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.fate.0.store(floor + 1, Ordering::Release);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// The receiving end of a watch.
struct Telling {
    backlog: VecDeque<Arc<Change>>,
    /// Until the backlog is told: the revision that it ends at.
    now: Option<Revision>,
    /// The newest revision that was told.
    told: Revision,
    receiver: mpsc::Receiver<Arc<Told>>,
    progress: watch::Receiver<Revision>,
    fate: Arc<Fate>,
}

impl Telling {
    async fn next(&mut self) -> Result<Event> {
        if let Some(change) = self.backlog.pop_front() {
            self.told = change.revision;
            return Ok(change.event(Encodings::default()));
        }
        if let Some(now) = self.now.take() {
            self.told = now;
            return Ok(Event::Progress(now));
        }
        loop {
            tokio::select! {
                biased;
                told = self.receiver.recv() => {
                    return match told {
                        Some(told) => Ok(self.tell(told)),
                        None => Err(self.ended()),
                    };
                }
                // Published after everything up to it was queued; as the queue is looked at
                // first, all of that has been told.
                Ok(()) = self.progress.changed() => {
                    let revision = *self.progress.borrow_and_update();
                    if let Ok(told) = self.receiver.try_recv() {
                        return Ok(self.tell(told));
                    }
                    if revision > self.told {
                        self.told = revision;
                        return Ok(Event::Progress(revision));
                    }
                }
            }
        }
    }

    fn tell(&mut self, told: Arc<Told>) -> Event {
        self.told = told.revision();
        told.event()
    }

    fn ended(&self) -> Error {
        match self.fate.0.load(Ordering::Acquire).checked_sub(1) {
            Some(oldest) => Error::Expired {
                requested: self.told,
                oldest,
            },
            None => Error::Unavailable("the store is shutting down".to_owned()),
        }
    }
}
