//! The issuer as others see it (OpenID Connect Discovery 1.0): where its keys are, and the keys.

use std::collections::BTreeSet;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::keys::VerifyingKey;
use crate::handlers::encode;

/// Where the issuer describes itself.
pub(crate) const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Where its keys are.
pub(crate) const KEYS: &str = "/openid/v1/jwks";

/// Both documents.
pub(super) struct Documents {
    configuration: Bytes,
    keys: Bytes,
}

impl Documents {
    /// The documents of an issuer whose keys are at `jwks_uri`; `None` for an issuer that OpenID
    /// does not allow.
    pub(super) fn new<'a>(
        issuer: &str,
        jwks_uri: &str,
        keys: impl Iterator<Item = &'a VerifyingKey>,
    ) -> Option<Self> {
        let url = url::Url::parse(issuer).ok()?;
        if url.scheme() != "https" || url.query().is_some() || url.fragment().is_some() {
            return None;
        }
        let keys: Vec<&VerifyingKey> = keys.collect();
        let algorithms: BTreeSet<&str> = keys.iter().map(|key| key.algorithm()).collect();
        let configuration = json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        });
        let set: Vec<&Value> = keys.iter().map(|key| key.jwk()).collect();
        Some(Self {
            configuration: configuration.to_string().into(),
            keys: json!({ "keys": set }).to_string().into(),
        })
    }

    /// Answers a path that is one of theirs.
    pub(super) fn answer(&self, path: &str) -> Option<Response<Body>> {
        let (media_type, document) = match path {
            CONFIGURATION => ("application/json", &self.configuration),
            KEYS => ("application/jwk-set+json", &self.keys),
            _ => return None,
        };
        let body = Body::from(document.clone());
        let mut response = encode::response(StatusCode::OK, media_type, body);
        let hour = HeaderValue::from_static("public, max-age=3600");
        response.headers_mut().insert(CACHE_CONTROL, hour);
        Some(response)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::keys::tests::signing_key;
    use super::*;

    #[test]
    fn an_issuer_that_openid_does_not_allow_has_no_documents() {
        let key = signing_key();
        for (issuer, allowed) in [
            ("https://kubernetes.default.svc.cluster.local", true),
            ("https://example.test/path", true),
            ("http://example.test", false),
            ("https://example.test/?a", false),
            ("https://example.test/#a", false),
            ("kubernetes/serviceaccount", false),
        ] {
            let documents = Documents::new(issuer, "https://x", [key.public()].into_iter());
            assert_eq!(documents.is_some(), allowed, "{issuer}");
        }
    }
}
