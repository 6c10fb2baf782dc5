//! The ServiceAccount `default` of every namespace.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::context::{Context, PACE};
use crate::error::{Error, already_exists, namespace_terminating, not_found};
use crate::queue::WorkQueue;

type Key = ObjectRef<Namespace>;

const NAME: &str = "default";
/// Passes at once.
const WORKERS: usize = 4;

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let informers = &context.informers;
    context.route(&informers.namespaces, &queue, |namespace| {
        vec![Key::from_obj(namespace)]
    });
    context.route(&informers.service_accounts, &queue, |account| {
        let namespace = account.namespace().filter(|_| account.name_any() == NAME);
        namespace.map(|name| Key::new(&name)).into_iter().collect()
    });
    let (cancel, context) = (context.cancel.clone(), Arc::new(context));
    queue
        .drive("serviceaccount", WORKERS, cancel, move |key| {
            let context = context.clone();
            async move { reconcile(&context, key).await }
        })
        .await;
}

async fn reconcile(context: &Context, key: Key) -> Result<Option<Duration>, Error> {
    let Some(namespace) = context.informers.namespaces.store().get(&key) else {
        return Ok(None);
    };
    let account = ObjectRef::<ServiceAccount>::new(NAME).within(&key.name);
    let present = context
        .informers
        .service_accounts
        .store()
        .get(&account)
        .is_some();
    if present || !active(&namespace) {
        return Ok(None);
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(key.name.clone()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(context.client.clone(), &key.name);
    match api.create(&PostParams::default(), &account).await {
        Ok(_) => Ok(None),
        Err(error) if already_exists(&error) || namespace_terminating(&error) => Ok(None),
        Err(error) if not_found(&error) => Ok(None),
        Err(error) => Err(Error::api("create the default ServiceAccount")(error)),
    }
}

/// Whether things may be created in the namespace.
pub(crate) fn active(namespace: &Namespace) -> bool {
    let phase = namespace
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase != Some("Terminating") && namespace.metadata.deletion_timestamp.is_none()
}
