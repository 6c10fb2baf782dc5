//! Authentication: client certificates and tokens of service accounts on the wire, an identity of
//! our own in the process.
//!
//! The TLS layer has verified the certificate against the cluster's CA already (`serving/tls.rs`);
//! here it is only read. An identity in the process is an extension of the request: extensions
//! cannot be sent, so the wire cannot forge one. A token is looked at where neither says who asks,
//! as Kubernetes does it. Browsers cannot set the header of one when they open a WebSocket: there it
//! comes as one of the protocols that they offer.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_apimachinery::status::Status;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::tokens::{Refusal, Remark, Tokens};
use super::{AUTHENTICATED, UserInfo};
use crate::handlers::websocket;
use crate::registry::Registry;

/// The identity that a request brings, if any: set by the connection or by an in-process
/// client, never from anything that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) UserInfo);

/// Who sent the request, and what there is to say of how that is known.
///
/// # Errors
/// 401 where nothing says so, or what says so is not believed.
pub(crate) async fn authenticate(
    parts: &Parts,
    registry: &Registry,
    tokens: Option<&Tokens>,
) -> Result<(UserInfo, Option<Remark>), Status> {
    if let Some(Identity(user)) = parts.extensions.get::<Identity>() {
        let mut user = user.clone();
        if !user.in_group(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        return Ok((user, None));
    }
    let token = bearer(&parts.headers).map(Cow::Borrowed);
    let token = token.or_else(|| protocol_token(&parts.headers).map(Cow::Owned));
    let (Some(tokens), Some(token)) = (tokens, token) else {
        return Err(Status::unauthorized());
    };
    match tokens.authenticate(registry, &token, &[]).await {
        Ok(found) => Ok((found.user, found.remark)),
        Err(Refusal::Lookup(status)) => Err(*status),
        Err(refusal) => {
            tracing::debug!(%refusal, "a token was refused");
            Err(Status::unauthorized())
        }
    }
}

/// The token that a request brings (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The token that comes as a protocol of a WebSocket. There is no more than one, and another protocol
/// beside it that the server can choose.
fn protocol_token(headers: &HeaderMap) -> Option<String> {
    if !websocket::is_asked(headers) {
        return None;
    }
    let protocols = websocket::words(headers, &SEC_WEBSOCKET_PROTOCOL);
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        protocols.partition(|protocol| protocol.starts_with(websocket::BEARER));
    let ([token], [_, ..]) = (&*tokens, &*others) else {
        return None;
    };
    let token = URL_SAFE_NO_PAD.decode(&token[websocket::BEARER.len()..]);
    String::from_utf8(token.ok()?)
        .ok()
        .filter(|token| !token.is_empty())
}

/// The user that a verified client certificate names: common name and organizations, as in
/// Kubernetes; and when the certificate ends, in seconds since 1970. `None` for a certificate
/// without a common name.
#[must_use]
pub fn user_of_certificate(der: &[u8]) -> Option<(UserInfo, i64)> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(str::to_owned)
        .collect();
    let user = UserInfo {
        name,
        groups,
        ..UserInfo::default()
    };
    Some((user, certificate.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn tokens_are_found_in_their_header() {
        for (value, want) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Basic abc", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), want, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn tokens_are_found_among_protocols() {
        const TOKEN: &str = "base64url.bearer.authorization.k8s.io.YWJj";
        for (offered, want) in [
            (&["v1", TOKEN][..], Some("abc")),
            (
                &["base64url.bearer.authorization.k8s.io.YWJj, v1"],
                Some("abc"),
            ),
            (&[TOKEN], None),
            (&["v1", TOKEN, TOKEN], None),
            (&["v1", "base64url.bearer.authorization.k8s.io."], None),
            (&["v1", "base64url.bearer.authorization.k8s.io.a"], None),
            (&["v1", "base64url.bearer.authorization.k8s.io._w"], None),
            (&["v1"], None),
        ] {
            let mut headers = HeaderMap::new();
            for protocol in offered {
                let protocol = HeaderValue::from_static(protocol);
                headers.append(SEC_WEBSOCKET_PROTOCOL, protocol);
            }
            assert_eq!(protocol_token(&headers), None, "no socket: {offered:?}");
            headers.insert("connection", HeaderValue::from_static("Upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
            assert_eq!(protocol_token(&headers).as_deref(), want, "{offered:?}");
        }
    }
}
