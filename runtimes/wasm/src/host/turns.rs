//! Whose turn it is on a core.
//!
//! Requests run within the tasks of their connections, and most end in their first poll. Were they
//! all to run as they come, a flood of connections to one Pod would stand in a core's run queue
//! before its neighbours. So of each Pod so many begin in a *round* of the queue, and the others
//! wait in the order in which they came: a round is over when a task that was queued as its first
//! request began gets its poll, for by then all that stood before it have had theirs.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

/// Requests of a Pod that begin in a round of a core.
const BEGINNING: usize = 2;

/// The turns of one Pod on one core.
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BEGINNING)))
    }
}

/// The rounds of one core.
#[derive(Default)]
pub(super) struct Rounds {
    /// Whose turns were taken in this round.
    taken: Mutex<Vec<Arc<Semaphore>>>,
    begun: Notify,
}

impl Rounds {
    /// Waits for a turn, and takes it.
    pub(super) async fn turn(&self, of: &Turns) {
        // Nobody closes it.
        if let Ok(turn) = of.0.acquire().await {
            turn.forget();
            self.taken.lock().push(of.0.clone());
            self.begun.notify_one();
        }
    }

    /// Ends rounds for ever; a task of the core.
    pub(super) async fn run(&self) {
        let mut ended = Vec::new();
        loop {
            self.begun.notified().await;
            std::mem::swap(&mut ended, &mut *self.taken.lock());
            for turn in ended.drain(..) {
                turn.add_permits(1);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A task that is ready behind a flood is polled after two of it, not after all.
    #[test]
    fn a_flood_stands_behind_its_neighbours() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        runtime.block_on(async {
            let rounds = Arc::new(Rounds::default());
            let of = rounds.clone();
            tokio::spawn(async move { of.run().await });
            let (flooded, quiet) = (Arc::new(Turns::new()), Arc::new(Turns::new()));
            let request = |of: &Arc<Turns>, name| {
                let (rounds, of, order) = (rounds.clone(), of.clone(), order.clone());
                tokio::spawn(async move {
                    rounds.turn(&of).await;
                    order.lock().push(name);
                })
            };
            let mut requests: Vec<_> = (0..5).map(|_| request(&flooded, "flood")).collect();
            requests.push(request(&quiet, "quiet"));
            requests.extend((0..5).map(|_| request(&flooded, "flood")));
            for request in requests {
                request.await.unwrap();
            }
        });
        let order = order.lock();
        assert_eq!(order.len(), 11);
        assert_eq!(order[2], "quiet", "{order:?}");
    }

    /// A request that goes away while it waits takes no turn with it.
    #[test]
    fn who_waits_no_more_leaves_its_turn_to_the_next() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let rounds = Arc::new(Rounds::default());
            let turns = Turns::new();
            for _ in 0..BEGINNING {
                rounds.turn(&turns).await;
            }
            {
                let mut gone = std::pin::pin!(rounds.turn(&turns));
                assert!(futures::poll!(gone.as_mut()).is_pending());
            }
            let of = rounds.clone();
            tokio::spawn(async move { of.run().await });
            for _ in 0..10 * BEGINNING {
                rounds.turn(&turns).await;
            }
        });
    }
}
