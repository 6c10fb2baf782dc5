//! Answering at one port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::plan::Check;
use crate::relay::{self, Slots};

/// Connections at one port at a time; more wait in the kernel's queue. Each asks once, and a balancer
/// has a few that ask every few seconds.
const CONNECTIONS: usize = 128;
/// How long a client may take to ask and to hear, all together. Balancers give up sooner.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read for a request.
const BUFFER: usize = 16 * 1024;

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Answers at an address until the check's sender is gone.
pub(super) async fn run(address: SocketAddr, check: watch::Receiver<Check>, retry: Duration) {
    let mut closed = check.clone();
    let gone = async move { while closed.changed().await.is_ok() {} };
    let served = async {
        let listener = bind(address, &check, retry).await;
        let slots = Slots::new(CONNECTIONS);
        let mut connections = JoinSet::new();
        relay::accept(&listener, &slots, &mut connections, |stream, _| {
            answer(stream, check.clone(), PATIENCE)
        })
        .await;
    };
    tokio::select! {
        () = gone => {}
        () = served => {}
    }
}

/// Binds the port as soon as it is free. That it is not is said once.
async fn bind(address: SocketAddr, check: &watch::Receiver<Check>, retry: Duration) -> TcpListener {
    let mut is_said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if is_said => {
                tracing::debug!(%address, %error, "a health check can still not be served");
            }
            Err(error) => {
                let check = check.borrow().clone();
                tracing::warn!(%address, %error, namespace = %check.namespace, service = %check.service, "the health check of a Service cannot be served; trying again");
                is_said = true;
            }
        }
        tokio::time::sleep(retry).await;
    }
}

/// Answers one request. The connection is closed then, or when the client has taken too long.
pub(super) async fn answer(stream: TcpStream, check: watch::Receiver<Check>, patience: Duration) {
    let service = service_fn(move |_: Request<Incoming>| {
        let response = response(&check.borrow());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // What is asked and what is answered have one limit, below.
        .header_read_timeout(None::<Duration>)
        .max_buf_size(BUFFER)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(patience, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a health check was not answered"),
        Err(_) => tracing::debug!("a client was too slow with its health check"),
    }
}

/// With the words of kube-proxy, space for space.
fn response(check: &Check) -> Response<Full<Bytes>> {
    let Check {
        namespace,
        service,
        local_endpoints,
    } = check;
    // Names have nothing in them that JSON would write otherwise.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {service:?}\n\t}},\n\t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if *local_endpoints == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let json = HeaderValue::from_static("application/json");
    let nosniff = HeaderValue::from_static("nosniff");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, json);
    headers.insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    headers.insert(WEIGHT, HeaderValue::from(*local_endpoints));
    response
}
