//! Join tokens.
//!
//! A token is `K10<hash>::<id>.<secret>`: the hash pins the cluster's CA, so that a node trusts
//! the server before it has met it; id and secret are those of a bootstrap token, kept in a
//! Secret `bootstrap-token-<id>` of kube-system as Kubernetes does ("Authenticating with
//! Bootstrap Tokens").

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
use rand::Rng;

const PREFIX: &str = "K10";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";

/// A join token, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinToken {
    /// SHA-256 of the CA certificate, hexadecimal.
    pub(crate) authority: String,
    /// The part that the server checks.
    pub(crate) bootstrap: BootstrapToken,
}

/// The part of a token that the server checks, `<id>.<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BootstrapToken {
    pub(crate) id: String,
    secret: String,
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.<secret>", self.id)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BootstrapToken { id, secret } = &self.bootstrap;
        write!(f, "{PREFIX}{}::{id}.{secret}", self.authority)
    }
}

impl BootstrapToken {
    fn generate() -> Self {
        const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut rng = rand::rng();
        let mut random = |length| -> String {
            (0..length)
                .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
                .collect()
        };
        Self {
            id: random(6),
            secret: random(16),
        }
    }

    /// In the form of an HTTP bearer credential.
    pub(crate) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for BootstrapToken {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match text.split_once('.') {
            Some((id, secret))
                if id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret) =>
            {
                Ok(Self {
                    id: id.into(),
                    secret: secret.into(),
                })
            }
            _ => bail!("the token is not of the form <6 characters>.<16 characters>"),
        }
    }
}

impl FromStr for JoinToken {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (authority, bootstrap) = text
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once("::"))
            .context("a join token begins with K10 and the hash of the cluster's CA: take the line that `coracle token create` printed")?;
        ensure!(
            authority.len() == 64 && authority.bytes().all(|b| b.is_ascii_hexdigit()),
            "the hash of the CA in the token is damaged: copy the whole line that `coracle token create` printed"
        );
        Ok(Self {
            authority: authority.to_ascii_lowercase(),
            bootstrap: bootstrap.parse()?,
        })
    }
}

/// Makes a token; one without a time to live is valid until it is deleted.
pub(crate) async fn create(
    client: &kube::Client,
    authority: &str,
    ttl: Option<jiff::SignedDuration>,
    description: Option<&str>,
) -> Result<JoinToken> {
    let bootstrap = BootstrapToken::generate();
    let mut data = BTreeMap::from([
        ("token-id", bootstrap.id.clone()),
        ("token-secret", bootstrap.secret.clone()),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("usage-bootstrap-signing", "true".to_owned()),
    ]);
    if let Some(ttl) = ttl {
        let end = jiff::Timestamp::now().checked_add(ttl)?;
        data.insert("expiration", format!("{end:.0}"));
    }
    if let Some(description) = description {
        data.insert("description", description.to_owned());
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&bootstrap.id)),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.into()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    };
    secrets(client)
        .create(&PostParams::default(), &secret)
        .await
        .context("the server did not take the token")?;
    Ok(JoinToken {
        authority: authority.to_owned(),
        bootstrap,
    })
}

/// A token as `coracle token list` shows it.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) expires: Option<jiff::Timestamp>,
    pub(crate) description: String,
}

/// All tokens, without their secrets.
pub(crate) async fn list(client: &kube::Client) -> Result<Vec<Listed>> {
    let found = secrets(client)
        .list(&ListParams::default().fields(&format!("type={SECRET_TYPE}")))
        .await?;
    Ok(found
        .items
        .iter()
        .filter_map(|secret| {
            Some(Listed {
                id: entry(secret, "token-id")?.to_owned(),
                expires: entry(secret, "expiration").and_then(|end| end.parse().ok()),
                description: entry(secret, "description").unwrap_or_default().to_owned(),
            })
        })
        .collect())
}

/// Deletes a token by its id, or by the whole token.
pub(crate) async fn delete(client: &kube::Client, token: &str) -> Result<String> {
    let id = match token.parse::<JoinToken>() {
        Ok(token) => token.bootstrap.id,
        Err(_) => token.split('.').next().unwrap_or(token).to_owned(),
    };
    secrets(client)
        .delete(&secret_name(&id), &DeleteParams::default())
        .await
        .with_context(|| format!("token {id} was not deleted"))?;
    Ok(id)
}

/// Whether a bootstrap token lets its bearer join now.
pub(crate) async fn verify(client: &kube::Client, token: &BootstrapToken) -> Result<bool> {
    let Some(secret) = secrets(client).get_opt(&secret_name(&token.id)).await? else {
        return Ok(false);
    };
    Ok(admits(&secret, token, jiff::Timestamp::now()))
}

fn admits(secret: &Secret, token: &BootstrapToken, now: jiff::Timestamp) -> bool {
    let same = entry(secret, "token-secret").is_some_and(|expected| {
        // Compared in the same time wherever they differ.
        expected.len() == token.secret.len()
            && expected
                .bytes()
                .zip(token.secret.bytes())
                .fold(0, |differs, (a, b)| differs | (a ^ b))
                == 0
    });
    let current = match entry(secret, "expiration").map(str::parse::<jiff::Timestamp>) {
        None => true,
        Some(Ok(end)) => now < end,
        Some(Err(_)) => false,
    };
    same && current
        && secret.type_.as_deref() == Some(SECRET_TYPE)
        && entry(secret, "usage-bootstrap-authentication") == Some("true")
}

fn entry<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let value = secret.data.as_ref()?.get(key)?;
    std::str::from_utf8(&value.0).ok()
}

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

fn secrets(client: &kube::Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(entries: &[(&str, &str)], kind: &str) -> Secret {
        Secret {
            type_: Some(kind.into()),
            data: Some(
                entries
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }

    #[test]
    fn a_token_reads_back() {
        let token = JoinToken {
            authority: "a".repeat(64),
            bootstrap: BootstrapToken::generate(),
        };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        for damaged in [
            "",
            "abcdef.0123456789abcdef",
            "K10ab::abcdef.0123456789abcdef",
        ] {
            assert!(damaged.parse::<JoinToken>().is_err(), "{damaged}");
        }
    }

    #[test]
    fn only_the_right_and_current_secret_admits() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let now: jiff::Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let usage = ("usage-bootstrap-authentication", "true");
        let right = ("token-secret", "0123456789abcdef");
        for (entries, kind, admitted) in [
            (vec![right, usage], SECRET_TYPE, true),
            (vec![right], SECRET_TYPE, false),
            (vec![right, usage], "Opaque", false),
            (
                vec![("token-secret", "0123456789abcdeX"), usage],
                SECRET_TYPE,
                false,
            ),
            (vec![("token-secret", ""), usage], SECRET_TYPE, false),
            (
                vec![right, usage, ("expiration", "2026-01-03T00:00:00Z")],
                SECRET_TYPE,
                true,
            ),
            (
                vec![right, usage, ("expiration", "2026-01-01T00:00:00Z")],
                SECRET_TYPE,
                false,
            ),
            (
                vec![right, usage, ("expiration", "soon")],
                SECRET_TYPE,
                false,
            ),
        ] {
            let secret = stored(&entries, kind);
            assert_eq!(admits(&secret, &token, now), admitted, "{entries:?} {kind}");
        }
    }
}
