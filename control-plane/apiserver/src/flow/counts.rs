//! How many objects of a kind there are, as far as the width of a list needs to know: counted when
//! somebody asks, and kept for a while, because each count is a read of the store.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::registry::Registry;
use crate::registry::strategy::Descriptor;

/// How long a count is good enough.
const KEPT: Duration = Duration::from_secs(10);

/// What was counted.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<String, (Instant, usize)>>);

impl Counts {
    /// The number of objects of a kind, not older than a few seconds. Kinds that are not stored
    /// have none.
    pub(crate) async fn of(&self, registry: &Registry, descriptor: &Descriptor) -> usize {
        if descriptor.computed {
            return 0;
        }
        let known = match self.0.lock().get_mut(&descriptor.storage) {
            Some((when, count)) if when.elapsed() < KEPT => return *count,
            // Others take the old one while this one counts.
            Some((when, count)) => {
                *when = Instant::now();
                *count
            }
            None => 0,
        };
        let count = registry.count(descriptor).await.unwrap_or(known);
        self.0
            .lock()
            .insert(descriptor.storage.clone(), (Instant::now(), count));
        count
    }
}
