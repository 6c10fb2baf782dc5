//! Shares of the pool from which instances come.
//!
//! The pool holds so many instances, memories and tables for all Pods of the process. It is counted in
//! *units* of what an ordinary instance takes, and one that takes more costs as many. A Pod has a
//! share, past which its own requests wait. Where many Pods use theirs, say all replicas of a
//! Deployment whose database hangs, they leave a part of the pool to those that have little of it.

use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::component::Component;

use crate::guest::engine::{MAX_INSTANCES, MAX_TABLES_OF_ONE, MEMORIES, TABLES};

/// Units of a Pod: as many ordinary instances at a time.
pub(super) const SHARE: u32 = 128;
/// Units of the pool for Pods that have few.
const KEPT: u32 = MAX_INSTANCES / 4;
/// What is few, in units.
const FEW: u32 = 8;
/// Units that nobody is given: an instance that is cut off may outlive its place by a moment.
const SLACK: u32 = 64;
/// What no instance costs more than.
const MAX_COST: u32 = MAX_TABLES_OF_ONE / TABLES;

/// What an instance of a component costs, in units.
pub(super) fn cost(component: &Component) -> u32 {
    // Only a component that imports modules does not know, and there are none to import.
    component.resources_required().map_or(MAX_COST, |required| {
        units(required.num_memories, required.num_tables)
    })
}

fn units(memories: u32, tables: u32) -> u32 {
    let most = memories.div_ceil(MEMORIES).max(tables.div_ceil(TABLES));
    most.clamp(1, MAX_COST)
}

/// The pool of the process.
pub(super) struct Pool {
    free: Semaphore,
    kept: Semaphore,
}

/// Units of one Pod that come from those kept.
pub(super) struct Few(Semaphore);

/// The place of one instance.
pub(super) struct Place<'a> {
    _units: SemaphorePermit<'a>,
    _few: Option<SemaphorePermit<'a>>,
}

impl Few {
    /// Of a Pod whose instances cost so much: it may have one at least.
    pub(super) fn new(cost: u32) -> Self {
        Self(Semaphore::new(FEW.max(cost) as usize))
    }
}

impl Pool {
    pub(super) fn new() -> Self {
        Self::of(MAX_INSTANCES - KEPT - SLACK, KEPT)
    }

    fn of(free: u32, kept: u32) -> Self {
        Self {
            free: Semaphore::new(free as usize),
            kept: Semaphore::new(kept as usize),
        }
    }

    /// Waits for a place for an instance that costs so much, in the order of the callers.
    pub(super) async fn enter<'a>(&'a self, few: &'a Few, cost: u32) -> Option<Place<'a>> {
        if let Ok(units) = self.free.try_acquire_many(cost) {
            return Some(Place {
                _units: units,
                _few: None,
            });
        }
        let few = few.0.try_acquire_many(cost).ok();
        let from = if few.is_some() {
            &self.kept
        } else {
            &self.free
        };
        // Nobody closes them.
        let units = from.acquire_many(cost).await.ok()?;
        Some(Place {
            _units: units,
            _few: few,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_instance_costs_what_it_takes_of_the_pool() {
        for (memories, tables, expected) in [
            (0, 0, 1),
            (1, 1, 1),
            (2, 4, 1),
            (3, 4, 2),
            (2, 5, 2),
            (8, 64, 16),
            (1, 1000, MAX_COST),
        ] {
            assert_eq!(units(memories, tables), expected, "{memories} {tables}");
        }
        let engine = crate::guest::engine::on_demand().unwrap();
        let module = "(core module $m (memory 1) (memory 1) (table 0 funcref))";
        let instances = "(core instance (instantiate $m))".repeat(3);
        let text = format!("(component {module} {instances})");
        let component = Component::new(&engine, text).unwrap();
        assert_eq!(cost(&component), 3);
    }

    #[test]
    fn a_flood_leaves_places_to_its_neighbours() {
        let pool = Pool::of(10, 20);
        let (flood, quiet) = (Few::new(1), Few::new(16));
        let mut places: Vec<_> = std::iter::from_fn(|| pool.enter(&flood, 1).now_or_never())
            .take(1000)
            .collect();
        assert_eq!(places.len(), 10 + FEW as usize);
        let costly = pool.enter(&quiet, 16).now_or_never();
        assert!(costly.is_none(), "8 of 20 are taken");
        // One that waited took nothing along.
        places.truncate(10);
        assert!(pool.enter(&quiet, 16).now_or_never().flatten().is_some());
        let mut waits = Box::pin(pool.enter(&flood, 10));
        assert!(waits.as_mut().now_or_never().is_none());
        places.clear();
        assert!(waits.now_or_never().flatten().is_some());
    }

    proptest! {
        /// Whatever Pods have, the pool holds it; and who has none finds a place, while there are not
        /// too many of them.
        #[test]
        fn the_pool_holds_all_places(
            steps in proptest::collection::vec((0..12_usize, any::<bool>()), 1..300),
        ) {
            const COSTS: [u32; 3] = [1, 3, 16];
            let (free, kept) = (40, 12 * 16);
            let pool = Pool::of(free, kept);
            let costs = (0..12).map(|pod| COSTS[pod % 3]);
            let pods: Vec<_> = costs.map(|cost| (cost, Few::new(cost))).collect();
            let mut live: Vec<(usize, Place<'_>)> = Vec::new();
            for (pod, begins) in steps {
                let (cost, few) = &pods[pod];
                if begins {
                    let has = live.iter().any(|(of, _)| *of == pod);
                    match pool.enter(few, *cost).now_or_never() {
                        Some(place) => live.push((pod, place.unwrap())),
                        None => prop_assert!(has, "{pod} waits and has none"),
                    }
                } else if let Some(at) = live.iter().position(|(of, _)| *of == pod) {
                    live.swap_remove(at);
                }
                let taken: u32 = live.iter().map(|(of, _)| pods[*of].0).sum();
                prop_assert!(taken <= free + kept);
            }
        }
    }
}
