//! The end of an answer. A request is over when its answer has been sent whole, or its client has
//! gone: only then is it counted, logged and audited, and its seats are free. And what every answer
//! says, whatever it is.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::audit::trail::Trail;
use crate::flow::{Permit, Place};
use crate::metrics::requests::{RequestLabels, Running};
use crate::server::Inner;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// What the request log says, by upstream's names.
pub(crate) struct LogLine {
    pub(crate) uri: String,
    pub(crate) user_agent: String,
    pub(crate) audit_id: String,
    pub(crate) peer: Option<SocketAddr>,
}

/// What is done at the end.
pub(crate) struct Conclusion {
    pub(crate) server: Arc<Inner>,
    pub(crate) labels: RequestLabels,
    pub(crate) dry_run: &'static str,
    pub(crate) code: u16,
    pub(crate) began: Instant,
    pub(crate) line: LogLine,
    pub(crate) trail: Option<Arc<Trail>>,
    /// Where it was served, and how long it waited for that.
    pub(crate) place: Option<(Place, Duration)>,
    /// Its seats, unless they have been given back.
    pub(crate) permit: Option<Permit>,
    pub(crate) running: Running,
}

impl Conclusion {
    fn conclude(self, size: u64) {
        let latency = self.began.elapsed();
        let (place, waited) = self
            .place
            .as_ref()
            .map_or((None, None), |(place, waited)| (Some(place), Some(*waited)));
        let times = (latency, waited.unwrap_or_default());
        let metrics = &self.server.metrics.requests;
        metrics.end(&self.labels, self.dry_run, self.code, times, size);
        if let Some(trail) = &self.trail {
            trail.complete();
        }
        // Upstream logs this at verbosity 3.
        tracing::debug!(
            verb = self.labels.verb(),
            URI = self.line.uri,
            ?latency,
            userAgent = self.line.user_agent,
            "audit-ID" = self.line.audit_id,
            srcIP = self.line.peer.map(tracing::field::display),
            apf_pl = place.map(|place| &*place.level),
            apf_fs = place.map(|place| &*place.schema),
            apf_iseats = place.map(|place| place.seats),
            apf_wait = waited.map(tracing::field::debug),
            resp = self.code,
            "HTTP"
        );
        drop(self.permit);
        drop(self.running);
    }
}

/// The id under which a request is audited: the client's, or a new one.
pub(crate) fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID);
    let given = given.filter(|id| id.to_str().is_ok_and(|id| !id.is_empty()));
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::new_v4().to_string();
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

/// What every answer says: under which id it is audited, that nobody may keep it, and of which
/// flow it was.
pub(crate) fn label(headers: &mut HeaderMap, audit_id: HeaderValue, place: Option<&Place>) {
    headers.insert(AUDIT_ID, audit_id);
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-cache, private"));
    if let Some(place) = place {
        for (name, uid) in [
            (FLOW_SCHEMA, &place.schema_uid),
            (PRIORITY_LEVEL, &place.level_uid),
        ] {
            if let Ok(uid) = HeaderValue::try_from(uid) {
                headers.insert(name, uid);
            }
        }
    }
}

/// What a HEAD is answered: everything but the body, which HTTP/2 takes for a broken connection.
pub(crate) fn without_body(response: Response<Body>) -> Response<Body> {
    let size = response.body().size_hint().exact();
    let (mut parts, _) = response.into_parts();
    // Who made the answer for a HEAD has said how long it would be.
    if let Some(size) = size.filter(|size| *size > 0) {
        let size = HeaderValue::from(size);
        parts.headers.entry(CONTENT_LENGTH).or_insert(size);
    }
    Response::from_parts(parts, Body::empty())
}

/// When an answer is broken off, or ended.
pub(crate) enum Until {
    /// It is to be sent whole by then; else it is broken off, so that the client sees that it is
    /// not whole.
    Deadline(Instant),
    /// It lasts until the server stops, and ends in order then.
    Stopped(Pin<Box<WaitForCancellationFutureOwned>>),
}

/// An answer on its way.
pub(crate) struct Answer {
    body: Body,
    until: Until,
    /// Made when there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    conclusion: Option<Conclusion>,
    sent: u64,
}

impl Answer {
    pub(crate) fn new(body: Body, until: Until, conclusion: Conclusion) -> Self {
        Self {
            body,
            until,
            timer: None,
            conclusion: Some(conclusion),
            sent: 0,
        }
    }

    fn conclude(&mut self) {
        if let Some(conclusion) = self.conclusion.take() {
            conclusion.conclude(self.sent);
        }
    }

    /// Whether it is to end now, and with an error.
    fn is_over(&mut self, context: &mut Context<'_>, waits: bool) -> Option<bool> {
        match &mut self.until {
            Until::Deadline(deadline) if waits => {
                let timer = &mut self.timer;
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(*deadline)));
                timer.as_mut().poll(context).is_ready().then_some(true)
            }
            // What is there at once is sent in any case.
            Until::Deadline(deadline) => {
                (self.sent > 0 && Instant::now() >= *deadline).then_some(true)
            }
            // All watches share what tells them of the end: only who waits asks for it.
            Until::Stopped(stopped) if waits => {
                stopped.as_mut().poll(context).is_ready().then_some(false)
            }
            Until::Stopped(_) => None,
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.conclusion.is_none() {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if !matches!(frame, Poll::Ready(None))
            && let Some(broken) = self.is_over(context, frame.is_pending())
        {
            if broken && let Some(conclusion) = &self.conclusion {
                let requests = &conclusion.server.metrics.requests;
                requests.terminated(&conclusion.labels, conclusion.code);
            }
            self.conclude();
            let error = || axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
            return Poll::Ready(broken.then(|| Err(error())));
        }
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None | Some(Err(_))) => self.conclude(),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.conclude();
    }
}
