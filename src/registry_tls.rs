//! Serves the embedded registry over TLS with the cluster's certificate.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// How long a handshake, and the headers of a request, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long transfers under way may take once the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    router: Router,
    cancel: CancellationToken,
) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Cancelled too while all places are taken.
        let next = async {
            let place = places.clone().acquire_owned().await?;
            anyhow::Ok((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            next = next => next?,
        };
        let Ok((stream, _)) = accepted else {
            // Of that connection, or for want of descriptors; the listener goes on.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        connections.spawn(async move {
            let _place = place;
            let handshake = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = handshake else {
                return;
            };
            let mut builder = Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE);
            builder.http2().timer(TokioTimer::new());
            let service = TowerToHyperService::new(router);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%error, "a registry connection ended");
            }
        });
    }
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    connections.shutdown().await;
    Ok(())
}
