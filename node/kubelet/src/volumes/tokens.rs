//! Tokens of the Pod's service account in its projected volumes: which ones it needs, and when one
//! is asked for anew. A token is bound to the Pod and ends with it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};

use crate::pod;

/// The life of a token for which the Pod names none.
const DEFAULT_SECONDS: i64 = 3600;
/// No token is kept for longer.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// Tokens that were made together are not all asked for together.
const JITTER: Duration = Duration::from_secs(10);

/// What tells the tokens of a Pod from each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenKey {
    /// Whom it is for; the API server where empty.
    audience: String,
    seconds: i64,
}

impl TokenKey {
    pub(crate) fn new(audience: Option<&str>, seconds: Option<i64>) -> Self {
        Self {
            audience: audience.unwrap_or_default().to_owned(),
            seconds: seconds.unwrap_or(DEFAULT_SECONDS),
        }
    }
}

/// A token that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    text: String,
    expires: SystemTime,
    refresh_at: SystemTime,
}

/// The tokens of a Pod, as its worker keeps them.
pub(crate) type Tokens = BTreeMap<TokenKey, Token>;

/// What the Pod's volumes need, each with the name of a volume that does.
fn wanted(pod: &Pod) -> BTreeMap<TokenKey, &str> {
    let volumes = pod::spec(pod).volumes.iter().flatten();
    let tokens = volumes.flat_map(|volume| {
        let projected = volume.projected.iter();
        let parts = projected.flat_map(|projected| projected.sources.iter().flatten());
        parts
            .filter_map(|part| part.service_account_token.as_ref())
            .map(|token| {
                let key = TokenKey::new(token.audience.as_deref(), token.expiration_seconds);
                (key, volume.name.as_str())
            })
    });
    tokens.collect()
}

/// When a token is asked for anew: after four fifths of its life, or a day.
fn refresh_at(expires: SystemTime, seconds: i64, jitter: Duration) -> SystemTime {
    let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let made = expires.checked_sub(life).unwrap_or(SystemTime::UNIX_EPOCH);
    let kept = MOST.min(life.mul_f64(0.8));
    made + kept.saturating_sub(jitter)
}

/// Brings the tokens of a Pod up to date and gives their text. One that cannot be had anew is
/// used on while it holds.
///
/// # Errors
/// With the volume that has no token.
pub(crate) async fn refresh(
    client: &kube::Client,
    pod: &Pod,
    held: &mut Tokens,
    now: SystemTime,
) -> Result<BTreeMap<TokenKey, String>, String> {
    let wanted = wanted(pod);
    held.retain(|key, _| wanted.contains_key(key));
    for (key, volume) in wanted {
        let old = held.get(&key);
        if old.is_some_and(|token| token.refresh_at > now) {
            continue;
        }
        match request(client, pod, &key).await {
            Ok(token) => {
                held.insert(key, token);
            }
            Err(error) if old.is_some_and(|token| token.expires > now) => {
                tracing::warn!(volume, error, "a token was not renewed");
            }
            Err(error) => {
                return Err(format!(
                    "MountVolume.SetUp failed for volume \"{volume}\" : failed to fetch token: {error}"
                ));
            }
        }
    }
    let text = |(key, token): (&TokenKey, &Token)| (key.clone(), token.text.clone());
    Ok(held.iter().map(text).collect())
}

async fn request(client: &kube::Client, pod: &Pod, key: &TokenKey) -> Result<Token, String> {
    let account = pod::spec(pod).service_account_name.as_deref();
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let audience = Some(key.audience.clone()).filter(|audience| !audience.is_empty());
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audience.into_iter().collect()),
            expiration_seconds: Some(key.seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod::name(pod).to_owned()),
                uid: Some(pod::uid(pod).to_owned()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), pod::namespace(pod));
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status.unwrap_or_default();
    let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err("the answer holds no token".to_owned());
    };
    let expires = SystemTime::from(expires.0);
    // The server may have given another life than was asked for.
    let seconds = answer.spec.and_then(|spec| spec.expiration_seconds);
    let jitter = JITTER.mul_f64(rand::random());
    Ok(Token {
        text,
        expires,
        refresh_at: refresh_at(expires, seconds.unwrap_or(key.seconds), jitter),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_renewed_after_four_fifths_of_their_life_or_a_day() {
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, jitter, want) in [
            (600, 0, 480),
            (3600, 0, 2880),
            (3600, 10, 2870),
            (86_400 * 30, 0, 86_400),
            (0, 10, 0),
        ] {
            let expires = made + Duration::from_secs(seconds);
            let seconds = i64::try_from(seconds).unwrap();
            let at = refresh_at(expires, seconds, Duration::from_secs(jitter));
            assert_eq!(at, made + Duration::from_secs(want), "{seconds}");
        }
    }

    #[test]
    fn volumes_that_want_the_same_token_share_it() {
        let source = |token: serde_json::Value| json!({"serviceAccountToken": token});
        let pod = serde_json::from_value(json!({"spec": {"containers": [], "volumes": [
            {"name": "a", "projected": {"sources": [
                source(json!({"path": "t"})), source(json!({"path": "v", "audience": "vault"})),
            ]}},
            {"name": "b", "projected": {"sources": [
                source(json!({"path": "x", "expirationSeconds": 3600, "audience": ""})),
                source(json!({"path": "y", "expirationSeconds": 600})),
            ]}},
            {"name": "c", "emptyDir": {}},
        ]}}))
        .unwrap();
        let keys: Vec<TokenKey> = wanted(&pod).into_keys().collect();
        let want = [
            TokenKey::new(None, Some(600)),
            TokenKey::new(None, None),
            TokenKey::new(Some("vault"), None),
        ];
        assert_eq!(keys, want);
    }
}
