//! Connections: TLS with HTTP/1.1 and HTTP/2, services in the process, and an orderly end.
//!
//! A client holds a connection only while it takes part: a handshake, the headers of a request and
//! the reading of an answer each have their time, and a client of HTTP/2 answers pings. Bodies have
//! the time of their requests (`server`).
//!
//! The end has steps. First `/readyz` fails, and all is served as before for a delay in which load
//! balancers look elsewhere. Then nobody is accepted any more, clients are told not to send more
//! (GOAWAY; `Connection: close`), what lasts ends in order, and requests in flight are served to
//! their ends, within a bound.

mod stall;
mod tls;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use stall::Impatient;
pub use tls::server_config;

/// Connections that are served at once; more wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 500;
/// Bytes of headers of one request over HTTP/2: label selectors are long, tokens large. Over
/// HTTP/1.1 it is the buffer that ends them, at about 400 KiB.
const HEADER_LIST: u32 = 400 * 1024;

/// The times of connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimes {
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the headers of a request may take, the idle time before them included.
    pub headers: Duration,
    /// How long a client may read nothing of what is to be sent to it.
    pub stall: Duration,
    /// How long a connection of HTTP/2 is silent until it is pinged.
    pub ping_after: Duration,
    /// How long the answer to a ping may take.
    pub ping_timeout: Duration,
}

impl Default for ConnectionTimes {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(90),
            stall: Duration::from_secs(60),
            ping_after: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(15),
        }
    }
}

/// How a server ends.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// How long all is served as before, while `/readyz` fails already.
    pub delay: Duration,
    /// How long requests in flight may take then.
    pub drain: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            drain: Duration::from_secs(60),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The server as a tower service.
#[derive(Clone)]
pub struct ApiService {
    inner: Arc<Inner>,
    identity: Option<UserInfo>,
    /// The other end of the connection; none in the process.
    peer: Option<SocketAddr>,
    /// When the certificate ends by which the other end is known, in seconds since 1970.
    expires: Option<i64>,
}

impl ApiService {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            identity: None,
            peer: None,
            expires: None,
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
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        if let Some(expires) = self.expires {
            let left = expires.saturating_sub(jiff::Timestamp::now().as_second());
            self.inner.metrics.certificates.observe(left as f64);
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
        let _serving = Serving::begin(&self.inner);
        let stopped = async {
            cancel.cancelled().await;
            self.announce_shutdown();
            tokio::time::sleep(self.shutdown.delay).await;
        };
        let mut stopped = std::pin::pin!(stopped);
        loop {
            let accepted = tokio::select! {
                () = &mut stopped => break,
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
        if tokio::time::timeout(self.shutdown.drain, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight when the server stopped");
        }
        connections.shutdown().await;
        Ok(())
    }

    /// Lets `/readyz` fail: the server is to end. [`ApiServer::serve`] does so when it is
    /// cancelled; an embedder that has something to do before says it earlier.
    pub fn announce_shutdown(&self) {
        self.inner.health.stopping.store(true, Ordering::Relaxed);
    }

    fn connection(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: hyper_util::server::graceful::Watcher,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut service = self.service();
        service.peer = Some(peer);
        let times = self.connection_times;
        async move {
            let handshake = tokio::time::timeout(times.handshake, acceptor.accept(stream)).await;
            let stream = match handshake {
                Ok(Ok(stream)) => stream,
                failed => {
                    service.inner.metrics.tls_failures.inc();
                    return match failed {
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                        _ => tracing::debug!(%peer, "a TLS handshake took too long"),
                    };
                }
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let user = certificates
                .and_then(|chain| chain.first())
                .and_then(|certificate: &CertificateDer<'_>| user_of_certificate(certificate));
            if let Some((user, expires)) = user {
                service = service.with_identity(user);
                service.expires = Some(expires);
            }
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(times.headers);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAMS)
                .max_header_list_size(HEADER_LIST)
                .keep_alive_interval(times.ping_after)
                .keep_alive_timeout(times.ping_timeout);
            let service = TowerToHyperService::new(service);
            let stream = Impatient::new(stream, times.stall);
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%peer, error, "a connection ended");
            }
        }
    }
}

/// Counts a listener that serves, until it is dropped: the audit log is written until the last of
/// them has ended.
struct Serving<'a>(&'a Inner);

impl<'a> Serving<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.listeners.send_modify(|count| *count += 1);
        Self(inner)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.listeners.send_modify(|count| *count -= 1);
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
