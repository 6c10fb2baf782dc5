//! Services for a node that runs beside a server: the controllers' watches serve it too.

use coracle_controllers::informer::Informers;
use coracle_network::ServiceFeed;
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

/// What these informers have of Services, from now on.
pub(crate) fn of(informers: &Informers) -> ServiceFeed {
    let (services, slices) = (&informers.services, &informers.endpoint_slices);
    let changes = stream::select(
        changes(services.subscribe()).boxed(),
        changes(slices.subscribe()).boxed(),
    );
    let listed = futures::future::join(listed(services.ready()), listed(slices.ready()));
    ServiceFeed {
        services: services.store().clone(),
        slices: slices.store().clone(),
        changes: changes.boxed(),
        ready: listed.map(|_| ()).boxed(),
    }
}

/// That something changed, for everything that changes.
fn changes<T: Clone + Send + 'static>(
    receiver: broadcast::Receiver<T>,
) -> impl Stream<Item = ()> + Send {
    stream::unfold(receiver, async |mut receiver| match receiver.recv().await {
        // Whoever was too slow has missed some: that is a change too.
        Ok(_) | Err(RecvError::Lagged(_)) => Some(((), receiver)),
        Err(RecvError::Closed) => None,
    })
}

/// Ends when a cache is filled, which never happens if nobody fills it any more.
async fn listed(mut ready: watch::Receiver<bool>) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_missed_is_a_change() {
        let (sender, receiver) = broadcast::channel(2);
        for change in 0..5 {
            sender.send(change).unwrap();
        }
        drop(sender);
        // One that says how many were missed, and the two that are left.
        assert_eq!(changes(receiver).count().await, 3);
    }

    #[tokio::test]
    async fn a_cache_that_is_never_filled_is_never_listed() {
        let filled = watch::Sender::new(false);
        let waiting = listed(filled.subscribe());
        filled.send_replace(true);
        waiting.await;
        let never = listed(watch::Sender::new(false).subscribe());
        assert_eq!(never.now_or_never(), None);
    }
}
