//! A Kubernetes API in memory: as much of it as the kubelet speaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Default)]
struct Objects {
    revision: u64,
    /// By path, without `/status`.
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, &'static str, String, Value)>,
    /// Patches of status by object.
    patches: BTreeMap<String, usize>,
    refusals: BTreeMap<String, u16>,
}

/// The API; clones share it.
#[derive(Clone, Default)]
pub(super) struct FakeApi {
    state: Arc<Mutex<Objects>>,
    changed: Arc<watch::Sender<u64>>,
}

fn collection(path: &str) -> Option<(String, String)> {
    // `/api/v1/namespaces/ns/pods/name` lies in `/api/v1/pods`.
    let (base, rest) = path.rsplit_once('/')?;
    Some((base.to_owned(), rest.to_owned()))
}

fn kind_of(path: &str) -> &str {
    path.rsplit('/').nth(1).unwrap_or_default()
}

impl FakeApi {
    pub(super) fn client(&self) -> kube::Client {
        let router = axum::Router::new()
            .fallback(handle)
            .with_state(self.clone());
        kube::Client::new(router, "default")
    }

    /// Puts an object as a user would.
    pub(super) fn put(&self, path: &str, object: Value) {
        let mut state = self.state.lock();
        let known = state.objects.contains_key(path);
        let verb = if known { "MODIFIED" } else { "ADDED" };
        self.store(&mut state, path, object, verb);
    }

    /// Changes an object as a user would.
    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let mut object = state.objects[path].clone();
        change(&mut object);
        self.store(&mut state, path, object, "MODIFIED");
    }

    /// Marks a Pod for deletion, as `kubectl delete` does.
    pub(super) fn delete_gracefully(&self, path: &str, seconds: u64) {
        self.change(path, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        });
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// How often the status of an object was patched.
    pub(super) fn status_patches(&self, path: &str) -> usize {
        self.state.lock().patches.get(path).copied().unwrap_or(0)
    }

    /// All events, `reason: message`.
    pub(super) fn events(&self) -> Vec<String> {
        let state = self.state.lock();
        let events = state
            .objects
            .iter()
            .filter(|(path, _)| kind_of(path) == "events");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events
            .map(|(_, event)| format!("{}: {}", text(&event["reason"]), text(&event["message"])))
            .collect()
    }

    /// Waits until the condition holds.
    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !condition(self) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .is_err()
        {
            let objects = serde_json::to_string_pretty(&self.state.lock().objects).unwrap();
            panic!("not within 20 s: {what}; objects: {objects}");
        }
    }

    /// Waits until an object is as wanted, and returns it.
    pub(super) async fn object(
        &self,
        path: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        self.until(what, |api| {
            api.get(path).is_some_and(|object| condition(&object))
        })
        .await;
        self.get(path).unwrap()
    }

    fn store(&self, state: &mut Objects, path: &str, mut object: Value, verb: &'static str) {
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let entry = (
            state.revision,
            verb,
            kind_of(path).to_owned(),
            object.clone(),
        );
        state.history.push(entry);
        match verb {
            "DELETED" => state.objects.remove(path),
            _ => state.objects.insert(path.to_owned(), object),
        };
        self.changed.send_modify(|n| *n += 1);
    }

    fn list(&self, kind: &str) -> Value {
        let state = self.state.lock();
        let of_kind = state
            .objects
            .iter()
            .filter(|(path, _)| kind_of(path) == kind);
        let items: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
        json!({
            "kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": state.revision.to_string()},
        })
    }

    fn watch(&self, kind: String, from: u64) -> Body {
        let (this, changed) = (self.clone(), self.changed.subscribe());
        let stream =
            futures::stream::unfold((this, changed, from), move |(this, mut changed, from)| {
                let kind = kind.clone();
                async move {
                    loop {
                        changed.borrow_and_update();
                        let next = {
                            let state = this.state.lock();
                            let mut later = state.history.iter();
                            later
                                .find(|(at, _, of, _)| *at > from && *of == kind)
                                .cloned()
                        };
                        if let Some((at, verb, _, object)) = next {
                            let line = format!("{}\n", json!({"type": verb, "object": object}));
                            let line = Ok::<_, std::io::Error>(Bytes::from(line));
                            return Some((line, (this, changed, at)));
                        }
                        changed.changed().await.ok()?;
                    }
                }
            });
        Body::from_stream(stream)
    }
}

fn problem(code: u16, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": reason, "metadata": {},
    });
    let code = StatusCode::from_u16(code).unwrap();
    (code, status.to_string()).into_response()
}

fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else if key == "conditions" {
            let known = target
                .entry(key)
                .or_insert_with(|| json!([]))
                .as_array_mut()
                .unwrap();
            for condition in value.as_array().unwrap() {
                if condition["$patch"] == "delete" {
                    known.retain(|c| c["type"] != condition["type"]);
                    continue;
                }
                match known.iter_mut().find(|c| c["type"] == condition["type"]) {
                    Some(known) => merge(known, condition),
                    None => {
                        known.push(json!({}));
                        merge(known.last_mut().unwrap(), condition);
                    }
                }
            }
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

async fn handle(State(api): State<FakeApi>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (path, status) = match path.strip_suffix("/status") {
        Some(path) => (path.to_owned(), true),
        None => (path, false),
    };
    let code = api.state.lock().refusals.get(&path).copied();
    if let Some(code) = code {
        return problem(code, "Refused");
    }
    match parts.method {
        Method::GET => {
            if let Some(object) = api.get(&path) {
                return object.to_string().into_response();
            }
            let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
            match kind.as_str() {
                "pods" | "nodes" | "services" | "configmaps" => {}
                _ => return problem(404, "NotFound"),
            }
            if query.contains_key("watch") {
                let from = query.get("resourceVersion").and_then(|v| v.parse().ok());
                return api.watch(kind, from.unwrap_or(0)).into_response();
            }
            api.list(&kind).to_string().into_response()
        }
        // Nothing is kept of a token.
        Method::POST if path.ends_with("/token") => {
            let mut request = body;
            let about = request["spec"]["boundObjectRef"]["uid"].as_str().unwrap();
            request["status"] = json!({
                "token": format!("token-of-{about}"), "expirationTimestamp": "2100-01-01T00:00:00Z",
            });
            (StatusCode::CREATED, request.to_string()).into_response()
        }
        Method::POST => {
            let name = body["metadata"]["name"].as_str().unwrap().to_owned();
            let path = format!("{path}/{name}");
            let mut state = api.state.lock();
            if state.objects.contains_key(&path) {
                return problem(409, "AlreadyExists");
            }
            let mut object = body;
            let mut uid = format!("uid-{name}");
            if state
                .history
                .iter()
                .any(|(_, _, _, of)| of["metadata"]["uid"] == uid)
            {
                uid = format!("{uid}-{}", state.revision);
            }
            object["metadata"]["uid"] = json!(uid);
            api.store(&mut state, &path, object, "ADDED");
            (StatusCode::CREATED, state.objects[&path].to_string()).into_response()
        }
        Method::PATCH => {
            let mut state = api.state.lock();
            let Some(mut object) = state.objects.get(&path).cloned() else {
                return problem(404, "NotFound");
            };
            if status {
                *state.patches.entry(path.clone()).or_default() += 1;
            }
            let uid = &body["metadata"]["uid"];
            if !uid.is_null() && *uid != object["metadata"]["uid"] {
                return problem(409, "Conflict");
            }
            merge(&mut object, &body);
            api.store(&mut state, &path, object, "MODIFIED");
            state.objects[&path].to_string().into_response()
        }
        Method::DELETE => {
            let mut state = api.state.lock();
            let Some(object) = state.objects.get(&path).cloned() else {
                return problem(404, "NotFound");
            };
            let wanted = &body["preconditions"]["uid"];
            if !wanted.is_null() && *wanted != object["metadata"]["uid"] {
                return problem(409, "Conflict");
            }
            api.store(&mut state, &path, object.clone(), "DELETED");
            object.to_string().into_response()
        }
        _ => problem(405, "MethodNotAllowed"),
    }
}

impl FakeApi {
    /// Answers requests for an object with that code; none lets them through again.
    pub(super) fn refuse(&self, path: &str, code: Option<u16>) {
        let mut state = self.state.lock();
        match code {
            Some(code) => state.refusals.insert(path.to_owned(), code),
            None => state.refusals.remove(path),
        };
    }

    /// Removes an object at once, as a forced deletion does.
    pub(super) fn remove(&self, path: &str) {
        assert!(collection(path).is_some());
        let mut state = self.state.lock();
        let object = state.objects[path].clone();
        self.store(&mut state, path, object, "DELETED");
    }
}
