//! Tokens of service accounts: JSON Web Tokens as Kubernetes makes them.
//!
//! | module | does |
//! |---|---|
//! | [`keys`], `jws` | signs text, and checks signatures |
//! | `claims` | what a token says, and when it holds |
//! | `holders` | whether those exist of whom it speaks |
//! | `last_use` | the day on which one was used that a Secret holds |
//! | `discovery` | the issuer, as OpenID Connect describes one |
//!
//! A token is checked without asking anybody but the server's own memory. Signatures that were
//! good are remembered, by the hash of the token; times and objects are looked at every time, so a
//! token ends with its account, its Pod or its Secret. Nothing is written for it but, once a day, to
//! a Secret that holds one, and nobody waits long for that.

mod claims;
pub(crate) mod discovery;
mod holders;
mod jws;
mod keys;
mod last_use;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::Response;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::UserInfo;
use crate::registry::{Registry, meta};
pub use claims::PROJECTED_SECONDS;
pub(crate) use claims::{Bound, Grant, Reference, Remark};
use claims::{Claims, SECRET_ISSUER, Untimely};
use discovery::Documents;
pub use keys::{KeyError, SigningKey, VerifyingKey};
use last_use::LastUse;

/// The group of all service accounts.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Good signatures that are remembered. A server that is asked with more tokens than that checks
/// some of them anew.
const REMEMBERED: usize = 32_768;

/// What tokens are made and believed by.
pub struct TokenConfig {
    /// Names of the issuer: the first is written into new tokens, all are believed. At least one.
    pub issuers: Vec<String>,
    /// Names under which this API server is meant by a token; where empty, the first issuer's.
    pub audiences: Vec<String>,
    /// The key of new tokens.
    pub signing: SigningKey,
    /// Keys of older ones, and of others.
    pub verifying: Vec<VerifyingKey>,
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// It is none, or of another issuer.
    #[error("invalid bearer token")]
    Foreign,
    #[error("[invalid bearer token, {0}]")]
    Invalid(String),
    /// The store did not answer.
    #[error("the service account could not be looked up")]
    Lookup(#[source] Box<Status>),
}

impl Refusal {
    fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }
}

/// A token that has been made.
pub(crate) struct Issued {
    pub(crate) token: String,
    /// What no other token has: its claim `jti`.
    pub(crate) id: String,
}

/// Whom a token stands for, and for which of the audiences that were asked for.
pub(crate) struct Authenticated {
    pub(crate) user: UserInfo,
    pub(crate) audiences: Vec<String>,
    pub(crate) remark: Option<Remark>,
}

type Fingerprint = [u8; 32];

/// Makes and checks tokens.
pub(crate) struct Tokens {
    config: TokenConfig,
    documents: Option<Documents>,
    remembered: Mutex<HashMap<Fingerprint, Arc<Claims>>>,
    last_use: LastUse,
}

impl Tokens {
    pub(crate) fn new(mut config: TokenConfig, advertise: Option<SocketAddr>) -> Self {
        let issuer = config.issuers.first().cloned().unwrap_or_default();
        if config.audiences.is_empty() {
            config.audiences.push(issuer.clone());
        }
        let address = advertise.map_or("kubernetes.default.svc".to_owned(), |a| a.to_string());
        let jwks_uri = format!("https://{address}{}", discovery::KEYS);
        let keys = [config.signing.public()]
            .into_iter()
            .chain(&config.verifying);
        let documents = Documents::new(&issuer, &jwks_uri, keys);
        if documents.is_none() {
            tracing::warn!(
                issuer,
                "the issuer is no https URL: it is not described to others"
            );
        }
        Self {
            config,
            documents,
            remembered: Mutex::default(),
            last_use: LastUse::default(),
        }
    }

    /// The audiences that are this API server.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.config.audiences
    }

    /// Answers for the issuer, if the path is one of its own.
    pub(crate) fn discovery(&self, path: &str) -> Option<Response<Body>> {
        self.documents.as_ref()?.answer(path)
    }

    /// Makes a token, at a time in seconds since 1970.
    pub(crate) fn issue(&self, grant: Grant, now: i64) -> Result<Issued, KeyError> {
        let issuer = self.config.issuers.first().map_or("", String::as_str);
        let audiences = &grant.audiences;
        let own = audiences
            .iter()
            .all(|name| self.config.audiences.contains(name));
        let id = uuid::Uuid::new_v4().to_string();
        let claims = Claims::new(grant, issuer, own, now, id.clone());
        let token = self.sign(&claims)?;
        Ok(Issued { token, id })
    }

    /// Makes the token that a Secret holds for an account.
    pub(crate) fn issue_for_secret(
        &self,
        namespace: &str,
        account: Reference,
        secret: &str,
    ) -> Result<String, KeyError> {
        self.sign(&Claims::of_secret(namespace, account, secret))
    }

    fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        // Claims are strings, numbers and lists of them: they can be written.
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        jws::sign(&self.config.signing, &payload)
    }

    /// Whom a token stands for. `audiences` are those who ask: the API server's own where empty.
    pub(crate) async fn authenticate(
        &self,
        registry: &Registry,
        token: &str,
        audiences: &[String],
    ) -> Result<Authenticated, Refusal> {
        let now = meta::now().0.as_second();
        let claims = self.verified(token, now)?;
        let wanted = match audiences {
            [] => self.audiences(),
            some => some,
        };
        // Tokens that Secrets hold say no audience, and mean the API server.
        let given = match claims.aud.as_slice() {
            [] => self.audiences(),
            some => some,
        };
        let common = given.iter().filter(|name| wanted.contains(name));
        let common: Vec<String> = common.cloned().collect();
        if common.is_empty() {
            return Err(Refusal::invalid(format!(
                "token audiences {given:?} is invalid for the target audiences {wanted:?}"
            )));
        }
        claims.timely(now).map_err(|fault| {
            Refusal::invalid(match fault {
                Untimely::Expired => "service account token has expired",
                Untimely::NotYet => "service account token is not valid yet",
                Untimely::FromTheFuture => "service account token is issued in the future",
            })
        })?;
        let user = match &claims.held {
            Some(held) => {
                holders::user_of_secret(registry, held, token, &self.last_use, now).await?
            }
            None => holders::user(registry, &claims, now).await?,
        };
        Ok(Authenticated {
            user,
            audiences: common,
            remark: claims.remark(now),
        })
    }

    /// The claims of a token that one of our keys has signed for one of our issuers.
    fn verified(&self, token: &str, now: i64) -> Result<Arc<Claims>, Refusal> {
        let fingerprint: Fingerprint = Sha256::digest(token).into();
        if let Some(known) = self.remembered.lock().get(&fingerprint) {
            return Ok(known.clone());
        }
        let parts = jws::parse(token).ok_or(Refusal::Foreign)?;
        let claims: Claims =
            serde_json::from_slice(&parts.payload).map_err(|_| Refusal::Foreign)?;
        let known = if claims.held.is_some() {
            claims.iss == SECRET_ISSUER
        } else {
            self.config.issuers.contains(&claims.iss)
        };
        if !known {
            return Err(Refusal::Foreign);
        }
        let kid = parts.header.kid.as_deref();
        let keys = [self.config.signing.public()].into_iter();
        let keys = keys.chain(&self.config.verifying);
        let mut keys = keys
            .filter(|key| kid.is_none_or(|kid| kid == key.id()))
            .peekable();
        if keys.peek().is_none() {
            return Err(Refusal::invalid("invalid signature, no keys found"));
        }
        let message = parts.message.as_bytes();
        if !keys.any(|key| key.verifies(&parts.header.alg, message, &parts.signature)) {
            return Err(Refusal::invalid("invalid signature"));
        }
        let claims = Arc::new(claims);
        let mut remembered = self.remembered.lock();
        make_room(&mut remembered, REMEMBERED, now);
        remembered.insert(fingerprint, claims.clone());
        Ok(claims)
    }
}

/// Makes room for one more token: those that do not hold at this time are forgotten first, and all
/// where all of them hold.
fn make_room(remembered: &mut HashMap<Fingerprint, Arc<Claims>>, most: usize, now: i64) {
    if remembered.len() >= most {
        remembered.retain(|_, claims| claims.timely(now).is_ok());
    }
    if remembered.len() >= most {
        remembered.clear();
    }
}

/// The name of a service account as a user.
pub(crate) fn user_name(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::keys::tests::signing_key;
    use super::*;

    fn tokens(signing: SigningKey, verifying: Vec<VerifyingKey>) -> Tokens {
        let config = TokenConfig {
            issuers: vec!["https://new".to_owned(), "https://old".to_owned()],
            audiences: Vec::new(),
            signing,
            verifying,
        };
        Tokens::new(config, None)
    }

    fn grant() -> Grant {
        Grant {
            namespace: "ns".to_owned(),
            account: Reference::default(),
            bound: None,
            audiences: vec!["a".to_owned()],
            seconds: 600,
        }
    }

    #[test]
    fn tokens_of_all_keys_and_issuers_are_believed_and_no_others() {
        let old = signing_key();
        let new = tokens(signing_key(), vec![old.public().clone()]);
        let before = tokens(old, Vec::new());
        let token = before.issue(grant(), 1000).unwrap().token;
        assert_eq!(new.verified(&token, 1000).unwrap().exp, Some(1600));
        assert_eq!(new.verified(&token, 1000).unwrap().sub, user_name("ns", ""));
        let token = new.issue(grant(), 1000).unwrap().token;
        let fault = before.verified(&token, 1000).unwrap_err();
        assert!(fault.to_string().contains("no keys found"), "{fault}");

        // One letter of the payload, and one of the signature.
        let parts: Vec<&str> = token.split('.').collect();
        let flip = |part: &str| {
            let other = if part.starts_with('A') { "B" } else { "A" };
            format!("{other}{}", &part[1..])
        };
        let forged = [
            format!("{}.{}.{}", parts[0], flip(parts[1]), parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], flip(parts[2])),
            format!("{}.{}.", parts[0], parts[1]),
        ];
        for forged in forged {
            assert!(new.verified(&forged, 1000).is_err(), "{forged}");
        }
        let elsewhere = TokenConfig {
            issuers: vec!["https://elsewhere".to_owned()],
            audiences: Vec::new(),
            signing: signing_key(),
            verifying: Vec::new(),
        };
        let issued = Tokens::new(elsewhere, None).issue(grant(), 1000).unwrap();
        let foreign = new.verified(&issued.token, 1000);
        assert!(matches!(foreign, Err(Refusal::Foreign)));
    }

    #[test]
    fn what_holds_no_longer_makes_room_first() {
        let until = |(byte, exp)| {
            let claims = Claims {
                exp: Some(exp),
                ..Claims::default()
            };
            ([byte; 32], Arc::new(claims))
        };
        let mut remembered = HashMap::from([(1, 1000), (2, 3000)].map(until));
        make_room(&mut remembered, 3, 2000);
        assert_eq!(remembered.len(), 2, "there is room");
        make_room(&mut remembered, 2, 2000);
        assert_eq!(remembered.keys().collect::<Vec<_>>(), [&[2; 32]]);
        make_room(&mut remembered, 1, 2000);
        assert!(remembered.is_empty());
    }
}
