//! How many objects of a kind there are and how large, as far as the width of a list needs to know:
//! looked up when somebody asks, and kept for a while, because each time is a read of the store.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::registry::Registry;
use crate::registry::list::Stored;
use crate::registry::strategy::Descriptor;

/// How long a count is good enough.
const KEPT: Duration = Duration::from_secs(10);

/// What was counted.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<String, (Instant, Stored)>>);

impl Counts {
    /// What is stored of a kind, not older than a few seconds: nothing of kinds that are computed.
    pub(crate) async fn of(&self, registry: &Registry, descriptor: &Descriptor) -> Stored {
        if descriptor.computed {
            return Stored::default();
        }
        let known = match self.0.lock().get_mut(&descriptor.storage) {
            Some((when, count)) if when.elapsed() < KEPT => return *count,
            // Others take the old one while this one counts.
            Some((when, count)) => {
                *when = Instant::now();
                *count
            }
            None => Stored::default(),
        };
        let count = registry.stored(descriptor).await.unwrap_or(known);
        self.0
            .lock()
            .insert(descriptor.storage.clone(), (Instant::now(), count));
        count
    }
}
