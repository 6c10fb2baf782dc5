//! Connections: TLS with HTTP/1.1 and HTTP/2, services in the process, and an orderly end.

mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::auth::UserInfo;
use crate::auth::authentication::{Identity, user_of_certificate};
use crate::config::ApiServer;
use crate::server::Inner;
pub use tls::server_config;

/// Connections that are served at once; more wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the headers of a request may take, the idle time before them included.
const HEADERS: Duration = Duration::from_secs(90);
/// How long requests in flight may take once the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 500;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The server as a tower service.
#[derive(Clone)]
pub struct ApiService {
    inner: Arc<Inner>,
    identity: Option<UserInfo>,
}

impl ApiService {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            identity: None,
        }
    }

    /// The same service, for requests of this user.
    #[must_use]
    pub fn with_identity(mut self, user: UserInfo) -> Self {
        self.identity = Some(user);
        self
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        if let Some(user) = &self.identity {
            request.extensions_mut().insert(Identity(user.clone()));
        }
        let inner = self.inner.clone();
        Box::pin(async move { Ok(inner.handle(request).await) })
    }
}

impl ApiServer {
    /// Serves connections until cancelled, then lets the requests in flight end; watches are
    /// ended. Callers are known by their client certificates, which `tls` must ask for and
    /// verify ([`server_config`]).
    ///
    /// # Errors
    /// Where the listener fails for good.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) -> io::Result<()> {
        let acceptor = TlsAcceptor::from(tls);
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                // Those that have ended make room.
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, peer, place)) = accepted? else {
                continue;
            };
            let connection = self.connection(acceptor.clone(), stream, peer, graceful.watcher());
            connections.spawn(async move {
                connection.await;
                drop(place);
            });
        }
        drop(listener);
        self.inner.stopping.cancel();
        if tokio::time::timeout(DRAIN, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight when the server stopped");
        }
        connections.shutdown().await;
        Ok(())
    }

    fn connection(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: hyper_util::server::graceful::Watcher,
    ) -> impl Future<Output = ()> + Send + 'static {
        let service = self.service();
        async move {
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            let stream = match handshake {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => return tracing::debug!(%peer, "a TLS handshake took too long"),
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let user = certificates
                .and_then(|chain| chain.first())
                .and_then(|certificate: &CertificateDer<'_>| user_of_certificate(certificate));
            let service = match user {
                Some(user) => service.with_identity(user),
                None => service,
            };
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20));
            let service = TowerToHyperService::new(service);
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%peer, error, "a connection ended");
            }
        }
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// Accepts a connection once there is room. `None` where the client's or the system's fault
/// passes; only a listener that is broken is an error.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Option<Accepted>> {
    let Ok(place) = places.clone().acquire_owned().await else {
        return Err(io::Error::other("the server's places are closed"));
    };
    match listener.accept().await {
        Ok((stream, peer)) => {
            stream.set_nodelay(true)?;
            Ok(Some((stream, peer, place)))
        }
        Err(error) if matches!(error.raw_os_error(), Some(EBADF | EINVAL | ENOTSOCK)) => Err(error),
        Err(error) => {
            // Out of file descriptors, as a rule: others must end first.
            tracing::warn!(%error, "could not accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(None)
        }
    }
}

const EBADF: i32 = 9;
const EINVAL: i32 = 22;
const ENOTSOCK: i32 = 88;
