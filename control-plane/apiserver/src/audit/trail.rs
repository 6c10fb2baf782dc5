//! One request on its way through the stages, with what it sent and what it was answered.
//!
//! ```text
//!   RequestReceived ──► (ResponseStarted) ──► ResponseComplete
//!          └────────────────► Panic
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use coracle_apimachinery::status::Status;
use coracle_apimachinery::{cbor, protobuf};
use http::header::{HeaderMap, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body::{Frame, SizeHint};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde_json::Value;

use super::event::{Event, ObjectRef, User, code_only, of_status};
use super::policy::{Level, Stage};
use super::rules::Decision;
use super::{Audit, LevelLabel};
use crate::auth::UserInfo;
use crate::request::body::{MAX_BODY, yaml_to_json};
use crate::request::info::RequestInfo;
use crate::request::media::content_type;

/// Bytes of an answer that are kept; a longer one is left out of its event, which says so.
const MAX_ANSWER: usize = 4 * MAX_BODY;

/// Bytes of the client's name for itself that are told.
const MAX_USER_AGENT: usize = 1024;

/// The annotation of an event from which an object was left out.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// The trail of a request.
pub(crate) struct Trail {
    audit: Arc<Audit>,
    decision: Decision,
    state: Mutex<State>,
}

struct State {
    event: Event,
    sent: Option<Arc<Capture>>,
    answered: Option<Arc<Capture>>,
    complete: bool,
}

impl Trail {
    /// Begins a trail, if the policy wants one.
    pub(crate) fn begin(
        audit: &Arc<Audit>,
        parts: &Parts,
        user: Option<&UserInfo>,
        info: &RequestInfo,
        id: &str,
        received: Timestamp,
    ) -> Option<Arc<Self>> {
        let decision = audit.policy.decide(user, info);
        let level = decision.level;
        let label = LevelLabel {
            level: level.name(),
        };
        audit.metrics.levels.get_or_create(&label).inc();
        if level == Level::None {
            return None;
        }
        let uri = parts.uri.path_and_query();
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: level.name(),
            audit_id: id.to_owned(),
            stage: "",
            request_uri: uri.map(ToString::to_string).unwrap_or_default(),
            verb: info.verb.clone(),
            user: user.map(User::from).unwrap_or_default(),
            impersonated_user: None,
            source_ips: source_ips(&parts.headers, parts.extensions.get::<SocketAddr>()),
            user_agent: user_agent(parts.headers.get(USER_AGENT)),
            object_ref: info.is_resource.then(|| ObjectRef::from(info)),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: format!("{received:.6}"),
            stage_timestamp: String::new(),
            annotations: BTreeMap::new(),
        };
        let trail = Self {
            audit: audit.clone(),
            decision,
            state: Mutex::new(State {
                event,
                sent: None,
                answered: None,
                complete: false,
            }),
        };
        Some(Arc::new(trail))
    }

    /// The request has come.
    pub(crate) fn received(&self) {
        self.emit(&mut self.state.lock(), Stage::RequestReceived);
    }

    /// The request is treated as that of somebody else.
    pub(crate) fn impersonated(&self, user: &UserInfo) {
        self.state.lock().event.impersonated_user = Some(User::from(user));
    }

    /// What the authorizer said.
    pub(crate) fn authorized(&self, allowed: bool) {
        let annotations = &mut self.state.lock().event.annotations;
        let decision = if allowed { "allow" } else { "forbid" };
        annotations.insert("authorization.k8s.io/decision", decision.to_owned());
        annotations.insert("authorization.k8s.io/reason", String::new());
    }

    /// The kind should not be used any more.
    pub(crate) fn deprecated(&self) {
        let annotations = &mut self.state.lock().event.annotations;
        annotations.insert("k8s.io/deprecated", "true".to_owned());
    }

    /// What a handler has found out beside its answer.
    pub(crate) fn annotate(&self, key: &'static str, value: String) {
        self.state.lock().event.annotations.insert(key, value);
    }

    /// The body of the request, kept where the level wants it.
    pub(crate) fn request_body(&self, headers: &HeaderMap, info: &RequestInfo, body: Body) -> Body {
        let wanted = self.decision.level >= Level::Request && info.is_resource;
        if !wanted || info.is_read_only() {
            return body;
        }
        let capture = Arc::new(Capture::new(headers, MAX_BODY));
        self.state.lock().sent = Some(capture.clone());
        Body::new(Captured { body, capture })
    }

    /// An object was sent. What it is called is told at every level: no path names what is created,
    /// nor the version that is meant of what is replaced.
    pub(crate) fn sent(&self, meta: &ObjectMeta) {
        let mut state = self.state.lock();
        let Some(reference) = &mut state.event.object_ref else {
            return;
        };
        for (told, sent) in [
            (&mut reference.namespace, &meta.namespace),
            (&mut reference.name, &meta.name),
            (&mut reference.uid, &meta.uid),
            (&mut reference.resource_version, &meta.resource_version),
        ] {
            if told.is_empty() {
                told.push_str(sent.as_deref().unwrap_or_default());
            }
        }
    }

    /// The answer, kept where the level wants it. Streams are not.
    pub(crate) fn response(&self, response: Response<Body>) -> Response<Body> {
        if self.decision.level < Level::RequestResponse {
            return response;
        }
        let capture = Arc::new(Capture::new(response.headers(), MAX_ANSWER));
        self.state.lock().answered = Some(capture.clone());
        response.map(|body| Body::new(Captured { body, capture }))
    }

    /// The answer begins. Only of those that last it is told.
    pub(crate) fn respond(&self, code: u16, status: Option<&Status>, long_running: bool) {
        let mut state = self.state.lock();
        state.event.response_status = Some(status.map_or_else(|| code_only(code), of_status));
        if long_running {
            self.emit(&mut state, Stage::ResponseStarted);
        }
    }

    /// The server does not know who asks: that is all that is told.
    pub(crate) fn unknown(&self, status: &Status) {
        let mut state = self.state.lock();
        state.event.response_status = Some(of_status(status));
        self.emit(&mut state, Stage::ResponseStarted);
        state.complete = true;
    }

    /// The server failed over the request.
    pub(crate) fn panicked(&self, status: &Status) {
        let mut state = self.state.lock();
        state.event.response_status = Some(of_status(status));
        self.emit(&mut state, Stage::Panic);
        state.complete = true;
    }

    /// The answer has been sent, or its client has gone.
    pub(crate) fn complete(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.complete, true) {
            return;
        }
        if let Some(sent) = state.sent.take() {
            let object = self.object(&mut state.event, &sent);
            state.event.request_object = object;
        }
        if let Some(answered) = state.answered.take() {
            let object = self.object(&mut state.event, &answered);
            state.event.response_object = object;
        }
        self.emit(&mut state, Stage::ResponseComplete);
    }

    fn object(&self, event: &mut Event, capture: &Capture) -> Option<Value> {
        let kept = std::mem::take(&mut *capture.kept.lock());
        if kept.overflown {
            event.annotations.insert(TRUNCATED, "true".to_owned());
            return None;
        }
        let mut object = decode(&capture.media_type, kept.bytes.freeze())?;
        if self.decision.omit_managed_fields {
            omit_managed_fields(&mut object);
        }
        Some(object)
    }

    fn emit(&self, state: &mut State, stage: Stage) {
        if self.decision.omit_stages.contains(&stage) {
            return;
        }
        state.event.stage = stage.name();
        state.event.stage_timestamp = format!("{:.6}", Timestamp::now());
        match serde_json::to_vec(&state.event) {
            Ok(line) => {
                self.audit.metrics.events.inc();
                self.audit.log.push(line);
            }
            Err(error) => tracing::error!(%error, "an audit event cannot be encoded"),
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        // A request whose client goes before there is an answer ends here.
        self.complete();
    }
}

/// What a client calls itself, in each event of its requests: a long name is cut off.
fn user_agent(value: Option<&HeaderValue>) -> String {
    let whole = value.map(HeaderValue::as_bytes).unwrap_or_default();
    let begin = whole.get(..MAX_USER_AGENT).unwrap_or(whole);
    let mut told = String::from_utf8_lossy(begin).into_owned();
    if begin.len() < whole.len() {
        told.push_str("...TRUNCATED");
    }
    told
}

/// Where a request comes from: what proxies say, and then the peer. All but the last can be made
/// up by the client.
fn source_ips(headers: &HeaderMap, peer: Option<&SocketAddr>) -> Vec<String> {
    let of = |name: &str| {
        headers
            .get_all(name)
            .into_iter()
            .filter_map(|v| v.to_str().ok())
    };
    let forwarded = of("x-forwarded-for").flat_map(|value| value.split(','));
    let mut ips: Vec<String> = forwarded
        .map(str::trim)
        .filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
        .map(str::to_owned)
        .collect();
    let real = of("x-real-ip").map(str::trim).next();
    if let Some(real) = real.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
        && !ips.iter().any(|ip| ip == real)
    {
        ips.push(real.to_owned());
    }
    if let Some(peer) = peer.map(|peer| peer.ip().to_string())
        && ips.last() != Some(&peer)
    {
        ips.push(peer);
    }
    ips
}

/// A body as JSON; none where it is no object.
fn decode(media_type: &str, bytes: Bytes) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    const MAX_JSON: usize = 2 * MAX_ANSWER;
    let json: Bytes = match media_type {
        protobuf::MEDIA_TYPE => protobuf::to_json(&bytes, MAX_JSON).ok()?.into(),
        cbor::MEDIA_TYPE | "application/apply-patch+cbor" => {
            cbor::to_json(&bytes, MAX_JSON).ok()?.into()
        }
        "application/yaml"
        | "application/x-yaml"
        | "text/yaml"
        | "application/apply-patch+yaml" => yaml_to_json(&bytes).ok()?,
        _ => bytes,
    };
    serde_json::from_slice(&json).ok()
}

fn omit_managed_fields(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    let items = object.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten() {
        omit_managed_fields(item);
    }
    // A table has objects, or what they are called, beside its cells.
    let rows = object.get_mut("rows").and_then(Value::as_array_mut);
    let rows = rows.into_iter().flatten();
    rows.filter_map(|row| row.get_mut("object"))
        .for_each(omit_managed_fields);
}

#[derive(Default)]
struct Kept {
    bytes: BytesMut,
    overflown: bool,
}

/// The bytes of a body that went by.
struct Capture {
    media_type: String,
    limit: usize,
    kept: Mutex<Kept>,
}

impl Capture {
    fn new(headers: &HeaderMap, limit: usize) -> Self {
        Self {
            media_type: content_type(headers).to_owned(),
            limit,
            kept: Mutex::default(),
        }
    }

    fn keep(&self, bytes: &Bytes) {
        let mut kept = self.kept.lock();
        if kept.overflown || kept.bytes.len() + bytes.len() > self.limit {
            kept.overflown = true;
            kept.bytes = BytesMut::new();
        } else {
            kept.bytes.extend_from_slice(bytes);
        }
    }
}

/// A body that is kept as it goes by.
struct Captured {
    body: Body,
    capture: Arc<Capture>,
}

impl http_body::Body for Captured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            self.capture.keep(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_a_request_ends_with_its_peer() {
        let mut headers = HeaderMap::new();
        let peer: SocketAddr = "10.0.0.3:1234".parse().expect("an address");
        assert_eq!(source_ips(&headers, Some(&peer)), ["10.0.0.3"]);
        let set = |headers: &mut HeaderMap, name, value| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        set(
            &mut headers,
            "x-forwarded-for",
            "10.0.0.1, nonsense,10.0.0.2",
        );
        set(&mut headers, "x-real-ip", "10.0.0.1");
        let want = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        assert_eq!(source_ips(&headers, Some(&peer)), want);
        set(&mut headers, "x-forwarded-for", "10.0.0.3");
        set(&mut headers, "x-real-ip", "10.0.0.3");
        assert_eq!(source_ips(&headers, Some(&peer)), ["10.0.0.3"]);
        assert!(source_ips(&HeaderMap::new(), None).is_empty());
    }

    #[test]
    fn a_long_name_of_a_client_is_cut_off() {
        assert_eq!(user_agent(None), "");
        for (length, told, cut) in [(7, 7, false), (1024, 1024, false), (60_000, 1024, true)] {
            let name = HeaderValue::try_from("a".repeat(length)).expect("a header");
            let mut want = "a".repeat(told);
            if cut {
                want.push_str("...TRUNCATED");
            }
            assert_eq!(user_agent(Some(&name)), want, "{length}");
        }
    }

    #[test]
    fn managed_fields_are_omitted_wherever_objects_are() {
        let managed = serde_json::json!({"metadata": {"name": "a", "managedFields": [{}]}});
        let plain = serde_json::json!({"metadata": {"name": "a"}});
        for (mut object, want) in [
            (managed.clone(), plain.clone()),
            (
                serde_json::json!({"items": [managed, plain]}),
                serde_json::json!({"items": [plain, plain]}),
            ),
            (
                serde_json::json!({"rows": [{"cells": ["a"], "object": managed}, {"cells": []}]}),
                serde_json::json!({"rows": [{"cells": ["a"], "object": plain}, {"cells": []}]}),
            ),
        ] {
            omit_managed_fields(&mut object);
            assert_eq!(object, want);
        }
    }
}
