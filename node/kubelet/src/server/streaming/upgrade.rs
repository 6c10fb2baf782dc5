//! Requests that become WebSockets (RFC 6455), connections of SPDY/3.1, or bare streams of bytes; and
//! which protocol is spoken then.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Refused;
use super::socket::Socket;

/// WebSockets and other streams at a time.
const SOCKETS: usize = 1024;
/// What connections become, as they are asked for.
const WEBSOCKET: &str = "websocket";
const SPDY: &str = "SPDY/3.1";
const BYTES: &str = "tcp";
/// Where a client of SPDY offers protocols and is told which is spoken; and where it is told which are
/// known if it offers none of them.
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The protocols of one purpose.
pub(super) struct Protocols {
    /// Those in messages of a WebSocket.
    pub(super) websocket: &'static [&'static str],
    /// Those in streams of SPDY.
    pub(super) spdy: &'static [&'static str],
}

/// The tasks that serve WebSockets and other streams.
#[derive(Clone)]
pub(crate) struct Sockets {
    tasks: TaskTracker,
    cancel: CancellationToken,
    slots: Arc<Semaphore>,
}

impl Sockets {
    /// Those of `tasks`, which end when cancelled.
    pub(crate) fn new(tasks: TaskTracker, cancel: CancellationToken) -> Self {
        let slots = Arc::new(Semaphore::new(SOCKETS));
        Self {
            tasks,
            cancel,
            slots,
        }
    }

    /// Answers with the upgrade to the first protocol of the client's that is among `known`, and
    /// serves it by `serve` once that is done. Whoever asks for no WebSocket is a client of SPDY.
    pub(super) fn upgrade<F>(
        &self,
        request: Request,
        known: &Protocols,
        serve: impl FnOnce(Socket, &'static str) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let answered = if asks_for(request.headers(), WEBSOCKET) {
            self.upgrade_to_websocket(request, known.websocket, serve)
        } else {
            self.upgrade_to_spdy(request, known.spdy, serve)
        };
        answered.unwrap_or_else(IntoResponse::into_response)
    }

    fn upgrade_to_websocket<F>(
        &self,
        mut request: Request,
        known: &[&'static str],
        serve: impl FnOnce(Socket, &'static str) -> F + Send + 'static,
    ) -> Result<Response, Refused>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(protocol) = first(&offers(request.headers(), &SEC_WEBSOCKET_PROTOCOL), known)
        else {
            let text = format!(
                "the client speaks none of the protocols {}",
                known.join(", ")
            );
            return Err((StatusCode::BAD_REQUEST, text));
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let mut response = create_response_with_body(&request, Body::empty)
            .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        self.spawn(upgrade, move |upgraded| async move {
            serve(Socket::websocket(upgraded).await, protocol).await;
        })?;
        let name = HeaderValue::from_static(protocol);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
        Ok(response)
    }

    fn upgrade_to_spdy<F>(
        &self,
        mut request: Request,
        known: &[&'static str],
        serve: impl FnOnce(Socket, &'static str) -> F + Send + 'static,
    ) -> Result<Response, Refused>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let headers = request.headers();
        let protocol = match negotiate(headers, known) {
            Ok(protocol) => protocol,
            Err(refused) => {
                let mut response = refused.into_response();
                if response.status() == StatusCode::FORBIDDEN {
                    for name in known.iter().copied() {
                        let name = HeaderValue::from_static(name);
                        response.headers_mut().append(ACCEPTED, name);
                    }
                }
                return Ok(response);
            }
        };
        let connection = headers.get(CONNECTION).and_then(|of| of.to_str().ok());
        let upgrades = connection.is_some_and(|of| of.to_ascii_lowercase().contains("upgrade"));
        if !upgrades || !asks_for(headers, SPDY) {
            let text = "unable to upgrade: missing upgrade headers in request".to_owned();
            return Err((StatusCode::BAD_REQUEST, text));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        self.spawn(upgrade, move |upgraded| {
            serve(Socket::spdy(upgraded), protocol)
        })?;
        let mut response = switching(SPDY);
        let name = HeaderValue::from_static(protocol);
        response.headers_mut().insert(PROTOCOL, name);
        Ok(response)
    }

    /// Answers with the upgrade to a bare stream of bytes, and serves it by `serve` once that is
    /// done.
    ///
    /// # Errors
    /// 503 where there is no room.
    pub(super) fn upgrade_to_bytes<F>(
        &self,
        mut request: Request,
        serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Result<Response, Refused>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        self.spawn(upgrade, move |upgraded| serve(TokioIo::new(upgraded)))?;
        Ok(switching(BYTES))
    }

    /// Serves a connection once it is upgraded.
    fn spawn<F>(
        &self,
        upgrade: OnUpgrade,
        serve: impl FnOnce(Upgraded) -> F + Send + 'static,
    ) -> Result<(), Refused>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            let text = format!("this node serves {SOCKETS} streams already");
            return Err((StatusCode::SERVICE_UNAVAILABLE, text));
        };
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            let served = async {
                match upgrade.await {
                    Ok(upgraded) => serve(upgraded).await,
                    Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
                }
            };
            cancel.run_until_cancelled(served).await;
        });
        Ok(())
    }
}

/// Whether a request asks for a bare stream of bytes.
pub(super) fn wants_bytes(headers: &HeaderMap) -> bool {
    asks_for(headers, BYTES)
}

fn asks_for(headers: &HeaderMap, what: &str) -> bool {
    let upgrade = headers.get(UPGRADE);
    upgrade.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(what.as_bytes()))
}

fn switching(to: &'static str) -> Response {
    let headers = [(CONNECTION, "Upgrade"), (UPGRADE, to)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The protocols that a client offers in a header, which may come as several and in lists.
fn offers<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let words = texts.flat_map(|text| text.split(',')).map(str::trim);
    words.filter(|word| !word.is_empty()).collect()
}

/// The first protocol that is offered and known.
fn first(offered: &[&str], known: &[&'static str]) -> Option<&'static str> {
    let mut words = offered.iter();
    words.find_map(|word| known.iter().copied().find(|known| known == word))
}

/// What is spoken with a client of SPDY, and what is said otherwise, as `httpstream.Handshake` of
/// Kubernetes has it.
fn negotiate(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Refused> {
    const NAME: &str = "X-Stream-Protocol-Version";
    let Some(value) = headers.get(PROTOCOL) else {
        let text = format!(
            "unable to upgrade: header {NAME} does not exist in request with {} headers\n",
            headers.keys_len()
        );
        return Err((StatusCode::BAD_REQUEST, text));
    };
    let offered = offers(headers, &PROTOCOL);
    if offered.is_empty() {
        let value = value.to_str().unwrap_or_default();
        let text = format!(
            "unable to upgrade: header {NAME} contains [{value}], but no valid protocols\n"
        );
        return Err((StatusCode::BAD_REQUEST, text));
    }
    first(&offered, known).ok_or_else(|| {
        let [offered, known] = [offered.join(" "), known.join(" ")];
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{offered}], server \
             accepts [{known}]\n"
        );
        (StatusCode::FORBIDDEN, text)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_order_decides() {
        let known = ["v5", "v4"];
        for (offered, expected) in [
            (&["v5, v4"][..], Some("v5")),
            (&["v4,v5"], Some("v4")),
            (&["v9", "v4"], Some("v4")),
            (&["v9"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for offer in offered {
                headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(offer));
            }
            let offers = offers(&headers, &SEC_WEBSOCKET_PROTOCOL);
            assert_eq!(first(&offers, &known), expected, "{offered:?}");
        }
    }

    #[test]
    fn clients_of_spdy_are_refused_as_by_kubernetes() {
        let known = ["v4", "v3"];
        for (offered, code, expected) in [
            (
                &["v9", "v8"][..],
                403,
                "unable to upgrade: unable to negotiate protocol: client supports [v9 v8], server \
                 accepts [v4 v3]\n",
            ),
            (
                &[],
                400,
                "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with \
                 0 headers\n",
            ),
            (
                &[","],
                400,
                "unable to upgrade: header X-Stream-Protocol-Version contains [,], but no valid \
                 protocols\n",
            ),
        ] {
            let mut headers = HeaderMap::new();
            for offer in offered {
                headers.append(PROTOCOL, HeaderValue::from_static(offer));
            }
            let (status, text) = negotiate(&headers, &known).unwrap_err();
            assert_eq!((status.as_u16(), &*text), (code, expected));
        }
        let headers = HeaderMap::from_iter([(PROTOCOL, HeaderValue::from_static("v5, v3"))]);
        assert_eq!(negotiate(&headers, &known).unwrap(), "v3");
    }
}
