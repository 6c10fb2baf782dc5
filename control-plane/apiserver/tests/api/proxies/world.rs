//! A node whose kubelet leads to ports of this machine, Pods on it, and what serves there.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use coracle_apiserver::dial::{Dial, Endpoint, Stream};
use coracle_apiserver::serving::server_config;
use coracle_store::MemoryStore;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Answer, Api, PODS, pod};
use crate::tls::Ca;

/// Address of the node, which only its dialler knows.
pub(super) const NODE: &str = "192.0.2.10";
const KUBELET: u16 = 10250;
/// Address of the Pod.
pub(super) const POD: &str = "10.42.0.5";

pub(super) struct World {
    pub(super) api: Api,
    /// Port of the Pod that speaks HTTP, and the one that speaks it over TLS.
    pub(super) port: u16,
    pub(super) tls_port: u16,
    /// What `/stream` answers, piece by piece.
    pub(super) pieces: mpsc::Sender<Result<Bytes, io::Error>>,
}

/// Leads to this machine.
struct Local {
    kubelet: u16,
}

#[async_trait]
impl Dial for Local {
    async fn dial(&self, endpoint: Endpoint<'_>) -> io::Result<Box<dyn Stream>> {
        assert_eq!((endpoint.node, endpoint.host), ("n1", NODE));
        let port = match endpoint.port {
            KUBELET => self.kubelet,
            other => other,
        };
        Ok(Box::new(TcpStream::connect(("127.0.0.1", port)).await?))
    }
}

impl World {
    /// A Pod `web` with an address, on a node `n1`.
    pub(super) async fn new() -> Self {
        let ca = Ca::new();
        let kubelet = listen(Some(acceptor(&ca)), as_kubelet).await;
        let identity = ca.sign("kube-apiserver", &["system:masters"], &[]);
        let api = Api::over(MemoryStore::new(), |config| {
            config.kubelet_tls = Some(Arc::new(ca.client(Some(identity))));
            config.node_dialer = Arc::new(Local { kubelet });
        })
        .await;
        let node = json!({"metadata": {"name": "n1"}});
        api.post("/api/v1/nodes", &node).await.ok(201);
        node_at(&api, NODE).await;

        let (pieces, receiver) = mpsc::channel(1);
        let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
        let serve = move |request| as_pod(request, receiver.clone());
        let port = listen(None, serve.clone()).await;
        // Nobody knows who has signed for it.
        let tls_port = listen(Some(acceptor(&Ca::new())), serve).await;
        let world = Self {
            api,
            port,
            tls_port,
            pieces,
        };
        let mut body = pod("web");
        body["spec"]["nodeName"] = json!("n1");
        body["spec"]["containers"][0]["ports"] = json!([
            {"name": "http", "containerPort": port}, {"name": "https", "containerPort": tls_port},
        ]);
        world.api.post(PODS, &body).await.ok(201);
        world.pod_at("web", POD).await;
        world
    }

    /// Says of a Pod where it is.
    pub(super) async fn pod_at(&self, name: &str, ip: &str) {
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
        let path = format!("{PODS}/{name}/status");
        self.api.patch(&path, "merge", &status).await.ok(200);
    }

    /// What is below the proxy of a Pod.
    pub(super) async fn get(&self, name: &str, below: &str) -> Answer {
        self.api.get(&format!("{PODS}/{name}/proxy{below}")).await
    }
}

/// Says of the node where it is.
pub(super) async fn node_at(api: &Api, address: &str) {
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET}},
    }});
    let path = "/api/v1/nodes/n1/status";
    api.patch(path, "merge", &status).await.ok(200);
}

fn acceptor(ca: &Ca) -> TlsAcceptor {
    let (certificate, key) = ca.sign("system:node:n1", &["system:nodes"], &[NODE]);
    let own = std::slice::from_ref(&ca.certificate);
    let config = server_config(vec![certificate], key, own).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Serves on a port of its own.
async fn listen<F>(
    tls: Option<TlsAcceptor>,
    serve: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> u16
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, serve) = (tls.clone(), serve.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = serve(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let stream: Box<dyn Stream> = match tls {
                    None => Box::new(stream),
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                };
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = served.with_upgrades().await;
            });
        }
    });
    port
}

fn answer(code: u16, text: impl Into<Body>) -> Response<Body> {
    let response = Response::builder().status(code);
    response.body(text.into()).unwrap()
}

fn switching(protocol: &str) -> Response<Body> {
    let response = Response::builder().status(101);
    let response = response.header(header::CONNECTION, "Upgrade");
    let response = response.header(header::UPGRADE, protocol);
    response.body(Body::empty()).unwrap()
}

/// Connects to ports of this machine, and says what else it is asked.
async fn as_kubelet(mut request: Request<Incoming>) -> Response<Body> {
    let uri = request.uri().clone();
    if uri.path() != "/connect/default/web" {
        return answer(200, uri.to_string());
    }
    let query = uri.query().unwrap_or_default();
    let port = query.strip_prefix(&format!("ip={POD}&port="));
    let port: u16 = port.expect("the Pod's address").parse().unwrap();
    match TcpStream::connect(("127.0.0.1", port)).await {
        Err(error) => answer(502, error.to_string()),
        Ok(mut stream) => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut client = TokioIo::new(upgrade.await.unwrap());
                let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
            });
            switching("tcp")
        }
    }
}

type Pieces = Arc<std::sync::Mutex<Option<mpsc::Receiver<Result<Bytes, io::Error>>>>>;

async fn as_pod(mut request: Request<Incoming>, pieces: Pieces) -> Response<Body> {
    if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
        let protocol = protocol.to_str().unwrap().to_owned();
        let upgrade = hyper::upgrade::on(&mut request);
        match protocol.as_str() {
            "echo" => {
                tokio::spawn(async move {
                    let stream = TokioIo::new(upgrade.await.unwrap());
                    let (mut from, mut to) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
                return switching("echo");
            }
            "ignored" => return answer(200, "hello"),
            _ => return answer(400, "no such protocol"),
        }
    }
    match request.uri().path() {
        "/page" => {
            let mut page = answer(200, r#"<a href="/rewriteme">test</a>"#);
            let html = header::HeaderValue::from_static("text/html; charset=utf-8");
            page.headers_mut().insert(header::CONTENT_TYPE, html);
            page
        }
        "/moved" => {
            let mut moved = answer(302, "");
            let to = header::HeaderValue::from_static("/elsewhere/?a=b");
            moved.headers_mut().insert(header::LOCATION, to);
            moved
        }
        "/huge" => {
            let mut huge = answer(200, "");
            let value = "x".repeat(1 << 20).parse().unwrap();
            huge.headers_mut().insert("x-huge", value);
            huge
        }
        "/stream" => {
            let pieces = pieces.lock().unwrap().take().expect("it is asked once");
            let pieces = futures::stream::unfold(pieces, |mut pieces| async move {
                let piece = pieces.recv().await?;
                Some((piece, pieces))
            });
            answer(200, Body::from_stream(pieces))
        }
        _ => heard(request).await,
    }
}

/// What the Pod has heard, as JSON.
async fn heard(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let headers: serde_json::Map<String, Value> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    let body = body.collect().await.unwrap().to_bytes();
    let heard = json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    answer(201, heard.to_string())
}
