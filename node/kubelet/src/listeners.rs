//! Hands what guests listen on to the network of the node.
//!
//! One task asks the runtimes, for as many requests as have gathered meanwhile.

use std::time::Duration;

use tokio::sync::watch;

use crate::pod_network::PodNetwork;
use crate::router::Router;

/// How long anybody waits for a pass; a runtime that does not answer holds nobody up for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Counts of passes, wanted and done.
#[derive(Default)]
pub(crate) struct Listeners {
    wanted: watch::Sender<u64>,
    done: watch::Sender<u64>,
}

impl Listeners {
    /// Asks for a pass.
    pub(crate) fn request(&self) {
        self.wanted.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Waits for a pass that begins after this call.
    pub(crate) async fn settled(&self) {
        self.request();
        let wanted = *self.wanted.borrow();
        let mut done = self.done.subscribe();
        let wait = done.wait_for(|done| *done >= wanted);
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            tracing::debug!("the runtimes are slow to say what guests listen on");
        }
    }

    /// Makes passes, for ever.
    pub(crate) async fn forward(&self, router: &Router, network: &dyn PodNetwork) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let pass = *wanted.borrow_and_update();
            let mut all = Vec::new();
            for runtime in router.all() {
                match runtime.listeners().await {
                    Ok(listeners) => all.extend(listeners),
                    Err(error) => tracing::warn!(%error, "cannot read what guests listen on"),
                }
            }
            network.set_listeners(all);
            self.done.send_replace(pass);
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }
}
