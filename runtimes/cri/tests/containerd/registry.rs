//! A registry that has what it is given, for whoever asks: plain HTTP at a loopback address.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use coracle_runtime::Image;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::node::archive;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Paths of the registry's API, and what is there: its type and its bytes.
type Content = Arc<Mutex<HashMap<String, (&'static str, Bytes)>>>;

pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    content: Content,
    _serving: AbortOnDropHandle<()>,
}

fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes);
    let hex: String = hex.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let content = Content::default();
        let serving = tokio::spawn(serve(listener, content.clone()));
        Self {
            address,
            content,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// Gives it an image of one layer, as `name:v1`.
    pub(crate) fn image(&self, name: &str, layer: &[u8], config: Value) -> Image {
        let blob = |bytes: &[u8]| {
            let path = format!("/v2/{name}/blobs/{}", digest(bytes));
            let of = ("application/octet-stream", Bytes::copy_from_slice(bytes));
            self.content.lock().insert(path, of);
            json!({"digest": digest(bytes), "size": bytes.len()})
        };
        let mut layers = blob(layer);
        layers["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
        let config = json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", _ => "arm64" },
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        });
        let mut config = blob(config.to_string().as_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layers],
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = digest(&manifest);
        for version in ["v1", &digest] {
            let path = format!("/v2/{name}/manifests/{version}");
            let of = (MANIFEST, manifest.clone());
            self.content.lock().insert(path, of);
        }
        Image {
            reference: format!("{}/{name}:v1", self.address),
            digest,
        }
    }

    /// An image of busybox that runs a script.
    pub(crate) fn script(&self, name: &str, script: &str) -> Image {
        self.image(
            name,
            &archive(&[]),
            json!({"Entrypoint": ["sh", "-c", script]}),
        )
    }
}

async fn serve(listener: TcpListener, content: Content) {
    while let Ok((stream, _)) = listener.accept().await {
        let content = content.clone();
        let answer = service_fn(move |request: http::Request<Incoming>| {
            let found = content.lock().get(request.uri().path()).cloned();
            let is_head = request.method() == http::Method::HEAD;
            async move {
                let response = http::Response::builder();
                let response = match found {
                    Some((kind, bytes)) => response
                        .header("content-type", kind)
                        .header("docker-content-digest", digest(&bytes))
                        .header("content-length", bytes.len())
                        .body(Full::new(if is_head { Bytes::new() } else { bytes })),
                    None => response.status(404).body(Full::default()),
                };
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
