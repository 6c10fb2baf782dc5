//! The request path, whole and in its order:
//!
//! request info → authentication → audit → impersonation → flow control → authorization → handler,
//! and in the handler: decode → defaulting → mutating admission → strategy → validating admission →
//! store → encode (`handlers`, `registry::create`, `registry::update`). What is done when the answer
//! has been sent stands in `answer`.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use futures::FutureExt;
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::answer::{Answer, Conclusion, LogLine, Until, audit_id, label, without_body};
use crate::audit::Audit;
use crate::audit::trail::Trail;
use crate::auth::UserInfo;
use crate::auth::authentication::authenticate;
use crate::auth::authorization::authorize;
use crate::auth::impersonation::impersonate;
use crate::auth::tokens::{Tokens, discovery as issuer};
use crate::config::Verbosity;
use crate::debug;
use crate::discovery::{self, Discovery};
use crate::flow::{Counts, Flow, Permit, Place, width};
use crate::handlers::compress::compress;
use crate::handlers::encode::{self, status};
use crate::handlers::pretty::indented;
use crate::handlers::usage::Samples;
use crate::handlers::{Call, dispatch};
use crate::health::{self, Health};
use crate::metrics::Metrics;
use crate::metrics::requests::{RequestLabels, dry_run};
use crate::nodes::{Nodes, Refusal};
use crate::openapi::OpenApi;
use crate::registry::erased::Kind;
use crate::registry::{Registry, kinds};
use crate::request::body::lend;
use crate::request::info::{RequestInfo, request_info};
use crate::request::options::{Query, deadline};
use crate::request::strict::Schemas;

/// How long requests may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// One that is no watch and follows no log, its answer included.
    pub(crate) request: Duration,
    /// A watch that does not say how long it is to last takes from this to twice this.
    pub(crate) watch: Duration,
}

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) nodes: Nodes,
    /// What kubelets have said lately of what their nodes use.
    pub(crate) usage: Mutex<Samples>,
    pub(crate) flow: Arc<Flow>,
    pub(crate) counts: Counts,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) extra: axum::Router,
    pub(crate) timeouts: Timeouts,
    pub(crate) verbosity: Option<Verbosity>,
    /// Cancelled when the server stops serving: whatever lasts ends then.
    pub(crate) stopping: CancellationToken,
    /// Listeners that serve.
    pub(crate) listeners: watch::Sender<usize>,
}

/// Marks the answer of the extra routes to a path that is none of theirs.
#[derive(Clone)]
struct NoRoute;

/// The fallback of the extra routes.
pub(crate) async fn no_route() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.extensions_mut().insert(NoRoute);
    response
}

/// A request on its way: what was found out about it, for whoever concludes it.
struct Passage<'a> {
    info: &'a RequestInfo,
    /// The kind that it is about, if that is served.
    kind: Option<&'a Arc<dyn Kind>>,
    query: &'a Query,
    long_running: bool,
    /// What it may take in all, if it does not last.
    limit: Duration,
    audit_id: &'a str,
    received: Timestamp,
    trail: Option<Arc<Trail>>,
    place: Option<(Place, Duration)>,
    /// A watch takes its seats along and gives them back before it ends.
    seats: Mutex<Option<Permit>>,
    /// Warnings that are told with a refusal too.
    noted: Mutex<Vec<String>>,
}

impl Passage<'_> {
    /// What every answer about a kind says that is served and should not be used any more.
    fn deprecation(&self) -> Option<&str> {
        self.kind?.descriptor().deprecation.as_deref()
    }
}

impl Inner {
    /// Compiled at the first write, once for all servers of a process: the schemas of the
    /// built-in kinds are part of the program.
    pub(crate) fn schemas(&self) -> &'static Schemas {
        static BUILT_IN: LazyLock<Schemas> = LazyLock::new(|| Schemas::compile(&kinds::all()));
        &BUILT_IN
    }

    /// Sends a GET to the kubelet of a node.
    ///
    /// # Errors
    /// Those of [`Nodes::get`].
    pub(crate) async fn ask_kubelet(
        &self,
        node: &str,
        path: &str,
        headers: HeaderMap,
        wanted: StatusCode,
    ) -> Result<Result<Response<Incoming>, Refusal>, Status> {
        let nodes = &self.nodes;
        nodes.get(&self.registry, node, path, headers, wanted).await
    }

    /// Answers a request. Whatever happens, there is an answer.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let began = Instant::now();
        let received = Timestamp::now();
        let (parts, body) = request.into_parts();
        let (body, rest) = lend(body);
        let query = Query::parse(parts.uri.query());
        let info = request_info(
            &parts.method,
            parts.uri.path(),
            query.flag("watch").unwrap_or(false),
        )
        .select(&query);
        let kinds = self.registry.kinds();
        let kind = kinds.resource(&info.group, &info.version, &info.resource);
        let kind = kind.filter(|_| info.is_resource).cloned();
        let descriptor = kind.as_ref().map(|kind| kind.descriptor());
        let follow = query.flag("follow").unwrap_or(false);
        let long_running = info.is_long_running(descriptor, follow);
        let labels = RequestLabels::new(descriptor, &info, &parts.headers);
        let headers = parts.headers.clone();
        let head = parts.method == Method::HEAD;
        let audit_id = audit_id(&headers);
        let line = LogLine {
            uri: parts
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            user_agent: header(&headers, &USER_AGENT),
            audit_id: audit_id.to_str().unwrap_or_default().to_owned(),
            peer: parts.extensions.get::<SocketAddr>().copied(),
        };
        let running = self
            .metrics
            .requests
            .begin(&labels, info.is_read_only(), long_running);
        // What lasts has no deadline; of a proxy the query is somebody else's.
        let limit = if long_running {
            Ok(self.timeouts.request)
        } else {
            deadline(&query, self.timeouts.request)
        };
        let mut passage = Passage {
            info: &info,
            kind: kind.as_ref(),
            query: &query,
            long_running,
            limit: limit.as_ref().copied().unwrap_or(self.timeouts.request),
            audit_id: &line.audit_id,
            received,
            trail: None,
            place: None,
            seats: Mutex::new(None),
            noted: Mutex::default(),
        };

        let answer = match &limit {
            Err(refused) => Ok(Ok(Err(refused.clone()))),
            Ok(limit) => {
                // It is large: what is awaited around it moves no more than a pointer.
                let answer = Box::pin(self.answer(parts, body, &mut passage));
                let answer = AssertUnwindSafe(answer).catch_unwind();
                if long_running {
                    Ok(answer.await)
                } else {
                    tokio::time::timeout_at(began + *limit, answer).await
                }
            }
        };
        let answered = match answer {
            Ok(Ok(answered)) => {
                rest.drain().await;
                answered
            }
            Ok(Err(_panic)) => {
                tracing::error!(path = info.path, verb = info.verb, "a request panicked");
                let message = "the request could not be served, see the server's log";
                let failure = Status::internal(message);
                if let Some(trail) = &passage.trail {
                    trail.panicked(&failure);
                }
                Err(failure)
            }
            Err(_elapsed) => {
                self.metrics.requests.terminated(&labels, 504);
                let message = "request did not complete within the allotted timeout";
                Err(Status::timeout(message, 0))
            }
        };
        let (mut response, failure) = match answered {
            Ok(response) => (response, None),
            Err(failure) => {
                let mut told = indented(&headers, &query, status(&headers, &failure));
                let noted = passage.noted.lock();
                encode::warn(told.headers_mut(), noted.as_slice());
                (told, Some(failure))
            }
        };
        if head {
            response = without_body(response);
        }
        let code = response.status().as_u16();
        if let Some(trail) = &passage.trail {
            trail.respond(code, failure.as_ref(), long_running);
        }
        if failure
            .as_ref()
            .is_some_and(|failure| failure.code() == 429)
        {
            self.metrics.requests.terminated(&labels, 429);
        }
        if let Some(warning) = passage.deprecation() {
            encode::warn(response.headers_mut(), &[warning]);
            self.metrics.requests.deprecated(&labels);
        }
        let Passage {
            trail,
            place,
            seats,
            ..
        } = passage;
        label(
            response.headers_mut(),
            audit_id,
            place.as_ref().map(|(place, _)| place),
        );
        let until = if long_running {
            Until::Stopped(Box::pin(self.stopping.clone().cancelled_owned()))
        } else if failure.is_some() {
            // A failure is told also when the time of the request is over.
            Until::Deadline(Instant::now() + self.timeouts.request)
        } else {
            Until::Deadline(began + limit.unwrap_or(self.timeouts.request))
        };
        let conclusion = Conclusion {
            labels,
            dry_run: dry_run(&query),
            code,
            began,
            line,
            trail,
            place,
            permit: if long_running {
                None
            } else {
                seats.into_inner()
            },
            running,
            server: self,
        };
        response.map(|body| Body::new(Answer::new(body, until, conclusion)))
    }

    async fn answer(
        self: &Arc<Self>,
        mut parts: Parts,
        mut body: Body,
        passage: &mut Passage<'_>,
    ) -> Result<Response<Body>, Status> {
        let Passage { info, query, .. } = *passage;
        let known = authenticate(&parts, &self.registry, self.tokens.as_ref()).await;
        let (user, remark) = match known {
            Ok((user, remark)) => (Ok(user), remark),
            Err(refused) => (Err(refused), None),
        };
        let public = health::is_public(&info.path);
        let ours = discovery::owns(&info.path);
        passage.trail = self.audit.as_ref().and_then(|audit| {
            let (id, received) = (passage.audit_id, passage.received);
            Trail::begin(audit, &parts, user.as_ref().ok(), info, id, received)
        });
        if let Some(trail) = &passage.trail {
            if let Some((key, value)) = remark {
                trail.annotate(key, value);
            }
            if user.is_ok() || public || !ours {
                trail.received();
            }
            // What is sent to others is not the API's.
            if !passage.long_running {
                body = trail.request_body(&parts.headers, info, body);
            }
        }
        if !ours {
            // Routes of others authenticate their callers themselves.
            if let Ok(user) = &user {
                parts.extensions.insert(user.clone());
            }
            let request = Request::from_parts(parts.clone(), body);
            let Ok(response) = self.extra.clone().oneshot(request).await;
            if response.extensions().get::<NoRoute>().is_none() {
                return Ok(response);
            }
            body = Body::empty();
        }
        if public {
            return Ok(self.health.answer(self, &info.path, query).await);
        }
        let mut user = user.inspect_err(|refused| {
            if let Some(trail) = &passage.trail {
                trail.unknown(refused);
            }
        })?;
        if let Some(other) = impersonate(&user, &mut parts.headers)? {
            if let Some(trail) = &passage.trail {
                trail.impersonated(&other);
            }
            user = other;
        }
        self.take_seats(&user, passage).await?;
        let allowed = authorize(&user, info);
        if let Some(trail) = &passage.trail {
            trail.authorized(allowed.is_ok());
            if passage.deprecation().is_some() {
                trail.deprecated();
            }
        }
        allowed?;
        if info.is_resource {
            self.resource(&parts, body, &user, passage).await
        } else {
            let answer = self.path(&parts, body, info, query).await?;
            Ok(indented(&parts.headers, query, answer))
        }
    }

    /// Flow control: waits until there are seats for the request. What lasts and is no watch takes
    /// none.
    async fn take_seats(&self, user: &UserInfo, passage: &mut Passage<'_>) -> Result<(), Status> {
        let Passage {
            info,
            kind,
            query,
            limit,
            ..
        } = *passage;
        if passage.long_running && info.verb != "watch" {
            // It waits for somebody else, for as long as it likes: it would hold up its level, and
            // whoever looks into a Pod because the server is busy would be refused.
            return Ok(());
        }
        let wide = match kind {
            Some(kind) if width::depends_on_stored(info, query) => {
                let stored = self.counts.of(&self.registry, kind.descriptor()).await;
                width::of_list(info, query, stored)
            }
            _ => 1,
        };
        match self.flow.admit(user, info, wide, limit).await {
            Ok(permit) => {
                passage.place = Some((permit.place().clone(), permit.waited()));
                *passage.seats.lock() = Some(permit);
                Ok(())
            }
            Err(refused) => {
                passage.place = Some((refused.place, Duration::ZERO));
                Err(refused.status)
            }
        }
    }

    async fn resource(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        user: &UserInfo,
        passage: &Passage<'_>,
    ) -> Result<Response<Body>, Status> {
        let Passage { info, query, .. } = *passage;
        let kind = passage.kind.ok_or_else(Status::unknown_path)?;
        let call = Call {
            server: self,
            kind,
            info,
            query,
            parts,
            user,
            seats: &passage.seats,
            trail: passage.trail.as_deref(),
            noted: &passage.noted,
        };
        let mut response = dispatch(&call, body).await?;
        let text = info.subresource == "log";
        if let Some(trail) = passage
            .trail
            .as_ref()
            .filter(|_| !passage.long_running && !text)
        {
            response = trail.response(response);
        }
        if !passage.long_running {
            response = indented(&parts.headers, query, response);
        }
        let whole = matches!(info.verb.as_str(), "get" | "list") && !text && !passage.long_running;
        if whole {
            return Ok(compress(&parts.headers, response).await);
        }
        Ok(response)
    }

    async fn path(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        let path = info.path.trim_end_matches('/');
        if let Some(rest) = path.strip_prefix("/debug/") {
            return debug::answer(self, &parts.method, rest, query, &parts.headers, body).await;
        }
        if !info.is_read_only() {
            let none = coracle_apimachinery::gvk::GroupResource::new("", "");
            return Err(Status::method_not_supported(&none, &info.verb));
        }
        let (headers, kinds) = (&parts.headers, self.registry.kinds());
        let response = match path {
            "/version" => encode::value(headers, StatusCode::OK, &health::version())?,
            "/metrics" => self.metrics.render(headers, &self.registry).await,
            "/metrics/slis" => self.health.slis.render(headers),
            issuer::CONFIGURATION | issuer::KEYS => {
                let answer = self.tokens.as_ref().and_then(|t| t.discovery(path));
                answer.ok_or_else(Status::unknown_path)?
            }
            _ if path == "/openapi/v2"
                || path == "/openapi/v3"
                || path.starts_with("/openapi/v3/") =>
            {
                let answer = self.openapi.answer(headers, kinds, path, query)?;
                return Ok(compress(headers, answer).await);
            }
            _ => self.discovery.answer(headers, kinds, path)?,
        };
        Ok(response)
    }
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    let bytes = headers.get(name).map(HeaderValue::as_bytes);
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
