//! Health checks of Services (`healthCheckNodePort`): a load balancer asks every node whether it has
//! endpoints of a Service whose clients are not to be sent on (`externalTrafficPolicy: Local`).
//!
//! Nodes answer as kube-proxy does (`pkg/proxy/healthcheck/service_health.go`). Whatever the path, it
//! is 200 where endpoints are ready on the node and 503 otherwise, with their number. Endpoints that
//! only still serve while they terminate do not count: the balancer is to go elsewhere, while who comes
//! all the same is served. Nothing is answered before all Services and slices are known, for that a node
//! has no endpoints is believed.
//!
//! Each port is a task of [`HealthChecks`], and each connection one that ends with its port's. Ports are
//! bound where NodePorts are, from whose range they come; one that somebody else holds is logged and
//! tried again until it is free or no longer wanted.
//!
//! [`checks`] is pure: which ports there are, and what is answered there.
//!
//! Deliberately absent: the health of whoever forwards, which kube-proxy also tells. It is the agent who
//! answers, from the rules that it has just made.

mod plan;
mod serve;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use plan::Check;
pub(crate) use plan::checks;

/// How long a port that is taken is left alone.
const RETRY: Duration = Duration::from_secs(3);

/// The ports at which a node answers.
pub(crate) struct HealthChecks {
    address: IpAddr,
    /// How long a port that is taken is left alone.
    retry: Duration,
    open: BTreeMap<u16, watch::Sender<Check>>,
    tasks: JoinSet<()>,
}

impl HealthChecks {
    pub(crate) fn new(address: IpAddr) -> Self {
        Self {
            address,
            retry: RETRY,
            open: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens and closes ports so that they are the wanted ones, and tells the others what to answer.
    pub(crate) fn update(&mut self, wanted: BTreeMap<u16, Check>) {
        // A sender that is dropped ends its port's task.
        self.open.retain(|port, _| wanted.contains_key(port));
        while self.tasks.try_join_next().is_some() {}
        for (port, check) in wanted {
            match self.open.entry(port) {
                Entry::Occupied(open) => {
                    open.get().send_if_modified(|current| {
                        let differs = *current != check;
                        *current = check;
                        differs
                    });
                }
                Entry::Vacant(place) => {
                    let (sender, check) = watch::channel(check);
                    let address = SocketAddr::new(self.address, port);
                    self.tasks.spawn(serve::run(address, check, self.retry));
                    place.insert(sender);
                }
            }
        }
    }

    /// Closes everything.
    pub(crate) async fn close(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
