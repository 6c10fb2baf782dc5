//! Those of whom a token speaks: its account, and what it is bound to. Each must be there, under
//! the UID that the token names; a Secret that holds it must hold it still.

use std::collections::BTreeMap;

use coracle_store::{Read, Record};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use super::claims::{Claims, Held, Kubernetes, LEEWAY, Reference};
use super::last_use::{self, LastUse};
use super::{Refusal, SERVICE_ACCOUNTS, user_name};
use crate::auth::{AUTHENTICATED, UserInfo};
use crate::registry::Registry;
use crate::registry::errors::internal;
use crate::registry::strategy::ApiType;

/// What stands before the names of extra fields.
const PREFIX: &str = "authentication.kubernetes.io";
const INVALIDATED: &str = "service account token has been invalidated";

/// The user that the claims stand for, at a time in seconds since 1970.
pub(super) async fn user(
    registry: &Registry,
    claims: &Claims,
    now: i64,
) -> Result<UserInfo, Refusal> {
    let foreign = || Refusal::invalid("the token names no service account");
    let about = claims.kubernetes.as_ref().ok_or_else(foreign)?;
    let account = &about.serviceaccount;
    if about.namespace.is_empty() || account.name.is_empty() {
        return Err(foreign());
    }
    check_account(registry, &about.namespace, account, now).await?;
    check_bound(registry, about, now).await?;
    let mut user = user_of(&about.namespace, account);
    user.extra = extra(claims, about);
    Ok(user)
}

/// The user that a token stands for which a Secret holds.
pub(super) async fn user_of_secret(
    registry: &Registry,
    held: &Held,
    token: &str,
    last_use: &LastUse,
    now: i64,
) -> Result<UserInfo, Refusal> {
    let lookup = |status| Refusal::Lookup(Box::new(status));
    let secret = registry.find::<Secret>(&held.namespace, &held.secret);
    let secret = secret.await.map_err(lookup)?;
    let secret = secret
        .filter(|secret| secret.metadata.deletion_timestamp.is_none())
        .ok_or_else(|| Refusal::invalid(INVALIDATED))?;
    let held_now = secret.data.as_ref().and_then(|data| data.get("token"));
    if held_now.is_none_or(|held| held.0 != token.as_bytes()) {
        return Err(Refusal::invalid("token does not match server's copy"));
    }
    let account = Reference {
        name: held.account.clone(),
        uid: held.account_uid.clone(),
    };
    check_account(registry, &held.namespace, &account, now).await?;
    // Who goes on with one that was ended is to be seen too.
    last_use.note(registry, &secret, now).await;
    if last_use::is_invalid(&secret) {
        return Err(Refusal::invalid(format!(
            "the token in secret {}/{} has been marked invalid by its label {}",
            held.namespace,
            held.secret,
            last_use::INVALID_SINCE
        )));
    }
    Ok(user_of(&held.namespace, &account))
}

async fn check_account(
    registry: &Registry,
    namespace: &str,
    account: &Reference,
    now: i64,
) -> Result<(), Refusal> {
    let Reference { name, uid } = account;
    let fault = match found::<ServiceAccount>(registry, namespace, account, now).await? {
        Found::Held => return Ok(()),
        Found::Nothing => format!("serviceaccounts {name:?} not found"),
        Found::Going => format!("service account {namespace}/{name} has been deleted"),
        Found::Another(other) => {
            format!("service account UID ({other}) does not match claim ({uid})")
        }
    };
    Err(Refusal::invalid(fault))
}

async fn check_bound(registry: &Registry, about: &Kubernetes, now: i64) -> Result<(), Refusal> {
    let namespace = &about.namespace;
    if let Some(secret) = &about.secret {
        let found = found::<Secret>(registry, namespace, secret, now).await?;
        held(found, "secret", secret)?;
    }
    match (&about.pod, &about.node) {
        (Some(pod), _) => {
            // The node beside it is where the Pod was, and nothing that the token depends on.
            let found = found::<Pod>(registry, namespace, pod, now).await?;
            held(found, "pod", pod)
        }
        (None, Some(node)) => {
            let found = found::<Node>(registry, "", node, now).await?;
            held(found, "node", node)
        }
        (None, None) => Ok(()),
    }
}

fn held(found: Found, what: &str, reference: &Reference) -> Result<(), Refusal> {
    match found {
        Found::Held => Ok(()),
        Found::Nothing | Found::Going => Err(Refusal::invalid(INVALIDATED)),
        Found::Another(uid) => Err(Refusal::invalid(format!(
            "{what} UID ({uid}) does not match service account {what} ref claim ({})",
            reference.uid
        ))),
    }
}

/// What is there of an object that a token names.
enum Found {
    Held,
    Nothing,
    /// It has been deleted, and time enough has passed.
    Going,
    /// Another one of that name, with this UID.
    Another(String),
}

async fn found<T: ApiType>(
    registry: &Registry,
    namespace: &str,
    reference: &Reference,
    now: i64,
) -> Result<Found, Refusal> {
    // What is at hand answers for what is well known; only what seems not to be there is asked
    // for anew, since a token may be newer than what this server has seen.
    let mut seen = Found::Nothing;
    for read in [Read::AtLeast(0), Read::Latest] {
        let record = registry
            .find_record::<T>(namespace, &reference.name, read)
            .await
            .map_err(|status| Refusal::Lookup(Box::new(status)))?;
        seen = match record {
            None => Found::Nothing,
            Some(record) => judge(&record, reference, now)?,
        };
        if matches!(seen, Found::Held) {
            break;
        }
    }
    Ok(seen)
}

/// The one thing of an object that its attributes do not say.
#[derive(Deserialize)]
struct Deletion {
    metadata: DeletionMeta,
}

#[derive(Deserialize)]
struct DeletionMeta {
    #[serde(rename = "deletionTimestamp")]
    deletion_timestamp: Option<Time>,
}

fn judge(record: &Record, reference: &Reference, now: i64) -> Result<Found, Refusal> {
    let uid = record.value().uid();
    if uid != reference.uid {
        return Ok(Found::Another(uid.to_owned()));
    }
    let deletion: Deletion = serde_json::from_slice(record.value().json())
        .map_err(|error| Refusal::Lookup(Box::new(internal("decode a stored object", &error))))?;
    let deleted = deletion.metadata.deletion_timestamp;
    let gone = deleted.is_some_and(|at| at.0.as_second() < now.saturating_sub(LEEWAY));
    Ok(if gone { Found::Going } else { Found::Held })
}

fn user_of(namespace: &str, account: &Reference) -> UserInfo {
    UserInfo {
        name: user_name(namespace, &account.name),
        uid: account.uid.clone(),
        groups: vec![
            SERVICE_ACCOUNTS.to_owned(),
            format!("{SERVICE_ACCOUNTS}:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        ..UserInfo::default()
    }
}

/// What else the token tells of its user.
fn extra(claims: &Claims, about: &Kubernetes) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: String| {
        extra.insert(format!("{PREFIX}/{key}"), vec![value]);
    };
    if let Some(id) = &claims.jti {
        tell("credential-id", format!("JTI={id}"));
    }
    for (kind, reference) in [("pod", &about.pod), ("node", &about.node)] {
        let Some(reference) = reference else { continue };
        tell(&format!("{kind}-name"), reference.name.clone());
        if !reference.uid.is_empty() {
            tell(&format!("{kind}-uid"), reference.uid.clone());
        }
    }
    extra
}
