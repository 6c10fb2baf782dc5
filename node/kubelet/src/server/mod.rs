//! The kubelet's own API: logs, Pods, stats, and what runs in containers ([`streaming`]).
//!
//! TLS only. A caller proves itself by a certificate of the cluster's CA; only the group
//! `system:masters` and the users of the configuration, the API server's, may call. [`tls`]
//! says who calls, [`handlers`] answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::config::KubeletApi;
use crate::node_context::NodeContext;
use crate::worker::Workers;

mod handlers;
mod stats;
mod streaming;
pub(crate) mod tls;

use streaming::Sockets;
use tls::Caller;

/// Connections at a time; each follower of a log holds one.
const CONNECTIONS: usize = 1024;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After how long without a byte a caller's machine is asked whether it is there still, and how often
/// then: streams may be silent for as long as they want, and hold a place.
const SILENCE: Duration = Duration::from_secs(60);
const ASKED_AGAIN: Duration = Duration::from_secs(10);

/// What handlers read.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) workers: Workers,
    pub(crate) sockets: Sockets,
}

/// The routes, for callers whose [`Caller`] is in the request's extensions.
pub(crate) fn router(state: ApiState, allowed: Vec<String>) -> Router {
    let allowed: Arc<[String]> = allowed.into();
    Router::new()
        .route("/healthz", get(handlers::healthz))
        .route("/pods", get(handlers::pods))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics/resource", get(stats::resource))
        .route("/metrics/cadvisor", get(stats::cadvisor))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(handlers::container_logs),
        )
        .route(
            "/exec/{namespace}/{pod}/{container}",
            get(streaming::exec).post(streaming::exec),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            get(streaming::attach).post(streaming::attach),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            get(streaming::port_forward).post(streaming::port_forward),
        )
        .route("/connect/{namespace}/{pod}", get(streaming::connect))
        .with_state(state)
        .layer(middleware::from_fn(move |request, next| {
            authorize(allowed.clone(), request, next)
        }))
}

async fn authorize(allowed: Arc<[String]>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response();
    };
    let master = caller.groups.iter().any(|group| group == "system:masters");
    if master || allowed.contains(&caller.user) {
        return next.run(request).await;
    }
    let text = format!(
        "Forbidden (user={}, verb={}, resource=nodes)\n",
        caller.user,
        request.method().as_str().to_lowercase()
    );
    (StatusCode::FORBIDDEN, text).into_response()
}

/// Serves until cancelled.
pub(crate) async fn serve(
    api: KubeletApi,
    node: Arc<NodeContext>,
    workers: Workers,
    cancel: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let state = ApiState {
        node,
        workers,
        sockets: Sockets::new(tasks.clone(), cancel.clone()),
    };
    let router = router(state, api.allowed_users);
    let acceptor = TlsAcceptor::from(api.tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = api.listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the kubelet's API");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, router, cancel) = (acceptor.clone(), router.clone(), cancel.clone());
        tasks.spawn(async move {
            let _slot = slot;
            tokio::select! {
                () = cancel.cancelled() => {}
                () = connection(stream, acceptor, router) => {}
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

fn notice_loss(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_AGAIN)?;
    sockopt::set_socket_keepalive(stream, true)
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let _ = stream.set_nodelay(true);
    if let Err(error) = notice_loss(&stream) {
        tracing::debug!(%error, "who is lost to the kubelet's API is not noticed");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake with the kubelet's API failed");
            return;
        }
        Err(_) => return,
    };
    let caller = tls::caller(stream.get_ref().1);
    let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        // Only the handshake says who calls.
        request.extensions_mut().remove::<Caller>();
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        request
    });
    let service = TowerToHyperService::new(service);
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "a connection to the kubelet's API broke");
    }
}
