//! Accepting connections and datagrams for others, and passing bytes between two ends.

pub(crate) mod datagrams;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long accepting pauses when it fails.
const PAUSE: Duration = Duration::from_millis(20);

/// Connections that are served at a time; more wait in the kernel's queue.
pub(crate) struct Slots(Arc<Semaphore>);

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }
}

/// Accepts without end, each connection a task of `connections`.
pub(crate) async fn accept<F>(
    listener: &TcpListener,
    slots: &Slots,
    connections: &mut JoinSet<()>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(slot) = slots.0.clone().acquire_owned().await else {
            return;
        };
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // Of that connection, or for want of descriptors: neither ends the port.
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let served = serve(stream, client);
        connections.spawn(async move {
            let _slot = slot;
            served.await;
        });
    }
}

/// Passes bytes both ways until both are done.
pub(crate) async fn join(mut one: TcpStream, mut two: TcpStream) -> io::Result<()> {
    // Both ends are interactive as far as we know.
    let _ = one.set_nodelay(true);
    let _ = two.set_nodelay(true);
    tokio::io::copy_bidirectional(&mut one, &mut two).await?;
    Ok(())
}
