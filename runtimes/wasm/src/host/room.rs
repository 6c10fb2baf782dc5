//! Room for instances within a container's memory limit.
//!
//! The limit holds for all live instances together, and whoever would grow past it is ended. Were
//! instances begun without a look at it, a container would answer 500 under a load that it could
//! well serve one after the other. So an instance waits until what instances have lately held
//! fits beside those that live; the requests that wait are bounded elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which room is counted: a page of WebAssembly.
const PAGE: u64 = 64 << 10;

/// The room of a container.
pub(super) struct Room {
    /// Whether there is a limit, for who begins an instance: without one there is no count.
    is_limited: AtomicBool,
    pages: Mutex<Option<Pages>>,
}

struct Pages {
    free: Arc<Semaphore>,
    all: u32,
}

impl Pages {
    fn new(limit: u64) -> Self {
        let all = u32::try_from((limit / PAGE).max(1)).unwrap_or(u32::MAX);
        let count = usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            all,
        }
    }
}

impl Room {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self {
            is_limited: AtomicBool::new(limit.is_some()),
            pages: Mutex::new(limit.map(Pages::new)),
        }
    }

    /// Instances that live keep what they have of the old limit.
    pub(super) fn set_limit(&self, limit: Option<u64>) {
        let mut pages = self.pages.lock();
        *pages = limit.map(Pages::new);
        self.is_limited.store(limit.is_some(), Ordering::Relaxed);
    }

    /// Waits until so many bytes fit, in the order of the callers. Whoever expects more than all
    /// the room gets all of it; where there is no limit, nobody holds any.
    pub(super) async fn enter(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return None;
        }
        let (free, pages) = {
            let pages = self.pages.lock();
            let pages = pages.as_ref()?;
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
        assert!(room.enter(1 << 20).now_or_never().is_some());
        drop(one);
    }
}
