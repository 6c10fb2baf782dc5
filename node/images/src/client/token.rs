//! The token protocol: a registry's 401 names a realm that hands out bearer tokens
//! (distribution project, "Token Authentication Specification").

use http_auth::parser::ChallengeParser;
use serde::Deserialize;

use super::error::refused;
use super::{Basic, ClientError, SMALL_BODY, bounded};

/// Where to fetch a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    realm: String,
    service: Option<String>,
}

/// The bearer challenge among the values of WWW-Authenticate, if there is one.
pub(super) fn bearer(challenges: &[String], endpoint: &str) -> Result<Option<Bearer>, ClientError> {
    let found = challenges
        .iter()
        .flat_map(|value| ChallengeParser::new(value))
        .filter_map(Result::ok)
        .find(|challenge| challenge.scheme.eq_ignore_ascii_case("Bearer"));
    let Some(challenge) = found else {
        return Ok(None);
    };
    let parameter = |name: &str| {
        let (_, value) = challenge
            .params
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.to_unescaped())
    };
    let realm = parameter("realm")
        .ok_or_else(|| ClientError::Invalid("the registry's challenge names no realm".into()))?;
    // A registry behind TLS does not make us send a credential in the clear.
    let plain = endpoint.starts_with("http://") && realm.starts_with("http://");
    if !plain && !realm.starts_with("https://") {
        return Err(ClientError::Invalid(format!(
            "the registry's token realm {realm:?} is not an HTTPS address"
        )));
    }
    Ok(Some(Bearer {
        realm,
        service: parameter("service"),
    }))
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Bearer {
    /// Fetches a token for a scope.
    pub(super) async fn fetch(
        &self,
        http: &reqwest::Client,
        scope: &str,
        basic: Option<&Basic>,
    ) -> Result<String, ClientError> {
        let mut url = url::Url::parse(&self.realm).map_err(|error| {
            ClientError::Invalid(format!("the token realm {:?}: {error}", self.realm))
        })?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
        }
        let mut request = http.get(url);
        if let Some(basic) = basic {
            request = request.header(http::header::AUTHORIZATION, basic.header()?);
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(refused(status, &http::Method::GET, response).await);
        }
        let body = bounded(response, SMALL_BODY, "token").await?;
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| ClientError::Invalid(format!("the token answer: {error}")))?;
        answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| ClientError::Invalid("the token answer holds no token".into()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let parse = |value: &str, endpoint: &str| bearer(&[value.to_owned()], endpoint);
        assert_eq!(parse("Basic realm=\"x\"", "https://r").unwrap(), None);
        assert_eq!(parse("garbage \u{1}", "https://r").unwrap(), None);
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"";
        assert_eq!(
            parse(hub, "https://registry-1.docker.io").unwrap(),
            Some(Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
            })
        );
        let clear = "Bearer realm=\"http://evil.example/token\"";
        assert!(parse(clear, "https://r").is_err());
        assert!(parse(clear, "http://127.0.0.1:5000").is_ok());
        assert!(parse("Bearer realm=\"file:///etc/passwd\"", "http://r").is_err());
        assert!(parse("Bearer service=\"x\"", "https://r").is_err());
    }
}
