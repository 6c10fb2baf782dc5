//! A server over a store in memory, and requests to it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use coracle_apiserver::{ApiServer, Config, SigningKey, TokenConfig, UserInfo, bootstrap};
use coracle_store::{MemoryStore, Store};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Everything that is waited for comes within this time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) server: ApiServer,
    user: Option<UserInfo>,
}

/// An answer that has been read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The object, of an answer with this code.
    #[track_caller]
    pub(crate) fn ok(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    /// The message, of a Status with this code and reason.
    #[track_caller]
    pub(crate) fn fails(&self, code: u16, reason: &str) -> String {
        assert_eq!(self.code, code, "{}", self.text);
        let status = self.json();
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["code"], code);
        assert_eq!(status["reason"], reason, "{}", self.text);
        status["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    /// A server with what a cluster starts with, and its administrator.
    pub(crate) async fn new() -> Self {
        Self::over(MemoryStore::new(), |_| {}).await
    }

    /// The same over a given store, with changes to its configuration.
    pub(crate) async fn over(store: Arc<dyn Store>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(store, "10.43.0.0/16".parse().unwrap());
        config.advertise = Some("192.0.2.1:6443".parse().unwrap());
        config.tokens = Some(token_config());
        change(&mut config);
        let advertise = config.advertise;
        let server = ApiServer::new(config);
        bootstrap::make(server.registry(), advertise).await.unwrap();
        let api = Self {
            server,
            user: Some(UserInfo::new("admin", &["system:masters"])),
        };
        api.default_account("default").await;
        api
    }

    /// Makes the account that Pods of a namespace run as, as its controller does.
    pub(crate) async fn default_account(&self, namespace: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let made = self
            .post(&path, &json!({"metadata": {"name": "default"}}))
            .await;
        // A store may have it from before.
        assert!([201, 409].contains(&made.code), "{}", made.text);
    }

    /// The same server, for another user; `None` is nobody.
    pub(crate) fn user(&self, user: Option<UserInfo>) -> Self {
        Self {
            server: self.server.clone(),
            user,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> http::Response<Body> {
        let mut service = self.server.service();
        if let Some(user) = &self.user {
            service = service.with_identity(user.clone());
        }
        service.oneshot(request).await.unwrap()
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        self.request(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, "", Body::empty()).await
    }

    /// A request of nobody but who the token stands for.
    pub(crate) async fn with_token(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.user(None).request(request).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path)
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        self.request(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::POST, path, "application/json", body.to_string())
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::PUT, path, "application/json", body.to_string())
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.raw(Method::DELETE, path, "", Body::empty()).await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.raw(
            Method::DELETE,
            path,
            "application/json",
            options.to_string(),
        )
        .await
    }

    /// Sends a patch: `json`, `merge` or `strategic-merge`.
    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let media_type = format!("application/{kind}-patch+json");
        self.raw(Method::PATCH, path, &media_type, body.to_string())
            .await
    }

    /// Creates a ConfigMap.
    #[track_caller]
    pub(crate) fn config_map(&self, name: &str) -> impl Future<Output = Value> {
        let body =
            json!({"metadata": {"name": name, "labels": {"name": name}}, "data": {"a": "1"}});
        let api = self.clone();
        async move { api.post(CONFIG_MAPS, &body).await.ok(201) }
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, "application/json").await
    }

    /// Opens a watch whose events come as is accepted.
    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let request = Request::get(path).header("accept", accept);
        let response = self.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        let body = StreamExt::boxed(response.into_body().into_data_stream());
        Watch {
            body,
            buffer: Vec::new(),
        }
    }
}

/// Issuer of the tokens of these servers.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Tokens signed by a key that was made just now.
pub(crate) fn token_config() -> TokenConfig {
    let pair = rcgen::KeyPair::generate().unwrap();
    let public = rcgen::PublicKeyData::subject_public_key_info(&pair);
    TokenConfig {
        issuers: vec![ISSUER.to_owned()],
        audiences: Vec::new(),
        signing: SigningKey::from_der(&pair.serialize_der(), &public).unwrap(),
        verifying: Vec::new(),
    }
}

/// An open watch.
pub(crate) struct Watch {
    body: BoxStream<'static, Result<bytes::Bytes, axum::Error>>,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the watch has ended.
    pub(crate) async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(DEADLINE, self.body.next())
                .await
                .expect("an event in time")?;
            self.buffer.extend_from_slice(&chunk.unwrap());
        }
    }

    /// The next event is of this type, and of the object as it was answered.
    pub(crate) async fn expect(&mut self, kind: &str, object: &Value) {
        let event = self.event().await.expect("an event");
        assert_eq!(event, json!({"type": kind, "object": object}));
    }

    /// The first event from here on that is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.event().await.expect("an event");
            assert_ne!(event["type"], "ERROR", "{event}");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The next event as `TYPE name`.
    pub(crate) async fn line(&mut self) -> String {
        let event = self.event().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

/// A Pod with one container.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "app:v1"}]},
    })
}

/// A Deployment.
pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "app:v1"}]},
            },
        },
    })
}
