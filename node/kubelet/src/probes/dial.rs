//! Trying a container: TCP, HTTP, HTTPS and exec probes; [`super::grpc`] has those of gRPC.
//!
//! The messages are those that users of Kubernetes know.

use std::net::IpAddr;
use std::time::Duration;

use coracle_runtime::streaming::PortConnection;
use futures::FutureExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, EnvVar, ExecAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::{Position, Url};

use super::grpc::GrpcCheck;
use super::{Fault, tls};
use crate::containers::handler::{self, CommandError};
use crate::containers::observed::ObservedContainer;
use crate::node_context::NodeContext;
use crate::pod::env::expand_all;
use crate::pod_dial;

/// Requests that are made, where each but the last is answered with a redirect to the same host.
const REQUESTS: usize = 10;
/// What is read of an answer; a server that is cut off in it logs errors.
const MAX_BODY: usize = 10 << 10;

/// What a probe dials.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A connection is a success.
    Tcp(Address),
    /// A response from 200 to 399 is a success.
    Http {
        address: Address,
        tls: bool,
        path: String,
        headers: Vec<(String, String)>,
    },
    /// An answer that it serves is a success.
    Grpc(GrpcCheck),
    /// The probe names nothing that can be dialled.
    Invalid(String),
    /// A command of the container; an end with 0 is a success.
    Exec(Vec<String>),
}

/// For what a request is made: servers may tell by its `User-Agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Probe,
    Hook,
}

impl Purpose {
    fn user_agent(self) -> &'static str {
        match self {
            Self::Probe => "kube-probe/1.37",
            Self::Hook => "kube-lifecycle/1.37",
        }
    }
}

/// An HTTP response.
pub(crate) struct Answer {
    status: u16,
    /// As far as it is read; or how it broke off.
    body: Result<Vec<u8>, String>,
}

impl Answer {
    /// What is to be told of a success, or why it is none.
    fn verdict(&self) -> Result<Option<String>, Fault> {
        let broken = |why: &String| Fault::Broken(why.clone());
        let body = self.body.as_ref().map_err(broken)?;
        let status = self.status;
        match status {
            200..300 => Ok(None),
            // It leads to another host, or nowhere: this one has answered.
            300..400 => Ok(Some(format!(
                "Probe terminated redirects, Response body: {}",
                String::from_utf8_lossy(body)
            ))),
            _ => {
                let why = format!("HTTP probe failed with statuscode: {status}");
                Err(Fault::Failed(why))
            }
        }
    }
}

/// A host that a probe names, or the Pod itself.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(super) host: String,
    port: u16,
    /// The address is the Pod's, and the network knows where it really is.
    of_pod: Option<IpAddr>,
}

impl Target {
    /// The target of a probe of a container with these addresses.
    pub(crate) fn of(container: &Container, probe: &Probe, ips: &[IpAddr]) -> Self {
        let address = |host: Option<&str>, port: &IntOrString| {
            let port = port_number(container, port)?;
            let ip = ips.first().copied();
            let (host, of_pod) = match (host.filter(|host| !host.is_empty()), ip) {
                (Some(host), _) => {
                    let literal: Option<IpAddr> = host.parse().ok();
                    (host.to_owned(), literal.filter(|ip| ips.contains(ip)))
                }
                (None, Some(ip)) => (ip.to_string(), Some(ip)),
                (None, None) => return Err("the pod has no address".to_owned()),
            };
            Ok(Address { host, port, of_pod })
        };
        if let Some(exec) = &probe.exec {
            return Self::Exec(command(container, exec));
        }
        if let Some(tcp) = &probe.tcp_socket {
            return match address(tcp.host.as_deref(), &tcp.port) {
                Ok(address) => Self::Tcp(address),
                Err(error) => Self::Invalid(error),
            };
        }
        if let Some(grpc) = &probe.grpc {
            return match address(None, &IntOrString::Int(grpc.port)) {
                Ok(address) => Self::Grpc(GrpcCheck {
                    address,
                    tls: grpc.mode.as_deref() == Some("TLS"),
                    service: grpc.service.clone().unwrap_or_default(),
                }),
                Err(error) => Self::Invalid(error),
            };
        }
        let Some(get) = &probe.http_get else {
            return Self::Invalid("the probe names nothing to try".to_owned());
        };
        let path = get.path.clone().unwrap_or_default();
        let headers = get.http_headers.iter().flatten();
        match address(get.host.as_deref(), &get.port) {
            Ok(address) => Self::Http {
                address,
                tls: get.scheme.as_deref() == Some("HTTPS"),
                path: match path.starts_with('/') {
                    true => path,
                    false => format!("/{path}"),
                },
                headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
            },
            Err(error) => Self::Invalid(error),
        }
    }

    /// Tries once within a time: what is to be told of a success.
    pub(crate) async fn probe(
        &self,
        node: &NodeContext,
        of: &ObservedContainer,
        timeout: Duration,
    ) -> Result<Option<String>, Fault> {
        if let Self::Grpc(check) = self {
            // What took too long is a part of its message.
            let tried = check.probe(node, &of.container.pod.uid, timeout).await;
            return tried.map(|()| None).map_err(Fault::Failed);
        }
        let tried = async {
            match self {
                Self::Exec(command) => {
                    let runtime = node.router.by_name(of.runtime);
                    let gone = || Fault::Unknown("the runtime of the container is gone".to_owned());
                    let runtime = runtime.ok_or_else(gone)?;
                    let ran = handler::command(runtime.as_ref(), of.id(), command).await;
                    ran.map(|_| None).map_err(|error| match error {
                        CommandError::Failed { said, .. } => Fault::Failed(said),
                        CommandError::Unknown(why) => Fault::Unknown(why),
                    })
                }
                Self::Invalid(why) => Err(Fault::Unknown(why.clone())),
                _ => {
                    let uid = &of.container.pod.uid;
                    let reached = self.reach(node, uid, Purpose::Probe).await;
                    reached.map_err(Fault::Failed)
                }
            }
        };
        let answer = match tokio::time::timeout(timeout, tried).await {
            Ok(tried) => tried?,
            Err(_) => return Err(Fault::Failed(self.timed_out(timeout))),
        };
        answer.map_or(Ok(None), |answer: Answer| answer.verdict())
    }

    /// Dials once: the HTTP response, if that is asked for.
    pub(crate) async fn reach(
        &self,
        node: &NodeContext,
        uid: &str,
        purpose: Purpose,
    ) -> Result<Option<Answer>, String> {
        match self {
            Self::Invalid(error) => Err(error.clone()),
            Self::Exec(_) | Self::Grpc(_) => {
                Err("what is more than a connection cannot be dialled".to_owned())
            }
            Self::Tcp(address) => address.dial(node, uid).await.map(|_| None),
            Self::Http {
                address,
                tls,
                path,
                headers,
            } => {
                let place = (address.clone(), *tls, path.clone());
                let got = get(node, uid, place, headers, purpose).await;
                let why = |error: String| format!("Get \"{}\": {error}", self.url());
                got.map(Some).map_err(why)
            }
        }
    }

    /// What to ask for without TLS, and without credentials, of what is asked for over it; and of whom.
    pub(crate) fn plain(&self) -> Option<(Self, String)> {
        let Self::Http {
            address,
            tls: true,
            path,
            headers,
        } = self
        else {
            return None;
        };
        let public = |(name, _): &&(String, String)| !name.eq_ignore_ascii_case("Authorization");
        let plain = Self::Http {
            address: address.clone(),
            tls: false,
            path: path.clone(),
            headers: headers.iter().filter(public).cloned().collect(),
        };
        Some((plain, address.text()))
    }

    fn url(&self) -> String {
        match self {
            Self::Http {
                address, tls, path, ..
            } => {
                let scheme = if *tls { "https" } else { "http" };
                format!("{scheme}://{}{path}", address.text())
            }
            _ => String::new(),
        }
    }

    fn timed_out(&self, timeout: Duration) -> String {
        match self {
            Self::Tcp(address) => format!("dial tcp {}: i/o timeout", address.text()),
            Self::Http { .. } => format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting \
                 headers)",
                self.url()
            ),
            Self::Exec(command) => format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                timeout.as_secs()
            ),
            Self::Grpc(check) => format!("timeout: {}", check.address.text()),
            Self::Invalid(error) => error.clone(),
        }
    }
}

impl Address {
    pub(super) fn text(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    pub(super) async fn dial(
        &self,
        node: &NodeContext,
        uid: &str,
    ) -> Result<PortConnection, String> {
        let connected = match self.of_pod {
            Some(ip) => pod_dial::connect(node, uid, &[ip], self.port).await,
            None => TcpStream::connect((self.host.as_str(), self.port))
                .await
                .map(|stream| Box::new(stream) as PortConnection),
        };
        connected.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                format!("dial tcp {}: connect: connection refused", self.text())
            }
            _ => format!("dial tcp {}: {error}", self.text()),
        })
    }
}

/// The command of a probe, with what the container's environment says outright: what comes from
/// elsewhere is empty there, as in Kubernetes.
fn command(container: &Container, exec: &ExecAction) -> Vec<String> {
    let variables = container.env.iter().flatten();
    let value = |variable: &EnvVar| variable.value.clone().unwrap_or_default();
    let known: Vec<(String, String)> = variables
        .map(|variable| (variable.name.clone(), value(variable)))
        .collect();
    expand_all(exec.command.as_ref(), &known)
}

/// The number of a port that is a number or the name of one of the container's ports.
fn port_number(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    match (number.filter(|number| *number > 0), port) {
        (Some(number), _) => Ok(number),
        (None, IntOrString::String(name)) => Err(format!("couldn't find port: {name}")),
        (None, IntOrString::Int(number)) => Err(format!("invalid port number: {number}")),
    }
}

/// What is asked for: of whom, over TLS or not, and the path.
type Place = (Address, bool, String);

/// Follows redirects to the same host, as far as the last response.
async fn get(
    node: &NodeContext,
    uid: &str,
    mut place: Place,
    headers: &[(String, String)],
    purpose: Purpose,
) -> Result<Answer, String> {
    for _ in 0..REQUESTS {
        let (address, tls, path) = &place;
        let stream = address.dial(node, uid).await?;
        let (answer, location) = match tls {
            false => request(stream, address, path, headers, purpose).await?,
            true => {
                let secured = tls::secure(stream, &address.host, &[]).await;
                let stream = secured.map_err(|error| tls::why(&error))?;
                request(stream, address, path, headers, purpose).await?
            }
        };
        let location = location.filter(|_| matches!(answer.status, 301..=303 | 307 | 308));
        match location.and_then(|location| redirected(&place, &location)) {
            Some(next) => place = next,
            None => return Ok(answer),
        }
    }
    Err(format!("stopped after {REQUESTS} redirects"))
}

/// Where a redirect leads; none if that is another host: reaching this one was enough.
fn redirected((address, tls, path): &Place, location: &str) -> Option<Place> {
    let scheme = if *tls { "https" } else { "http" };
    let from = Url::parse(&format!("{scheme}://{}{path}", address.text())).ok()?;
    let to = from.join(location).ok()?;
    let tls = match to.scheme() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    if to.host_str()? != from.host_str()? {
        return None;
    }
    let address = Address {
        port: to.port_or_known_default()?,
        ..address.clone()
    };
    let path = &to[Position::BeforePath..Position::AfterQuery];
    Some((address, tls, path.to_owned()))
}

async fn request<S>(
    stream: S,
    address: &Address,
    path: &str,
    headers: &[(String, String)],
    purpose: Purpose,
) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let exchange = async {
        let mut request = hyper::Request::get(path);
        let named = |name: &str| headers.iter().any(|(of, _)| of.eq_ignore_ascii_case(name));
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        for (name, value) in [
            ("Host", address.text()),
            ("User-Agent", purpose.user_agent().to_owned()),
            ("Accept", "*/*".to_owned()),
            ("Connection", "close".to_owned()),
        ] {
            if !named(name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(Empty::<bytes::Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await;
        let mut response = response.map_err(|error| error.to_string())?;
        let body = read(response.body_mut()).await;
        let location = response.headers().get(http::header::LOCATION);
        let location = location
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status().as_u16();
        Ok((Answer { status, body }, location))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // The answer may be in already, with the connection closed behind it.
            Ok(()) => exchange.await,
            Err(error) => exchange.now_or_never().unwrap_or_else(|| Err(error.to_string())),
        },
    }
}

/// Reads a body as far as it is of interest.
async fn read(body: &mut Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        if bytes.len() > MAX_BODY {
            bytes.truncate(MAX_BODY);
            break;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
