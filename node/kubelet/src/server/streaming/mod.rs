//! Exec, attach and port-forward; and `connect`, by which the API server's proxies reach Pods.
//!
//! The API server has checked who asks and for what, and passes the client's connection on as it is
//! after the upgrade, to a WebSocket or to SPDY. What follows belongs to the client: it ends with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use coracle_runtime::streaming::{ExecConfig, Wanted};
use coracle_runtime::{ContainerId, RuntimeService, SandboxState};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::timeout;

use super::ApiState;
use crate::{pod, pod_dial};
use remote_command::{Asked, Ending};

mod port_forward;
mod relay;
mod remote_command;
mod socket;
mod upgrade;

pub(crate) use upgrade::Sockets;

type Refused = (StatusCode, String);

/// How long a Pod may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(20);

/// What is asked of a process, by the kubelet's names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    command: Vec<String>,
    terminal: bool,
    wanted: Wanted,
    ports: Vec<u16>,
    ip: Option<IpAddr>,
}

impl Options {
    fn parse(query: &str) -> Result<Self, Refused> {
        let mut options = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let set = matches!(&*value, "1" | "true");
            match &*name {
                "command" => options.command.push(value.into_owned()),
                "tty" => options.terminal = set,
                "input" => options.wanted.stdin = set,
                "output" => options.wanted.stdout = set,
                "error" => options.wanted.stderr = set,
                "port" => {
                    let port = value.parse().ok().filter(|port| *port > 0);
                    let text = format!("port {value:?} is no number from 1 to 65535");
                    options
                        .ports
                        .push(port.ok_or((StatusCode::BAD_REQUEST, text))?);
                }
                "ip" => options.ip = value.parse().ok(),
                _ => {}
            }
        }
        // All that is written to a terminal is its output.
        options.wanted.stderr &= !options.terminal;
        Ok(options)
    }

    fn parse_streams(query: &str) -> Result<Self, Refused> {
        let options = Self::parse(query)?;
        if options.wanted == Wanted::default() {
            let text = "you must specify at least 1 of stdin, stdout, stderr";
            return Err((StatusCode::BAD_REQUEST, text.to_owned()));
        }
        Ok(options)
    }

    fn asked(&self) -> Asked {
        Asked {
            wanted: self.wanted,
            terminal: self.terminal,
        }
    }
}

/// Runs a command in a container.
pub(super) async fn exec(
    State(state): State<ApiState>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let options = Options::parse_streams(query.as_deref().unwrap_or_default())?;
    if options.command.is_empty() {
        let text = "you must specify at least one command".to_owned();
        return Err((StatusCode::BAD_REQUEST, text));
    }
    let pod = find(&state, &namespace, &name)?;
    let (runtime, id) = running(&state, &pod, &container)?;
    let asked = options.asked();
    let config = ExecConfig {
        command: options.command,
        terminal: options.terminal,
        wanted: options.wanted,
        kill_on_drop: false,
    };
    let known = &remote_command::PROTOCOLS;
    let upgraded = state
        .sockets
        .upgrade(request, known, async move |socket, protocol| {
            let session = runtime.exec(&id, config);
            remote_command::serve(socket, protocol, asked, session, Ending::Code).await;
        });
    Ok(upgraded)
}

/// Joins the streams of a container.
pub(super) async fn attach(
    State(state): State<ApiState>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let options = Options::parse_streams(query.as_deref().unwrap_or_default())?;
    let pod = find(&state, &namespace, &name)?;
    let (runtime, id) = running(&state, &pod, &container)?;
    let asked = options.asked();
    let known = &remote_command::PROTOCOLS;
    let upgraded = state
        .sockets
        .upgrade(request, known, async move |socket, protocol| {
            let session = runtime.attach(&id, asked.wanted);
            remote_command::serve(socket, protocol, asked, session, Ending::Detached).await;
        });
    Ok(upgraded)
}

/// Connects to ports of a Pod.
pub(super) async fn port_forward(
    State(state): State<ApiState>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let options = Options::parse(query.as_deref().unwrap_or_default())?;
    let pod = find(&state, &namespace, &name)?;
    if state.node.cache.pod(pod::uid(&pod)).sandboxes.is_empty() {
        let text = format!("pod {name:?} does not run");
        return Err((StatusCode::NOT_FOUND, text));
    }
    let target = Arc::new(port_forward::Target {
        node: state.node.clone(),
        pod,
    });
    let known = &port_forward::PROTOCOLS;
    let upgraded = state
        .sockets
        .upgrade(request, known, async move |socket, protocol| {
            port_forward::serve(socket, protocol, target, options.ports).await;
        });
    Ok(upgraded)
}

/// Connects to a port of a Pod at its address. From the answer on, the bytes of the connection are
/// those of the Pod's.
pub(super) async fn connect(
    State(state): State<ApiState>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refused> {
    let options = Options::parse(query.as_deref().unwrap_or_default())?;
    let (Some(ip), &[port]) = (options.ip, &*options.ports) else {
        let text = "an address and a port must be specified".to_owned();
        return Err((StatusCode::BAD_REQUEST, text));
    };
    if !upgrade::wants_bytes(request.headers()) {
        let text = "this is a stream of bytes, to which a connection must be upgraded".to_owned();
        return Err((StatusCode::BAD_REQUEST, text));
    }
    let pod = find(&state, &namespace, &name)?;
    if !has_address(&state, &pod, ip) {
        // Another Pod may have it by now.
        let text = format!("pod {name:?} does not run at {ip}");
        return Err((StatusCode::NOT_FOUND, text));
    }
    let connecting = pod_dial::at_address(&state.node, pod::uid(&pod), ip, port);
    let connected = timeout(CONNECT, connecting).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let stream = connected.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    state
        .sockets
        .upgrade_to_bytes(request, move |client| relay::carry(client, stream))
}

/// Whether an address is that of a Pod which runs.
fn has_address(state: &ApiState, pod: &Pod, ip: IpAddr) -> bool {
    let known = state.node.cache.pod(pod::uid(pod));
    let mut sandboxes = known.sandboxes.iter().map(|of| &of.sandbox);
    sandboxes.any(|of| of.state == SandboxState::Ready && of.config.ips.contains(&ip))
}

fn find(state: &ApiState, namespace: &str, name: &str) -> Result<Arc<Pod>, Refused> {
    let pod = state.workers.pod_named(namespace, name);
    pod.ok_or_else(|| {
        let text = format!("pod \"{name}\" not found in namespace \"{namespace}\"");
        (StatusCode::NOT_FOUND, text)
    })
}

/// A container that runs, and its runtime.
fn running(
    state: &ApiState,
    pod: &Pod,
    container: &str,
) -> Result<(Arc<dyn RuntimeService>, ContainerId), Refused> {
    let known = state.node.cache.pod(pod::uid(pod));
    let latest = known.latest(container);
    let runs = latest.filter(|of| of.running_since().is_some());
    let found = runs.and_then(|of| {
        let runtime = state.node.router.by_name(of.runtime)?;
        Some((runtime.clone(), of.id().clone()))
    });
    found.ok_or_else(|| {
        let text = format!("container not found (\"{container}\")");
        (StatusCode::NOT_FOUND, text)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_kubelets() {
        let options = Options::parse_streams("command=a&command=b%20c&input=1&output=true");
        let options = options.unwrap();
        assert_eq!(options.command, ["a", "b c"]);
        let wanted = Wanted {
            stdin: true,
            stdout: true,
            stderr: false,
        };
        assert_eq!((options.wanted, options.terminal), (wanted, false));
        let terminal = Options::parse_streams("tty=1&output=1&error=1").unwrap();
        assert!(terminal.terminal && !terminal.wanted.stderr);
        assert!(Options::parse_streams("command=a").is_err());
        assert_eq!(Options::parse("port=80&port=81").unwrap().ports, [80, 81]);
        for wrong in ["port=0", "port=x", "port=65536"] {
            assert!(Options::parse(wrong).is_err(), "{wrong}");
        }
    }
}
