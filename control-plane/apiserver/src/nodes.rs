//! Requests to kubelets: over HTTPS, on a byte stream that [`Dial`] opens.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::gvk::GroupResource;
use coracle_apimachinery::status::Status;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::dial::{Dial, Endpoint};
use crate::registry::Registry;
use crate::request::body::collect;

/// Address types of a node, the preferred ones first.
const ADDRESS_TYPES: &[&str] = &[
    "InternalIP",
    "ExternalIP",
    "InternalDNS",
    "Hostname",
    "ExternalDNS",
];

/// How long a kubelet may take to begin its answer, and to end one that refuses.
const BEGIN: Duration = Duration::from_secs(30);

/// What a kubelet says instead of what it was asked for.
pub(crate) struct Refusal {
    pub(crate) code: StatusCode,
    pub(crate) text: String,
}

impl Refusal {
    async fn read(answer: Response<Incoming>) -> Self {
        let (parts, body) = answer.into_parts();
        // The code says enough where the text cannot be read.
        let text = collect(Body::new(body)).await.unwrap_or_default();
        Self {
            code: parts.status,
            text: String::from_utf8_lossy(&text).trim().to_owned(),
        }
    }
}

/// The client of all kubelets.
pub(crate) struct Nodes {
    dial: Arc<dyn Dial>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Nodes {
    pub(crate) fn new(dial: Arc<dyn Dial>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { dial, tls }
    }

    /// Sends a GET to the kubelet of a node, with headers of the caller's, which may ask for an
    /// upgrade of the connection. An answer of another code than is wanted is read whole.
    ///
    /// # Errors
    /// 404 for a node that does not exist, 500 where its kubelet cannot be reached or takes too
    /// long.
    pub(crate) async fn get(
        &self,
        registry: &Registry,
        node: &str,
        path: &str,
        headers: HeaderMap,
        wanted: StatusCode,
    ) -> Result<Result<Response<Incoming>, Refusal>, Status> {
        let asked = async {
            let answer = self.ask(registry, node, path, headers).await?;
            Ok(if answer.status() == wanted {
                Ok(answer)
            } else {
                Err(Refusal::read(answer).await)
            })
        };
        let asked = tokio::time::timeout(BEGIN, asked).await;
        asked.unwrap_or_else(|_| {
            Err(Status::internal(format!(
                "the kubelet of node {node:?} did not answer in time"
            )))
        })
    }

    async fn ask(
        &self,
        registry: &Registry,
        node: &str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Status> {
        let resource = GroupResource::new("", "nodes");
        let found = registry.find::<Node>("", node).await?;
        let found = found.ok_or_else(|| Status::not_found(&resource, node))?;
        let (host, port) = kubelet_endpoint(&found).ok_or_else(|| {
            Status::internal(format!(
                "node {node:?} has published no kubelet endpoint yet"
            ))
        })?;
        let endpoint = Endpoint {
            node,
            host: &host,
            port,
        };
        let sent = self.send(endpoint, path, headers).await;
        sent.map_err(|error| {
            tracing::warn!(node, host, port, %error, "failed to reach a kubelet");
            Status::internal(format!(
                "the kubelet of node {node:?} at {host}:{port} cannot be reached: {error}"
            ))
        })
    }

    async fn send(
        &self,
        endpoint: Endpoint<'_>,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let tls = self
            .tls
            .clone()
            .ok_or("this server has no client certificate for kubelets")?;
        let stream = self.dial.dial(endpoint).await?;
        let name = ServerName::try_from(endpoint.host.to_owned())?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The task owns the connection and ends with the response's body: the other half is
        // dropped then, or when the node hangs up.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a kubelet ended");
            }
        });
        let mut request = Request::get(path)
            .header(header::HOST, format!("{}:{}", endpoint.host, endpoint.port))
            .body(Empty::<Bytes>::new())?;
        request.headers_mut().extend(headers);
        Ok(sender.send_request(request).await?)
    }
}

fn kubelet_endpoint(node: &Node) -> Option<(String, u16)> {
    let status = node.status.as_ref()?;
    let port = status
        .daemon_endpoints
        .as_ref()?
        .kubelet_endpoint
        .as_ref()?
        .port;
    let addresses = status.addresses.as_deref()?;
    let address = ADDRESS_TYPES
        .iter()
        .find_map(|wanted| addresses.iter().find(|address| address.type_ == *wanted))?;
    Some((address.address.clone(), u16::try_from(port).ok()?))
}
