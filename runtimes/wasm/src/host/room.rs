//! Room for instances within a container's memory limit.
//!
//! The limit holds for all live instances together, and whoever would grow past it is ended. Were
//! instances begun without a look at it, a container would answer 500 under a load that it could
//! well serve one after the other. So an instance waits until what instances have lately held
//! fits beside those that live; the requests that wait are bounded elsewhere.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which room is counted: a page of WebAssembly.
const PAGE: u64 = 64 << 10;

/// The room of a container.
pub(super) struct Room(Mutex<Pages>);

struct Pages {
    free: Arc<Semaphore>,
    all: u32,
}

impl Pages {
    fn new(limit: Option<u64>) -> Self {
        let all = limit.map_or(u32::MAX, |bytes| {
            u32::try_from((bytes / PAGE).max(1)).unwrap_or(u32::MAX)
        });
        let count = usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            all,
        }
    }
}

impl Room {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self(Mutex::new(Pages::new(limit)))
    }

    /// Instances that live keep what they have of the old limit.
    pub(super) fn set_limit(&self, limit: Option<u64>) {
        *self.0.lock() = Pages::new(limit);
    }

    /// Waits until so many bytes fit, in the order of the callers. Whoever expects more than all
    /// the room gets all of it.
    pub(super) async fn enter(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let (free, pages) = {
            let pages = self.0.lock();
            let wanted = u32::try_from(bytes.div_ceil(PAGE)).unwrap_or(u32::MAX);
            (pages.free.clone(), wanted.clamp(1, pages.all))
        };
        free.acquire_many_owned(pages).await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn instances_wait_for_what_they_expect_to_need() {
        let room = Room::new(Some(10 * PAGE));
        let enter = |pages: u64| room.enter(pages * PAGE).now_or_never().flatten();
        let six = enter(6).unwrap();
        assert!(enter(5).is_none());
        let four = enter(4).unwrap();
        assert!(enter(1).is_none());
        drop((six, four));
        // More than there is means alone.
        let all = enter(100).unwrap();
        assert!(enter(0).is_none());
        drop(all);
        room.set_limit(Some(PAGE));
        let one = enter(1).unwrap();
        assert!(enter(1).is_none());
        room.set_limit(None);
        assert!(enter(1 << 20).is_some());
        drop(one);
    }
}
