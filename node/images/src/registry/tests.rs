#![allow(clippy::unwrap_used)]

use axum::Router;
use base64::Engine as _;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::client::{Basic, HttpClients, Repository, Timeouts, Trust};
use crate::media_types::OCI_MANIFEST;
use crate::{Digest, EmbeddedRegistry};

mod interop;
mod uploads;

/// Serves a router on loopback for the rest of the test; returns `127.0.0.1:port`.
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // The test's runtime ends the task.
    tokio::spawn(async move { axum::serve(listener, router).await });
    host
}

/// The users `admin`, who may push, and `node`, who may pull; passwords equal names.
pub(super) fn authenticator() -> Authenticator {
    Arc::new(|parts: &Parts| {
        let credential = |user: &str| {
            let pair = format!("{user}:{user}");
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(pair)
            )
        };
        let sent = parts.headers.get(http::header::AUTHORIZATION);
        match sent.and_then(|sent| sent.to_str().ok()) {
            Some(sent) if sent == credential("admin") => Access::Push,
            Some(sent) if sent == credential("node") => Access::Pull,
            _ => Access::None,
        }
    })
}

/// A registry on loopback, plain HTTP.
pub(crate) struct TestRegistry {
    _folder: tempfile::TempDir,
    pub(crate) host: String,
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = RegistryConfig::new(folder.path(), authenticator());
        Self {
            host: serve(router(config).unwrap()).await,
            _folder: folder,
        }
    }

    pub(crate) fn embedded(&self, user: &str) -> EmbeddedRegistry {
        EmbeddedRegistry {
            name: self.host.clone(),
            aliases: vec![self.host.replace("127.0.0.1", "localhost")],
            endpoints: vec![format!("http://{}", self.host)],
            ca_pem: Vec::new(),
            credential: Some((user.into(), user.into())),
        }
    }

    pub(crate) async fn repository(&self, name: &str, user: &str) -> Repository {
        let timeouts = Timeouts {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(5),
        };
        let http = HttpClients::new(b"", timeouts).unwrap();
        let http = http.get(Trust::Cluster).await.unwrap();
        let basic = Basic {
            username: user.into(),
            password: user.into(),
        };
        let endpoint = format!("http://{}", self.host);
        Repository::new(http, &endpoint, name, Some(basic), "pull,push")
    }
}

/// A registry without a socket, whose every caller is the one that was set.
struct Local {
    folder: tempfile::TempDir,
    router: Router,
}

struct Reply {
    status: u16,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["errors"][0]["code"].as_str().unwrap_or("").to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Local {
    fn new(limits: RegistryLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let router = Self::open(folder.path(), limits);
        Self { folder, router }
    }

    fn open(root: &std::path::Path, limits: RegistryLimits) -> Router {
        let mut config = RegistryConfig::new(root, Arc::new(|_: &Parts| Access::Push));
        config.limits = limits;
        router(config).unwrap()
    }

    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    async fn upload(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let uri = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let reply = self.send("POST", &uri, &[], bytes).await;
        assert_eq!(reply.status, 201);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
        digest
    }

    async fn put(&self, name: &str, version: &str, manifest: &Value) -> Reply {
        let uri = format!("/v2/{name}/manifests/{version}");
        let content_type = [("content-type", OCI_MANIFEST)];
        let body = manifest.to_string();
        self.send("PUT", &uri, &content_type, body.as_bytes()).await
    }
}

fn manifest(config: &Digest, layer: &Digest) -> Value {
    json!({
        "schemaVersion": 2,
        "config": {"mediaType": "x/y", "digest": config.to_string(), "size": 1},
        "layers": [{"mediaType": "x/y", "digest": layer.to_string(), "size": 1}],
    })
}

#[tokio::test]
async fn who_may_do_what() {
    let registry = TestRegistry::start().await;
    let url = format!("http://{}/v2/", registry.host);
    let client = reqwest_client().await;
    let anonymous = client.get(&url).send().await.unwrap();
    assert_eq!(anonymous.status().as_u16(), 401);
    let challenge = anonymous.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
    let body = anonymous.text().await.unwrap();
    assert!(body.contains("UNAUTHORIZED"), "{body}");

    let node = registry.repository("app", "node").await;
    let error = node.push_blob("x".into()).await.unwrap_err().to_string();
    assert!(error.contains("may pull and not push"), "{error}");
    let stranger = registry.repository("app", "stranger").await;
    assert!(stranger.exists().await.is_err());
    let admin = registry.repository("app", "admin").await;
    admin.push_blob("x".into()).await.unwrap();
    assert!(node.exists().await.unwrap());
    assert!(
        !registry
            .repository("b", "node")
            .await
            .exists()
            .await
            .unwrap()
    );
}

async fn reqwest_client() -> reqwest::Client {
    let second = Duration::from_secs(5);
    let timeouts = Timeouts {
        connect: second,
        read: second,
    };
    let clients = HttpClients::new(b"", timeouts).unwrap();
    clients.get(Trust::Cluster).await.unwrap()
}

#[tokio::test]
async fn blobs_belong_to_repositories() {
    let registry = Local::new(RegistryLimits::default());
    let digest = registry.upload("a", b"0123456789").await;
    let uri = |name: &str| format!("/v2/{name}/blobs/{digest}");
    let head = registry.send("HEAD", &uri("a"), &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    assert!(head.body.is_empty());
    let range = [("range", "bytes=2-4")];
    let part = registry.send("GET", &uri("a"), &range, b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &b"234"[..]));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let past = [("range", "bytes=10-")];
    assert_eq!(
        registry.send("GET", &uri("a"), &past, b"").await.status,
        416
    );
    assert_eq!(registry.send("GET", &uri("b"), &[], b"").await.status, 404);

    let mount = format!("/v2/b/blobs/uploads/?mount={digest}&from=a");
    assert_eq!(registry.send("POST", &mount, &[], b"").await.status, 201);
    let elsewhere = format!("/v2/c/blobs/uploads/?mount={digest}&from=nowhere");
    assert_eq!(
        registry.send("POST", &elsewhere, &[], b"").await.status,
        202
    );
    let escape = format!("/v2/c/blobs/uploads/?mount={digest}&from=../a");
    assert_eq!(
        registry.send("POST", &escape, &[], b"").await.code(),
        "NAME_INVALID"
    );

    assert_eq!(
        registry.send("DELETE", &uri("a"), &[], b"").await.status,
        202
    );
    assert_eq!(registry.send("GET", &uri("a"), &[], b"").await.status, 404);
    assert_eq!(
        registry.send("DELETE", &uri("a"), &[], b"").await.status,
        404
    );
    assert_eq!(registry.send("GET", &uri("b"), &[], b"").await.status, 200);
}

#[tokio::test]
async fn manifests_tags_and_lists() {
    let registry = Local::new(RegistryLimits::default());
    let config = registry.upload("team/app", b"{}").await;
    let layer = registry.upload("team/app", b"layer").await;
    let made = manifest(&config, &layer);
    let digest = Digest::of(made.to_string().as_bytes());
    for tag in ["v1", "v2", "v3"] {
        let reply = registry.put("team/app", tag, &made).await;
        assert_eq!(reply.status, 201);
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    }
    let by_tag = registry
        .send("GET", "/v2/team/app/manifests/v1", &[], b"")
        .await;
    assert_eq!(by_tag.header("content-type"), OCI_MANIFEST);
    assert_eq!(by_tag.json(), made);
    let uri = format!("/v2/team/app/manifests/{digest}");
    let head = registry.send("HEAD", &uri, &[], b"").await;
    assert_eq!(
        head.header("content-length"),
        made.to_string().len().to_string()
    );

    let list = |query: &str| format!("/v2/team/app/tags/list{query}");
    let all = registry.send("GET", &list(""), &[], b"").await;
    assert_eq!(
        all.json(),
        json!({"name": "team/app", "tags": ["v1", "v2", "v3"]})
    );
    let first = registry.send("GET", &list("?n=2"), &[], b"").await;
    assert_eq!(first.json()["tags"], json!(["v1", "v2"]));
    let next = "</v2/team/app/tags/list?n=2&last=v2>; rel=\"next\"";
    assert_eq!(first.header("link"), next);
    let second = registry.send("GET", &list("?n=2&last=v2"), &[], b"").await;
    assert_eq!(second.json()["tags"], json!(["v3"]));
    assert_eq!(second.header("link"), "");
    registry.upload("a", b"x").await;
    let catalog = registry.send("GET", "/v2/_catalog", &[], b"").await;
    assert_eq!(catalog.json(), json!({"repositories": ["a", "team/app"]}));
    let nothing = registry.send("GET", "/v2/nope/tags/list", &[], b"").await;
    assert_eq!((nothing.status, &*nothing.code()), (404, "NAME_UNKNOWN"));

    let reply = registry
        .send("DELETE", "/v2/team/app/manifests/v3", &[], b"")
        .await;
    assert_eq!(reply.status, 202);
    assert_eq!(registry.send("GET", &uri, &[], b"").await.status, 200);
    assert_eq!(registry.send("DELETE", &uri, &[], b"").await.status, 202);
    let gone = registry
        .send("GET", "/v2/team/app/manifests/v1", &[], b"")
        .await;
    assert_eq!((gone.status, &*gone.code()), (404, "MANIFEST_UNKNOWN"));
    assert_eq!(registry.send("DELETE", &uri, &[], b"").await.status, 404);
}

#[tokio::test]
async fn manifests_that_are_refused() {
    let registry = Local::new(RegistryLimits {
        manifest_bytes: 1000,
        ..RegistryLimits::default()
    });
    let config = registry.upload("a", b"{}").await;
    let good = manifest(&config, &config);
    let missing = manifest(&config, &Digest::of(b"nowhere"));
    let mut version1 = good.clone();
    version1["schemaVersion"] = 1.into();
    let mut typed = good.clone();
    typed["mediaType"] = "text/plain".into();
    let mut long = good.clone();
    long["annotations"] = json!({"x": "y".repeat(1000)});
    for (version, body, status, code) in [
        ("v1", &missing, 400, "MANIFEST_BLOB_UNKNOWN"),
        ("v1", &version1, 400, "MANIFEST_INVALID"),
        ("v1", &typed, 400, "MANIFEST_INVALID"),
        ("v1", &json!("text"), 400, "MANIFEST_INVALID"),
        ("v1", &json!({"schemaVersion": 2}), 400, "MANIFEST_INVALID"),
        ("v1", &long, 413, "SIZE_INVALID"),
        (
            &Digest::of(b"other").to_string(),
            &good,
            400,
            "DIGEST_INVALID",
        ),
        (".v1", &good, 400, "MANIFEST_INVALID"),
    ] {
        let reply = registry.put("a", version, body).await;
        assert_eq!((reply.status, &*reply.code()), (status, code), "{body}");
    }
    let reply = registry.send("POST", "/v2/a/manifests/v1", &[], b"").await;
    assert_eq!((reply.status, &*reply.code()), (405, "UNSUPPORTED"));
    let other = registry.put("b", "v1", &good).await;
    assert_eq!(other.code(), "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn referrers() {
    let registry = Local::new(RegistryLimits::default());
    let config = registry.upload("a", b"{}").await;
    let subject = manifest(&config, &config);
    let digest = Digest::of(subject.to_string().as_bytes());
    let mut signature = subject.clone();
    signature["artifactType"] = "x/signature".into();
    signature["subject"] = json!({
        "mediaType": OCI_MANIFEST, "digest": digest.to_string(), "size": 1,
    });
    registry.put("a", "v1", &subject).await;
    let reply = registry.put("a", "sig", &signature).await;
    assert_eq!(reply.header("oci-subject"), digest.to_string());
    let uri = format!("/v2/a/referrers/{digest}");
    let found = registry.send("GET", &uri, &[], b"").await.json();
    assert_eq!(found["manifests"][0]["artifactType"], "x/signature");
    let filtered = registry
        .send("GET", &format!("{uri}?artifactType=y"), &[], b"")
        .await;
    assert_eq!(filtered.json()["manifests"], json!([]));
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
}

#[tokio::test]
async fn content_survives_a_restart_and_garbage_does_not() {
    let no_mercy = RegistryLimits {
        garbage_age: Duration::ZERO,
        ..RegistryLimits::default()
    };
    let mut registry = Local::new(no_mercy);
    let config = registry.upload("a", b"{}").await;
    let layer = registry.upload("a", b"layer").await;
    let stray = registry.upload("a", b"stray").await;
    let made = manifest(&config, &layer);
    registry.put("a", "v1", &made).await;
    registry.router = Local::open(registry.folder.path(), no_mercy);
    let status = async |registry: &Local, digest: &Digest| {
        let uri = format!("/v2/a/blobs/{digest}");
        registry.send("HEAD", &uri, &[], b"").await.status
    };
    assert_eq!(status(&registry, &layer).await, 200);
    assert_eq!(status(&registry, &stray).await, 404);
    let reply = registry.send("GET", "/v2/a/manifests/v1", &[], b"").await;
    assert_eq!(reply.json(), made);
    let digest = Digest::of(made.to_string().as_bytes());
    let uri = format!("/v2/a/manifests/{digest}");
    registry.send("DELETE", &uri, &[], b"").await;
    assert_eq!(status(&registry, &layer).await, 404);
    let blobs = registry.folder.path().join("content/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}
