//! Flow control: how many requests are served at once, and how many may wait.
//!
//! Reads and writes are counted apart, as `--max-requests-inflight` and
//! `--max-mutating-requests-inflight` do. Members of `system:masters` are exempt, so that the
//! cluster can always be repaired, and long-running requests are not counted. Priority and
//! fairness will take the place of these two queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_apimachinery::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{MASTERS, UserInfo};
use crate::request::info::RequestInfo;

/// Longest wait for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Limits of requests in flight.
#[derive(Clone, Copy, Debug)]
pub struct FlowLimits {
    /// Reads that are served at once.
    pub read_only: usize,
    /// Writes that are served at once.
    pub mutating: usize,
    /// Requests of either sort that wait; one more gets 429.
    pub waiting: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            read_only: 400,
            mutating: 200,
            waiting: 1000,
        }
    }
}

struct Lane {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
}

/// The queues.
pub(crate) struct Flow {
    read_only: Lane,
    mutating: Lane,
}

/// Counts one who waits, also when the request is dropped while it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Flow {
    pub(crate) fn new(limits: FlowLimits) -> Self {
        let lane = |places| Lane {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            limit: limits.waiting,
        };
        Self {
            read_only: lane(limits.read_only),
            mutating: lane(limits.mutating),
        }
    }

    /// Waits for a place, which is given back when the permit is dropped.
    ///
    /// # Errors
    /// 429 where too many wait already, or it took too long.
    pub(crate) async fn admit(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
        long_running: bool,
    ) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if long_running || user.in_group(MASTERS) {
            return Ok(None);
        }
        let lane = if info.is_read_only() {
            &self.read_only
        } else {
            &self.mutating
        };
        if let Ok(permit) = lane.places.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        let too_many = || {
            Status::too_many_requests(
                "too many requests are being served, please try again later",
                1,
            )
        };
        if lane.waiting.fetch_add(1, Ordering::Relaxed) >= lane.limit {
            lane.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(too_many());
        }
        let _waiting = Waiting(&lane.waiting);
        match tokio::time::timeout(PATIENCE, lane.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(too_many()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::info::request_info;

    #[tokio::test]
    async fn one_too_many_is_refused_and_administrators_are_not() {
        let flow = Flow::new(FlowLimits {
            read_only: 1,
            mutating: 1,
            waiting: 0,
        });
        let read = request_info(&Method::GET, "/api/v1/pods", false);
        let write = request_info(&Method::POST, "/api/v1/namespaces", false);
        let user = UserInfo::new("system:node:a", &["system:nodes"]);
        let held = flow.admit(&user, &read, false).await.unwrap();
        assert_eq!(
            flow.admit(&user, &read, false).await.unwrap_err().code(),
            429
        );
        assert!(flow.admit(&user, &read, true).await.is_ok());
        assert!(flow.admit(&user, &write, false).await.is_ok());
        assert!(
            flow.admit(&UserInfo::new("admin", &[MASTERS]), &read, false)
                .await
                .is_ok()
        );
        drop(held);
        assert!(flow.admit(&user, &read, false).await.is_ok());
    }
}
