//! The request path, whole and in its order:
//!
//! request info → authentication → (audit) → flow control → authorization → handler, and in the
//! handler: decode → defaulting → mutating admission → strategy → validating admission → store
//! → encode (`handlers`, `registry::create`, `registry::update`).
//!
//! Audit has its place after authentication; nothing stands there yet.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::body::Body;
use coracle_apimachinery::status::Status;
use futures::FutureExt;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::UserInfo;
use crate::auth::authentication::authenticate;
use crate::auth::authorization::authorize;
use crate::auth::tokens::{Tokens, discovery as issuer};
use crate::discovery::{self, Discovery};
use crate::flow::Flow;
use crate::handlers::compress::compress;
use crate::handlers::encode::{self, status};
use crate::handlers::{Call, dispatch};
use crate::health::{self, Health};
use crate::metrics::{Metrics, RequestLabels};
use crate::nodes::Nodes;
use crate::openapi::OpenApi;
use crate::registry::{Registry, kinds};
use crate::request::info::{RequestInfo, request_info};
use crate::request::options::Query;
use crate::request::strict::Schemas;

/// How long a request may take that is no watch and follows no log.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) nodes: Nodes,
    pub(crate) flow: Flow,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) extra: axum::Router,
    /// Cancelled when the server shuts down: watches end then.
    pub(crate) stopping: CancellationToken,
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

impl Inner {
    /// Compiled at the first write, once for all servers of a process: the schemas of the
    /// built-in kinds are part of the program.
    pub(crate) fn schemas(&self) -> &'static Schemas {
        static BUILT_IN: LazyLock<Schemas> = LazyLock::new(|| Schemas::compile(&kinds::all()));
        &BUILT_IN
    }

    /// Answers a request. Whatever happens, there is an answer.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query());
        let info = request_info(
            &parts.method,
            parts.uri.path(),
            query.flag("watch").unwrap_or(false),
        );
        let long_running = info.is_long_running(query.flag("follow").unwrap_or(false));
        let labels = RequestLabels::new(&self.registry, &info);
        let started = Instant::now();
        let headers = parts.headers.clone();
        let _running = self
            .metrics
            .begin(&labels, info.is_read_only(), long_running);

        let answer =
            AssertUnwindSafe(self.answer(parts, body, &info, &query, long_running)).catch_unwind();
        let answer = if long_running {
            Ok(answer.await)
        } else {
            tokio::time::timeout(TIMEOUT, answer).await
        };
        let response = match answer {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(failure))) => status(&headers, &failure),
            Ok(Err(_panic)) => {
                tracing::error!(path = info.path, verb = info.verb, "a request panicked");
                status(
                    &headers,
                    &Status::internal("the request could not be served, see the server's log"),
                )
            }
            Err(_elapsed) => {
                let message = "request did not complete within the allotted timeout";
                status(&headers, &Status::timeout(message, 0))
            }
        };
        self.metrics
            .end(&labels, response.status(), started.elapsed(), long_running);
        tracing::debug!(
            verb = info.verb,
            path = info.path,
            code = response.status().as_u16(),
            elapsed = ?started.elapsed(),
            "served"
        );
        response
    }

    async fn answer(
        self: &Arc<Self>,
        mut parts: Parts,
        mut body: Body,
        info: &RequestInfo,
        query: &Query,
        long_running: bool,
    ) -> Result<Response<Body>, Status> {
        let user = authenticate(&parts, &self.registry, self.tokens.as_ref()).await;
        if !discovery::owns(&info.path) {
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
        if health::is_public(&info.path) {
            return Ok(self.health.answer(self, &info.path, query).await);
        }
        let user = user?;
        let _permit = self.flow.admit(&user, info, long_running).await?;
        authorize(&user, info)?;
        if info.is_resource {
            self.resource(&parts, body, info, query, &user).await
        } else {
            self.path(&parts, info, query).await
        }
    }

    async fn resource(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        info: &RequestInfo,
        query: &Query,
        user: &UserInfo,
    ) -> Result<Response<Body>, Status> {
        let kind = self
            .registry
            .kinds()
            .resource(&info.group, &info.version, &info.resource)
            .ok_or_else(Status::unknown_path)?;
        let call = Call {
            server: self,
            kind,
            info,
            query,
            parts,
            user,
        };
        let response = dispatch(call, body).await?;
        let whole = matches!(info.verb.as_str(), "get" | "list") && info.subresource != "log";
        if whole {
            return Ok(compress(&parts.headers, response).await);
        }
        Ok(response)
    }

    async fn path(
        self: &Arc<Self>,
        parts: &Parts,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        if !info.is_read_only() {
            let none = coracle_apimachinery::gvk::GroupResource::new("", "");
            return Err(Status::method_not_supported(&none, &info.verb));
        }
        let path = info.path.trim_end_matches('/');
        match path {
            "/version" => encode::value(&parts.headers, StatusCode::OK, &health::version()),
            "/metrics" => Ok(self.metrics.render(&self.registry).await),
            issuer::CONFIGURATION | issuer::KEYS => {
                let answer = self.tokens.as_ref().and_then(|t| t.discovery(path));
                answer.ok_or_else(Status::unknown_path)
            }
            _ if path == "/openapi/v2"
                || path == "/openapi/v3"
                || path.starts_with("/openapi/v3/") =>
            {
                let answer =
                    self.openapi
                        .answer(&parts.headers, self.registry.kinds(), path, query)?;
                Ok(compress(&parts.headers, answer).await)
            }
            _ => self
                .discovery
                .answer(&parts.headers, self.registry.kinds(), path),
        }
    }
}
