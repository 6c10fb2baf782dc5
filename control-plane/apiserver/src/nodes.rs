//! The way to nodes, and requests to their kubelets: over HTTPS, on a byte stream that [`Dial`] opens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_apimachinery::gvk::GroupResource;
use coracle_apimachinery::status::Status;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Node;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::dial::{Dial, Endpoint, Stream};
use crate::exchange::exchange;
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
    pub(crate) headers: HeaderMap,
}

impl Refusal {
    async fn read(answer: Response<Incoming>) -> Self {
        let (parts, body) = answer.into_parts();
        // The code says enough where the text cannot be read.
        let text = collect(Body::new(body)).await.unwrap_or_default();
        Self {
            code: parts.status,
            text: String::from_utf8_lossy(&text).trim().to_owned(),
            headers: parts.headers,
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
        let (host, port) = self.kubelet_of(registry, node).await?;
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
        let stream = self.open_kubelet(endpoint).await?;
        let mut request = Request::get(path)
            .header(header::HOST, format!("{}:{}", endpoint.host, endpoint.port))
            .body(Empty::<Bytes>::new())?;
        request.headers_mut().extend(headers);
        Ok(exchange(stream, request).await?)
    }

    /// The address of a node, and the port of its kubelet there.
    ///
    /// # Errors
    /// 404 for a node that does not exist, 500 where it says nothing of its kubelet.
    pub(crate) async fn kubelet_of(
        &self,
        registry: &Registry,
        node: &str,
    ) -> Result<(String, u16), Status> {
        let resource = GroupResource::new("", "nodes");
        let found = registry.find::<Node>("", node).await?;
        let found = found.ok_or_else(|| Status::not_found(&resource, node))?;
        kubelet_endpoint(&found).ok_or_else(|| {
            Status::internal(format!(
                "node {node:?} has published no kubelet endpoint yet"
            ))
        })
    }

    /// Opens a byte stream to a port of a node.
    ///
    /// # Errors
    /// Those of the network.
    pub(crate) async fn open(&self, endpoint: Endpoint<'_>) -> io::Result<Box<dyn Stream>> {
        self.dial.dial(endpoint).await
    }

    /// Opens a byte stream to a kubelet, as this server.
    ///
    /// # Errors
    /// Those of the network and of TLS, and where this server has no certificate.
    pub(crate) async fn open_kubelet(
        &self,
        endpoint: Endpoint<'_>,
    ) -> Result<Box<dyn Stream>, Box<dyn std::error::Error + Send + Sync>> {
        let tls = self
            .tls
            .clone()
            .ok_or("this server has no client certificate for kubelets")?;
        let stream = self.open(endpoint).await?;
        let name = ServerName::try_from(endpoint.host.to_owned())?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Box::new(stream))
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
