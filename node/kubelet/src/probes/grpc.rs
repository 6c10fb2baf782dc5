//! gRPC probes: one call of `Check` of `grpc.health.v1.Health` (the gRPC health checking protocol).
//!
//! Its two messages are of one field each, and written by hand. Only `SERVING` is a success. The messages are those of the kubelet's probe (`pkg/probe/grpc`).

use std::time::Duration;

use coracle_runtime::grpc::{Connection, INTERNAL, Status, Target, UNIMPLEMENTED};
use coracle_runtime::protobuf::{self, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::dial::Address;
use super::tls::secure;
use crate::node_context::NodeContext;

/// Where the call goes.
const PATH: &str = "/grpc.health.v1.Health/Check";
/// What is read of an answer, bytes: it is a few.
const MAX_ANSWER: usize = 16 << 10;

/// What a gRPC probe asks.
#[derive(Clone, Debug)]
pub(crate) struct GrpcCheck {
    pub(super) address: Address,
    /// Whether it speaks TLS (`mode: TLS`); certificates are not verified.
    pub(super) tls: bool,
    pub(super) service: String,
}

impl GrpcCheck {
    /// Asks once within a time; the error is the message of the event.
    pub(super) async fn probe(
        &self,
        node: &NodeContext,
        uid: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let until = Instant::now() + timeout;
        let address = self.address.text();
        let connect = async {
            let stream = self.address.dial(node, uid).await?;
            Ok(match self.tls {
                false => Stream::Plain(stream),
                true => {
                    let secured = secure(stream, &self.address.host, &[b"h2"]).await;
                    Stream::Tls(Box::new(secured.map_err(|error| error.to_string())?))
                }
            })
        };
        let stream = match tokio::time::timeout_at(until, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let error: String = error;
                return Err(format!(
                    "error: failed to connect service at {address:?}: {error}"
                ));
            }
            Err(_) => {
                return Err(format!(
                    "timeout: failed to connect service {address:?} within {}s: context deadline \
                     exceeded",
                    timeout.as_secs()
                ));
            }
        };
        let call = async {
            match stream {
                Stream::Plain(stream) => check(stream, &address, "http", &self.service).await,
                Stream::Tls(stream) => check(stream, &address, "https", &self.service).await,
            }
        };
        match tokio::time::timeout_at(until, call).await {
            Ok(answer) => verdict(answer),
            Err(_) => Err(format!(
                "timeout: health rpc did not complete within {}s",
                timeout.as_secs()
            )),
        }
    }
}

enum Stream<P, T> {
    Plain(P),
    Tls(T),
}

/// What an answer means.
fn verdict(answer: Result<u64, Status>) -> Result<(), String> {
    match answer {
        Ok(1) => Ok(()),
        Ok(other) => {
            let name = match other {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                number => number.to_string(),
            };
            Err(format!("service unhealthy (responded with {name:?})"))
        }
        Err(status) if status.code == UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {}",
            status.message
        )),
        Err(status) => Err(format!("error: health rpc probe failed: {status}")),
    }
}

/// One call: the number of the serving status.
async fn check<S>(stream: S, authority: &str, scheme: &str, service: &str) -> Result<u64, Status>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Ends with this call, whatever the other end does.
    let connection = Connection::open(stream).await?;
    let target = Target {
        scheme,
        authority,
        path: PATH,
        agent: "kube-probe/1.37",
    };
    let answer = connection
        .call(target, &request(service), MAX_ANSWER)
        .await?;
    serving(&answer).ok_or_else(|| Status::new(INTERNAL, "the answer is no HealthCheckResponse"))
}

/// `HealthCheckRequest { string service = 1 }`.
fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        protobuf::put_bytes(&mut message, 1, service.as_bytes());
    }
    message
}

/// `HealthCheckResponse { ServingStatus status = 1 }`; none if it is something else.
fn serving(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        if let (1, Value::Number(value)) = protobuf::field(&mut message)? {
            status = value;
        }
    }
    Some(status)
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
