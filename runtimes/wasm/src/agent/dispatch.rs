//! Ports of the node that HTTP hosts accept by themselves.
//!
//! A port is at one host at a time. The host tells when no endpoint is left, and each dispatch has
//! a number, so that what it tells of an earlier one is not taken for the present one.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_runtime::{PortBackends, PortDispatcher};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::WasmRuntime;
use super::process::Process;
use crate::protocol::{Dispatch, Request, Response};

/// How long a host may take to begin or end accepting; it waits for nothing.
const ANSWER: Duration = Duration::from_secs(5);

/// The ports that are dispatched.
#[derive(Default)]
pub(super) struct Dispatches {
    /// Held while a host is told, so that hosts hear in the order in which the runtime was asked.
    order: tokio::sync::Mutex<()>,
    ports: Mutex<HashMap<u16, Dispatched>>,
    last: AtomicU64,
}

#[derive(Clone)]
struct Dispatched {
    host: Arc<Process>,
    number: u64,
    /// Cancelled when the host serves the port no longer.
    unserved: CancellationToken,
}

impl Dispatches {
    /// A host has no endpoint left for a port.
    pub(super) fn unserved(&self, port: u16, number: u64) {
        self.take_if(port, |dispatched| dispatched.number == number);
    }

    /// A host has ended.
    pub(super) fn forget(&self, host: &Arc<Process>) {
        self.ports.lock().retain(|_, dispatched| {
            let stays = !Arc::ptr_eq(&dispatched.host, host);
            if !stays {
                dispatched.unserved.cancel();
            }
            stays
        });
    }

    /// Lets go of all hosts, which withdraw what this agent dispatched.
    pub(super) fn clear(&self) {
        for (_, dispatched) in self.ports.lock().drain() {
            dispatched.unserved.cancel();
        }
    }

    fn take_if(&self, port: u16, test: impl Fn(&Dispatched) -> bool) -> Option<Dispatched> {
        let mut ports = self.ports.lock();
        if !ports.get(&port).is_some_and(test) {
            return None;
        }
        let taken = ports.remove(&port);
        if let Some(dispatched) = &taken {
            dispatched.unserved.cancel();
        }
        taken
    }

    async fn withdraw(&self, port: u16, test: impl Fn(&Dispatched) -> bool) {
        let Some(dispatched) = self.take_if(port, test) else {
            return;
        };
        let request = dispatched.host.request(Request::Withdraw { port });
        match tokio::time::timeout(ANSWER, request).await {
            Ok(Ok(_)) => {}
            // It is gone, and its listener with it.
            Ok(Err(error)) => tracing::debug!(port, %error, "withdrawing a port"),
            Err(_) => tracing::warn!(
                port,
                "an HTTP host does not answer: until it does, it may accept connections to a \
                 port that it serves no longer"
            ),
        }
    }
}

#[async_trait]
impl PortDispatcher for WasmRuntime {
    async fn dispatch(
        &self,
        socket: &OwnedFd,
        backends: PortBackends,
    ) -> io::Result<Option<BoxFuture<'static, ()>>> {
        let dispatches = &self.0.dispatches;
        let _order = dispatches.order.lock().await;
        let PortBackends {
            port,
            endpoints,
            affinity,
        } = backends;
        let hosts = self.0.hosts.running();
        let host = hosts
            .into_iter()
            .find(|host| !endpoints.is_empty() && host.client().may_take(&endpoints));
        let Some(host) = host else {
            dispatches.withdraw(port, |_| true).await;
            return Ok(None);
        };
        let socket = match socket.try_clone() {
            Ok(socket) => socket,
            Err(error) => {
                dispatches.withdraw(port, |_| true).await;
                return Err(error);
            }
        };
        let elsewhere = |before: &Dispatched| !Arc::ptr_eq(&before.host, &host);
        dispatches.withdraw(port, elsewhere).await;

        let number = dispatches.last.fetch_add(1, Ordering::Relaxed);
        let unserved = {
            let mut ports = dispatches.ports.lock();
            let before = ports.get(&port).map(|before| before.unserved.clone());
            let unserved = before.unwrap_or_default();
            let dispatched = Dispatched {
                host: host.clone(),
                number,
                unserved: unserved.clone(),
            };
            ports.insert(port, dispatched);
            unserved
        };
        let request = Request::Dispatch(Dispatch {
            number,
            port,
            endpoints,
            affinity,
        });
        let answer = host.client().request_with(request, vec![socket]);
        let failure = match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(Response::Done)) => {
                let gone = host.client().closed_token();
                return Ok(Some(Box::pin(async move {
                    tokio::select! {
                        () = unserved.cancelled() => {}
                        () = gone.cancelled() => {}
                    }
                })));
            }
            Ok(Ok(Response::Failed(message))) => io::Error::other(message),
            Ok(Ok(other)) => io::Error::other(format!("the HTTP host answered {other:?}")),
            Ok(Err(error)) => error,
            Err(_) => {
                let error = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the HTTP host does not answer to the dispatch of port {port}"),
                );
                // Should it hear later, then of both.
                dispatches.withdraw(port, |now| now.number == number).await;
                error
            }
        };
        dispatches.take_if(port, |now| now.number == number);
        Err(failure)
    }

    async fn withdraw(&self, port: u16) {
        let dispatches = &self.0.dispatches;
        let _order = dispatches.order.lock().await;
        dispatches.withdraw(port, |_| true).await;
    }
}
