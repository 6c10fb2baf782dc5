//! What a guest may have open at a time, in all its instances together: one guest must not take the
//! descriptors of a process that serves many.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A guest's sockets: its own, those that it accepted, and the connections of its outgoing HTTP
/// requests.
pub(crate) const MAX_SOCKETS: usize = 1024;
/// Files and folders that a guest has opened in its volumes.
pub(crate) const MAX_FILES: usize = 1024;

/// What a guest may still open.
#[derive(Clone)]
pub(crate) struct Quota(Arc<Semaphore>);

/// One of a guest's quota, for as long as this is held.
pub(crate) struct Permit(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Quota {
    /// So many for one guest.
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    pub(crate) fn take(&self) -> Option<Permit> {
        self.0.clone().try_acquire_owned().ok().map(Permit)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn instances_of_a_guest_share_its_quota_and_guests_do_not() {
        let (quota, other) = (Quota::new(MAX_SOCKETS), Quota::new(1));
        let instance = quota.clone();
        let mut held: Vec<_> = std::iter::from_fn(|| instance.take()).collect();
        assert_eq!(held.len(), MAX_SOCKETS);
        assert!(quota.take().is_none());
        assert!(other.take().is_some());
        held.pop();
        assert!(quota.take().is_some());
    }
}
