//! Headers: what of a request's the other side is told, and what of its answer the client.
//!
//! What concerns one connection goes no further (RFC 9110, section 7.6.1). What a client says to the
//! API server about itself is for nobody else: whoever runs behind a Service could be it from then on.

use std::net::IpAddr;

use http::header::{
    CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, TE, UPGRADE,
};

use crate::handlers::websocket;

/// Those of one connection, beside the ones that `Connection` names.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Who the client is to the API server, by their beginnings.
const OWN: [&str; 3] = ["authorization", "impersonate-", "x-remote-"];

/// The answer is of the API server's origin: who else may read it is not for the other side to say.
const OF_ORIGIN: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// To what a client wants its connection to be upgraded.
pub(super) fn upgrade(of: &HeaderMap) -> Option<HeaderValue> {
    let mut words = websocket::words(of, &CONNECTION);
    let asked = words.any(|word| word.eq_ignore_ascii_case("upgrade"));
    of.get(UPGRADE).filter(|_| asked).cloned()
}

/// The headers for the other side of a request from `client` for the path `uri`.
pub(super) fn to_backend(of: &HeaderMap, client: Option<IpAddr>, uri: &str) -> HeaderMap {
    let mut headers = of.clone();
    let upgrade = upgrade(of);
    let trailers = websocket::words(of, &TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(&mut headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    // It has been told to go on already, where it asked.
    headers.remove(EXPECT);
    let is_own = |name: &&HeaderName| OWN.iter().any(|own| name.as_str().starts_with(own));
    let own: Vec<HeaderName> = headers.keys().filter(is_own).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    remove_tokens(&mut headers);
    if let Some(client) = client {
        let mut chain: Vec<String> = websocket::words(of, &FORWARDED_FOR)
            .map(str::to_owned)
            .collect();
        chain.push(client.to_canonical().to_string());
        insert(&mut headers, FORWARDED_FOR, &chain.join(", "));
    }
    insert(&mut headers, FORWARDED_URI, uri);
    headers
}

/// Takes from an answer what is not for the client.
pub(super) fn to_client(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in OF_ORIGIN {
        headers.remove(name);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let words = websocket::words(headers, &CONNECTION);
    let named: Vec<HeaderName> = words.filter_map(|word| word.parse().ok()).collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Takes the token from among the protocols of a WebSocket.
fn remove_tokens(headers: &mut HeaderMap) {
    let is_token = |protocol: &str| protocol.starts_with(websocket::BEARER);
    let has_token = websocket::words(headers, &SEC_WEBSOCKET_PROTOCOL).any(is_token);
    if !has_token {
        return;
    }
    let others = websocket::protocols(headers).collect::<Vec<&str>>();
    let others = others.join(", ");
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if !others.is_empty() {
        insert(headers, SEC_WEBSOCKET_PROTOCOL, &others);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<String> = headers.iter().map(pair).collect();
        lines.sort();
        lines
    }

    #[test]
    fn the_other_side_hears_what_is_for_it() {
        let sent = map(&[
            ("accept", "*/*"),
            ("cookie", "a=b"),
            ("content-length", "3"),
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("proxy-authorization", "Basic a"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "jane"),
            ("impersonate-extra-scopes", "all"),
            ("x-remote-user", "jane"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("x-forwarded-proto", "https"),
        ]);
        let client = Some("::ffff:192.0.2.3".parse().unwrap());
        let heard = to_backend(&sent, client, "/proxy/a");
        assert_eq!(
            lines(&heard),
            [
                "accept: */*",
                "content-length: 3",
                "cookie: a=b",
                "te: trailers",
                "x-forwarded-for: 192.0.2.1, 192.0.2.2, 192.0.2.3",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /proxy/a",
            ]
        );
    }

    #[test]
    fn upgrades_are_asked_for_without_tokens() {
        let token = format!("{}YWJj", websocket::BEARER);
        let sent = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
            ("sec-websocket-protocol", &token),
            ("sec-websocket-protocol", "v1, v2"),
        ]);
        assert_eq!(upgrade(&sent).unwrap(), "websocket");
        assert_eq!(
            lines(&to_backend(&sent, None, "/")),
            [
                "connection: Upgrade",
                "sec-websocket-key: k",
                "sec-websocket-protocol: v1, v2",
                "upgrade: websocket",
                "x-forwarded-uri: /",
            ]
        );
        assert_eq!(upgrade(&map(&[("upgrade", "websocket")])), None);
        assert_eq!(upgrade(&map(&[("connection", "upgrade")])), None);
    }

    #[test]
    fn the_client_hears_what_is_for_it() {
        let mut answered = map(&[
            ("content-type", "text/plain"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
        ]);
        to_client(&mut answered);
        assert_eq!(
            lines(&answered),
            [
                "content-type: text/plain",
                "set-cookie: a=b",
                "set-cookie: c=d",
            ]
        );
    }
}
