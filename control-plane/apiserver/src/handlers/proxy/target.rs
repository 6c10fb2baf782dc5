//! To whom a proxy leads, and the way there.
//!
//! A Pod is reached through the kubelet of its node, which knows where its address leads: from any
//! machine, and where addresses are virtual. The kubelet connects to no address but that Pod's.

use std::net::{IpAddr, SocketAddr};

use coracle_apimachinery::status::Status;
use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::Rng;
use url::form_urlencoded;

use super::endpoints::{candidates, has_ip, ip_of_pod, is_proxyable, port_of_pod};
use super::name::{Name, Scheme};
use super::tls;
use crate::dial::{Endpoint, Stream};
use crate::handlers::{Call, newest};
use crate::registry::{encoding, typed};
use crate::request::options::ListOptions;
use crate::server::Inner;

/// The label that says whose endpoints are in a slice.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// To whom a proxy leads.
#[derive(Debug)]
pub(super) struct Target {
    scheme: Scheme,
    /// Its address, and its port where one is named: as it calls itself.
    pub(super) authority: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// What the kubelet of a node is asked for a stream to a Pod.
    Pod {
        node: String,
        host: String,
        path: String,
    },
    Node {
        node: String,
        host: String,
        port: u16,
        is_kubelet: bool,
    },
}

/// 503: nothing answers where the proxy leads.
pub(super) fn unreachable(cause: impl std::fmt::Display) -> Status {
    Status::service_unavailable(format!("error trying to reach service: {cause}"))
}

/// Finds whom a call means.
///
/// # Errors
/// 400 for names that are none and addresses to which no proxy leads, 404 where the object does not
/// exist, 503 where it has no such port or no endpoint.
pub(super) async fn find(call: &Call<'_>) -> Result<Target, Status> {
    let descriptor = call.kind.descriptor();
    let text = &call.info.name;
    let name = Name::parse(text).ok_or_else(|| {
        Status::bad_request(format!("invalid {} request {text:?}", descriptor.singular))
    })?;
    match descriptor.plural.as_str() {
        "pods" => pod(call, name).await,
        "services" => service(call, name).await,
        _ => node(call, name).await,
    }
}

async fn pod(call: &Call<'_>, name: Name<'_>) -> Result<Target, Status> {
    let pod: Pod = newest(call, &call.info.namespace, name.name).await?;
    let ip = ip_of_pod(&pod).filter(|ip| is_proxyable(*ip));
    let ip = ip.ok_or_else(|| Status::bad_request("address not allowed"))?;
    let port = pod.spec.as_ref().map(|spec| port_of_pod(spec, name.port));
    let port = port.transpose().map_err(unreachable)?.flatten();
    to_pod(&pod, name.scheme, ip, port)
}

fn to_pod(pod: &Pod, scheme: Scheme, ip: IpAddr, port: Option<u16>) -> Result<Target, Status> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = node.filter(|node| !node.is_empty());
    let node = node.ok_or_else(|| unreachable("the pod does not have a host assigned"))?;
    let bare = match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let authority = port.map_or(bare, |port| SocketAddr::new(ip, port).to_string());
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("ip", &ip.to_string())
        .append_pair("port", &port.unwrap_or(scheme.port()).to_string())
        .finish();
    let metadata = &pod.metadata;
    let path = format!(
        "/connect/{}/{}?{query}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let host = ip.to_string();
    Ok(Target {
        scheme,
        authority,
        way: Way::Pod { node, host, path },
    })
}

async fn service(call: &Call<'_>, name: Name<'_>) -> Result<Target, Status> {
    let (namespace, of) = (&call.info.namespace, name.name);
    let port = match name.port.parse::<i64>() {
        Ok(number) => {
            let service: Service = newest(call, namespace, of).await?;
            let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
            let port = ports
                .into_iter()
                .find(|port| i64::from(port.port) == number);
            let port = port.ok_or_else(|| {
                Status::service_unavailable(format!(
                    "no service port {number} found for service {of:?}"
                ))
            })?;
            port.name.unwrap_or_default()
        }
        Err(_) => name.port.to_owned(),
    };
    let slices = slices(call, of).await?;
    let draw = |below: usize| rand::rng().random_range(0..below);
    for candidate in candidates(slices, namespace, &port, draw) {
        let registry = &call.server.registry;
        let pod = registry.find::<Pod>(namespace, &candidate.pod).await?;
        let pod = pod.filter(|pod| has_ip(pod, candidate.ip));
        // One that is on no node has no address either.
        let target = pod.map(|pod| to_pod(&pod, name.scheme, candidate.ip, Some(candidate.port)));
        if let Some(Ok(target)) = target {
            return Ok(target);
        }
    }
    let message = format!("no endpoints available for service {of:?}");
    Err(Status::service_unavailable(message))
}

/// The EndpointSlices of a Service, as they are at hand.
async fn slices(call: &Call<'_>, service: &str) -> Result<Vec<EndpointSlice>, Status> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if !service.bytes().all(is_name) {
        return Ok(Vec::new());
    }
    let registry = &call.server.registry;
    let kind = registry.kind_of::<EndpointSlice>()?;
    let options = ListOptions {
        label_selector: format!("{OF_SERVICE}={service}"),
        resource_version: Some(0),
        ..ListOptions::default()
    };
    let page = registry
        .list(&**kind, &call.info.namespace, &options)
        .await?;
    let decoded = page
        .records
        .iter()
        .map(|record| typed(encoding::decode(&**kind, record)?));
    decoded.collect()
}

async fn node(call: &Call<'_>, name: Name<'_>) -> Result<Target, Status> {
    let server = call.server;
    let (host, kubelet) = server.nodes.kubelet_of(&server.registry, name.name).await?;
    check_host(&host).await?;
    let is_kubelet = name.port.is_empty() || name.port == kubelet.to_string();
    let port = if is_kubelet {
        Some(kubelet)
    } else {
        name.port.parse().ok().filter(|port| *port > 0)
    };
    let port: u16 =
        port.ok_or_else(|| unreachable(format!("dial tcp: address {}: invalid port", name.port)))?;
    let authority = match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    Ok(Target {
        scheme: name.scheme,
        authority,
        way: Way::Node {
            node: name.name.to_owned(),
            host,
            port,
            is_kubelet,
        },
    })
}

/// A node says itself where it is; that may not be where the API server is.
async fn check_host(host: &str) -> Result<(), Status> {
    let found = tokio::net::lookup_host((host, 0)).await;
    let found: Vec<SocketAddr> = found.map_err(Status::bad_request)?.collect();
    if found.is_empty() {
        return Err(Status::bad_request("no addresses for hostname"));
    }
    if !found.iter().all(|address| is_proxyable(address.ip())) {
        return Err(Status::bad_request("address not allowed"));
    }
    Ok(())
}

impl Target {
    /// Opens a stream to it, on which HTTP is spoken.
    ///
    /// # Errors
    /// Says why it cannot.
    pub(super) async fn open(&self, server: &Inner) -> Result<Box<dyn Stream>, String> {
        let (stream, host) = match &self.way {
            Way::Pod { node, host, path } => (to_kubelet(server, node, path).await?, host),
            Way::Node {
                node,
                host,
                port,
                is_kubelet,
            } => {
                let endpoint = Endpoint {
                    node,
                    host,
                    port: *port,
                };
                if *is_kubelet {
                    let opened = server.nodes.open_kubelet(endpoint).await;
                    return opened.map_err(|error| error.to_string());
                }
                let opened = server.nodes.open(endpoint).await;
                (opened.map_err(|error| error.to_string())?, host)
            }
        };
        match self.scheme {
            Scheme::Http => Ok(stream),
            Scheme::Https => tls::connect(stream, host).await,
        }
    }
}

/// Has a kubelet connect to a Pod.
async fn to_kubelet(server: &Inner, node: &str, path: &str) -> Result<Box<dyn Stream>, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    let wanted = StatusCode::SWITCHING_PROTOCOLS;
    let asked = server.ask_kubelet(node, path, headers, wanted).await;
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(refusal)) => return Err(refusal.text),
        Err(status) => return Err(status.message().to_owned()),
    };
    let upgraded = hyper::upgrade::on(answer).await;
    let upgraded = upgraded.map_err(|error| error.to_string())?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
