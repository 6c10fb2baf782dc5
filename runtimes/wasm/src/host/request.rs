//! One connection, and one request with its instance.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::body::RequestBody;
use super::cores::Core;
use super::pod::HttpPod;
use crate::guest::cpu::Metered;
use crate::guest::limits::OutOfMemory;
use crate::runner::{MAX_MESSAGE, describe, truncate};

/// CPU time that a request may use before it goes on at idle priority.
const SLICE: Duration = Duration::from_millis(2);
/// How long a client may take for the headers of a request.
const HEADERS: Duration = Duration::from_secs(30);
/// How long an HTTP/2 connection is quiet before its client is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

type Answer = Response<UnsyncBoxBody<Bytes, Error>>;
type Outcome = Result<hyper::Response<HyperOutgoingBody>, ErrorCode>;

/// Serves a connection until it, or the Pod, ends.
pub(super) async fn connection(pod: Arc<HttpPod>, core: Arc<Core>, stream: std::net::TcpStream) {
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
        return;
    };
    // Answers are small: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (pod, asked) = (pod.clone(), asked.clone());
        service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            serve(pod.clone(), core.clone(), request)
        })
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        // A client that vanished holds its connection no longer than until it does not answer.
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_streams(256);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        // A client that goes away is no event.
        _ = connection.as_mut() => return,
        () = pod.life().closing.cancelled() => connection.as_mut().graceful_shutdown(),
        () = silence(&asked, HEADERS) => return,
    }
    tokio::select! {
        _ = connection => {}
        () = pod.life().ended.cancelled() => {}
    }
}

/// Resolves when nothing was asked within so long. The time for headers begins only when it is known
/// which version of HTTP a client speaks: one that says nothing would stay for ever.
async fn silence(asked: &AtomicBool, within: Duration) {
    tokio::time::sleep(within).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Counts a request for as long as it is not answered.
struct Counted(Arc<HttpPod>);

impl Counted {
    fn new(pod: &Arc<HttpPod>) -> Self {
        pod.requests.fetch_add(1, Ordering::Relaxed);
        Self(pod.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(
    pod: Arc<HttpPod>,
    core: Arc<Core>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if pod.queue_is_full() {
        return Ok(busy());
    }
    let counted = Counted::new(&pod);
    let (answer, mut answered) = oneshot::channel();
    // The guest runs here, where its answer is waited for: a task of its own would be one more
    // round of the run queue. A client that goes away before the answer takes the instance along.
    let mut guest = Some(Box::pin(run(counted, core.clone(), request, answer)));
    let mut found_room = true;
    let outcome = std::future::poll_fn(|cx| {
        if let Some(running) = &mut guest
            && let Poll::Ready(found) = running.as_mut().poll(cx)
        {
            found_room = found;
            guest = None;
        }
        Pin::new(&mut answered).poll(cx)
    })
    .await;
    // What has an answer and goes on is sending the body, or working after it: like the connection,
    // it is waited for when the Pod stops.
    if let Some(guest) = guest {
        core.handle
            .spawn(pod.life().connections.track_future(guest));
    }
    match outcome {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(code)) => Ok(failed(&pod, &code)),
        Err(_) if !found_room => Ok(busy()),
        // The guest ended without an answer; what it was is in the log.
        Err(_) => Ok(plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the guest gave no answer\n",
        )),
    }
}

/// Waits for a guest's task, which is aborted when nobody waits for it any more.
pub(super) fn joined(
    task: JoinHandle<wasmtime::Result<()>>,
) -> impl Future<Output = wasmtime::Result<()>> {
    let task = AbortOnDropHandle::new(task);
    async move {
        task.await
            .unwrap_or_else(|error| Err(wasmtime::Error::msg(format!("the guest's task: {error}"))))
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn busy() -> Answer {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "the Pod is busy\n");
    let soon = header::HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

/// The guest answered with an error of its own.
fn failed(pod: &HttpPod, code: &ErrorCode) -> Answer {
    // The error may carry a text of the guest's, of any length.
    let mut text = format!("the guest answered with an error: {code:?}");
    truncate(&mut text, MAX_MESSAGE);
    pod.log.note(&text);
    plain(
        StatusCode::BAD_GATEWAY,
        "the guest answered with an error\n",
    )
}

/// Runs one request from the queue to the end of its body. Says whether there was room for its
/// instance.
async fn run(
    counted: Counted,
    core: Arc<Core>,
    request: Request<Incoming>,
    answer: oneshot::Sender<Outcome>,
) -> bool {
    let pod = counted.0.clone();
    let handler = &pod.handler;
    let Ok(_instance) = pod.instances.acquire_many(handler.cost).await else {
        return true;
    };
    let _room = pod.room.enter(pod.environment.memory.usual()).await;
    let _place = handler.pool.enter(&pod.few, handler.cost).await;
    if let Some(turns) = pod.turns.get(core.index) {
        core.rounds.turn(turns).await;
    }
    let slice = Slice::new(&pod, handle(pod.clone(), request, answer));
    let result = tokio::select! {
        biased;
        result = drive(slice, &core) => result,
        () = pod.life().ended.cancelled() => return true,
    };
    match result {
        Ok(()) => true,
        Err(error) if is_crowded(&error) => {
            tracing::warn!(container = pod.container.0, %error, "no room for an instance");
            false
        }
        Err(error) => {
            report(&pod, &error);
            true
        }
    }
}

/// Whether instances of other Pods left none for this one, which is no fault of its guest.
fn is_crowded(error: &wasmtime::Error) -> bool {
    error.is::<wasmtime::PoolConcurrencyLimitError>()
}

type Guest = Metered<Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send>>>;

/// Polls a guest until it ends or has used its slice.
struct Slice(Option<Guest>);

impl Slice {
    fn new(
        pod: &HttpPod,
        guest: impl Future<Output = wasmtime::Result<()>> + Send + 'static,
    ) -> Self {
        let guest: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(guest);
        let guest = Metered::new(guest, pod.meter.clone(), pod.ticker.clone());
        Self(Some(guest))
    }
}

enum Spent {
    Ended(wasmtime::Result<()>),
    Demoted(Box<Guest>),
}

impl Future for Slice {
    type Output = Spent;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Spent> {
        let Some(guest) = &mut self.0 else {
            return Poll::Pending;
        };
        let result = Pin::new(&mut *guest).poll(cx);
        if guest.used() > SLICE
            && result.is_pending()
            && let Some(guest) = self.0.take()
        {
            return Poll::Ready(Spent::Demoted(Box::new(guest)));
        }
        Poll::Ready(Spent::Ended(ready!(result)))
    }
}

async fn drive(slice: Slice, core: &Core) -> wasmtime::Result<()> {
    match slice.await {
        Spent::Ended(result) => result,
        Spent::Demoted(guest) => {
            // Whoever ends the request ends its demoted part with it.
            joined(core.idle.spawn(*guest)).await
        }
    }
}

/// Makes an instance as for a request, and drops it.
pub(super) async fn trial(pod: Arc<HttpPod>, core: Arc<Core>) -> wasmtime::Result<()> {
    let _place = pod.handler.pool.enter(&pod.few, pod.handler.cost).await;
    let of = pod.clone();
    let instance = async move {
        let mut store = of.environment.component_store(&of.handler.engine)?;
        of.handler.pre.instantiate_async(&mut store).await?;
        Ok(())
    };
    drive(Slice::new(&pod, instance), &core).await
}

/// Makes an instance, hands it the request, and lets it run until it returns.
async fn handle(
    pod: Arc<HttpPod>,
    request: Request<Incoming>,
    answer: oneshot::Sender<Outcome>,
) -> wasmtime::Result<()> {
    let mut store = pod.environment.component_store(&pod.handler.engine)?;
    let mut request = request.map(RequestBody);
    if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
        // HTTP/1.0 knows no Host; the guest must be told one.
        let unknown = header::HeaderValue::from_static("localhost");
        request.headers_mut().insert(header::HOST, unknown);
    }
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(Scheme::Http, request)?;
    let out = store.data_mut().http().new_response_outparam(answer)?;
    let proxy = pod.handler.pre.instantiate_async(&mut store).await?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut store, request, out)
        .await?;
    Ok(())
}

/// Logs and counts a trap; the client has its 500.
fn report(pod: &HttpPod, error: &wasmtime::Error) {
    pod.traps.fetch_add(1, Ordering::Relaxed);
    if let Some(wasmtime_wasi::I32Exit(code)) = error.downcast_ref() {
        if *code != 0 {
            pod.log.note(&format!(
                "the guest exited with code {code} during a request"
            ));
        }
        return;
    }
    let what = match error.downcast_ref::<OutOfMemory>() {
        Some(out) => out.to_string(),
        None => describe(error),
    };
    pod.log.note(&format!("a request ended in a trap: {what}"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_is_no_fault_of_a_guest() {
        let mut pool = wasmtime::PoolingAllocationConfig::new();
        pool.total_core_instances(1)
            .total_memories(1)
            .total_tables(1)
            .total_stacks(1);
        let mut config = wasmtime::Config::new();
        config.allocation_strategy(pool);
        let engine = wasmtime::Engine::new(&config).unwrap();
        let module = wasmtime::Module::new(&engine, "(module)").unwrap();
        let instance = || {
            let mut store = wasmtime::Store::new(&engine, ());
            wasmtime::Instance::new(&mut store, &module, &[]).map(|_| store)
        };
        let one = instance().unwrap();
        assert!(is_crowded(&instance().map(drop).unwrap_err()));
        drop(one);
        assert!(instance().is_ok());
        assert!(!is_crowded(&wasmtime::Error::msg("boom")));
    }

    #[tokio::test]
    async fn who_asks_nothing_is_let_go() {
        const WITHIN: Duration = Duration::from_millis(20);
        let silent = |asked| async move {
            let asked = AtomicBool::new(asked);
            let silence = silence(&asked, WITHIN);
            tokio::time::timeout(WITHIN * 10, silence).await.is_ok()
        };
        assert!(silent(false).await);
        assert!(!silent(true).await);
    }
}
