//! Secrets of type `kubernetes.io/service-account-token`: each is given a token of the account that
//! its annotation names, the certificates of the API server and its namespace, and goes with its
//! account. Pods do not need them; people make them for clients that cannot ask for tokens anew.
//!
//! An account whose list of Secrets names one that is gone is left as it is: Kubernetes cleans up
//! there what its older releases had written, and nothing here has ever written any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::context::{Context, PACE};
use crate::error::{Error, conflict, ignore_not_found};
use crate::informer::Informer;
use crate::queue::{Reconcile, WorkQueue};

type Key = ObjectRef<Secret>;

/// The type of such Secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Passes at once.
const WORKERS: usize = 2;

/// Whose token is wanted.
#[derive(Clone, Copy, Debug)]
pub struct TokenOwner<'a> {
    /// Namespace of account and Secret.
    pub namespace: &'a str,
    /// Name of the account.
    pub account: &'a str,
    /// Its UID.
    pub account_uid: &'a str,
    /// The Secret that is to hold the token.
    pub secret: &'a str,
}

/// Makes a token, or says why there is none.
pub type TokenSigner = Arc<dyn Fn(TokenOwner<'_>) -> Result<String, String> + Send + Sync>;

pub(crate) async fn run(context: Context, signer: TokenSigner, certificates: Option<String>) {
    let queue = WorkQueue::new(PACE);
    // Nobody else needs whole Secrets: this watch is for those of one type.
    let secrets: Informer<Secret> = Informer::start_with(
        watcher::Config::default().fields(&format!("type={TYPE}")),
        Api::all(context.client.clone()),
        (),
        &context.tasks,
        &context.cancel,
    );
    tokio::select! {
        () = context.cancel.cancelled() => return,
        () = secrets.wait_until_ready() => {}
    }
    context.route(&secrets, &queue, |secret| vec![Key::from_obj(secret)]);
    let store = secrets.store().clone();
    context.route(
        &context.informers.service_accounts,
        &queue,
        move |account| {
            let of_account = store.state().into_iter().filter(|secret| {
                secret.namespace() == account.namespace()
                    && secret.annotations().get(ACCOUNT) == Some(&account.name_any())
            });
            of_account.map(|secret| Key::from_obj(&*secret)).collect()
        },
    );
    let cancel = context.cancel.clone();
    let filler = Arc::new(Filler {
        context,
        secrets,
        signer,
        certificates,
    });
    queue.run("tokensecrets", WORKERS, cancel, filler).await;
}

struct Filler {
    context: Context,
    secrets: Informer<Secret>,
    signer: TokenSigner,
    certificates: Option<String>,
}

impl Reconcile<Key> for Filler {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let Some(secret) = self.secrets.store().get(&key) else {
            return Ok(None);
        };
        let namespace = secret.namespace().unwrap_or_default();
        let name = secret.annotations().get(ACCOUNT).cloned();
        let Some(name) = name.filter(|_| secret.metadata.deletion_timestamp.is_none()) else {
            return Ok(None);
        };
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), &namespace);
        let account = self.account(&namespace, &name).await?;
        let written = match plan(&secret, account.as_ref(), self.certificates.as_deref()) {
            Plan::Keep => return Ok(None),
            Plan::Delete => {
                let parameters = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: secret.uid(),
                        resource_version: secret.resource_version(),
                    }),
                    ..DeleteParams::default()
                };
                api.delete(&secret.name_any(), &parameters).await.map(drop)
            }
            Plan::Fill(mut fill) => {
                if fill.needs_token {
                    let token = (self.signer)(TokenOwner {
                        namespace: &namespace,
                        account: &name,
                        account_uid: &fill.account_uid,
                        secret: &secret.name_any(),
                    });
                    let token = token.map_err(Error::Object)?;
                    let bytes = ByteString(token.into_bytes());
                    fill.data.insert("token".to_owned(), bytes);
                }
                let patch = Patch::Merge(fill.patch(&secret));
                let parameters = PatchParams::default();
                let patched = api.patch(&secret.name_any(), &parameters, &patch).await;
                patched.map(drop)
            }
        };
        match ignore_not_found(written) {
            Ok(_) => Ok(None),
            // The cache is behind; what it does not show yet comes with the next change.
            Err(error) if conflict(&error) => Ok(Some(PACE)),
            Err(error) => Err(Error::api("fill a Secret with a token")(error)),
        }
    }
}

impl Filler {
    /// The account as the cache has it, or, before its Secret is deleted for want of it, as the
    /// API has it.
    async fn account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ServiceAccount>>, Error> {
        let reference = ObjectRef::new(name).within(namespace);
        let store = self.context.informers.service_accounts.store();
        if let Some(account) = store.get(&reference) {
            return Ok(Some(account));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), namespace);
        let found = api.get_opt(name).await;
        found
            .map(|account| account.map(Arc::new))
            .map_err(Error::api("read a ServiceAccount"))
    }
}

/// What is to become of a Secret.
#[derive(Debug, PartialEq)]
enum Plan {
    Keep,
    /// Its account is gone, or another one now.
    Delete,
    Fill(Fill),
}

#[derive(Debug, PartialEq)]
struct Fill {
    account_uid: String,
    /// What the Secret lacks beside a token.
    data: BTreeMap<String, ByteString>,
    needs_token: bool,
}

impl Fill {
    fn patch(&self, secret: &Secret) -> Value {
        json!({
            "metadata": {
                // Nobody else's change is undone.
                "resourceVersion": secret.metadata.resource_version,
                "annotations": {ACCOUNT_UID: self.account_uid},
            },
            "data": self.data,
        })
    }
}

fn plan(
    secret: &Secret,
    account: Option<&Arc<ServiceAccount>>,
    certificates: Option<&str>,
) -> Plan {
    let Some(account_uid) = account.and_then(|account| account.uid()) else {
        return Plan::Delete;
    };
    let named = secret.annotations().get(ACCOUNT_UID);
    let named = named.filter(|uid| !uid.is_empty());
    if named.is_some_and(|uid| *uid != account_uid) {
        return Plan::Delete;
    }
    let has = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let namespace = secret.namespace().unwrap_or_default();
    let wanted = [
        ("ca.crt", certificates),
        ("namespace", Some(namespace.as_str())),
    ];
    let data: BTreeMap<_, _> = wanted
        .into_iter()
        .filter_map(|(key, value)| {
            let value = ByteString(value?.as_bytes().to_vec());
            (has(key) != Some(&value)).then(|| (key.to_owned(), value))
        })
        .collect();
    let needs_token = has("token").is_none_or(|token| token.0.is_empty());
    if named.is_some() && data.is_empty() && !needs_token {
        return Plan::Keep;
    }
    Plan::Fill(Fill {
        account_uid,
        data,
        needs_token,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret(uid: &str, data: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "ns", "annotations": {
                ACCOUNT: "sa", ACCOUNT_UID: uid,
            }},
            "type": TYPE, "data": data,
        }))
        .unwrap()
    }

    #[test]
    fn secrets_are_filled_or_go_with_their_account() {
        let account = json!({"metadata": {"name": "sa", "uid": "1"}});
        let account: Arc<ServiceAccount> = Arc::new(serde_json::from_value(account).unwrap());
        let full = [("ca.crt", "pem"), ("namespace", "ns"), ("token", "t")];
        let plan = |secret: &Secret| plan(secret, Some(&account), Some("pem"));
        assert_eq!(plan(&secret("1", &full)), Plan::Keep);
        assert_eq!(plan(&secret("2", &full)), Plan::Delete);
        assert_eq!(super::plan(&secret("1", &full), None, None), Plan::Delete);
        for (uid, data, lacks, needs_token) in [
            ("", &full[..], &[][..], false),
            ("1", &full[..2], &[], true),
            ("1", &full[1..], &["ca.crt"], false),
            ("1", &[("namespace", "x")], &["ca.crt", "namespace"], true),
        ] {
            let Plan::Fill(fill) = plan(&secret(uid, data)) else {
                panic!("{uid} {data:?}");
            };
            assert!(
                fill.data
                    .keys()
                    .map(String::as_str)
                    .eq(lacks.iter().copied())
            );
            assert_eq!(fill.needs_token, needs_token);
            assert_eq!(fill.account_uid, "1");
        }
    }
}
