//! ResourceQuota: counts anew what the objects of a namespace use.
//!
//! Admission charges what is created to `status.used` before the object is stored, and never
//! takes anything back; that is done here. So a count may be older than a charge whose object is
//! on its way: a number is lowered only after no charge was seen for [`SETTLE`], and with the
//! version of the quota that was looked at, so that a charge in between makes the write fail.
//!
//! Pods, claims and Services are read from their caches; of other resources only the
//! [`inventory`](crate::inventory)'s numbers are needed.

mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::broadcast::error::RecvError;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::inventory::Changed;
use crate::queue::WorkQueue;
use plan::{Action, Observed, plan};

type Key = ObjectRef<ResourceQuota>;

/// Passes at once.
const WORKERS: usize = 5;
/// The least time between two counts for one quota.
const PACE: Duration = Duration::from_millis(100);
/// A charge is followed by its object within this time, and both are in the caches.
const SETTLE: Duration = Duration::from_millis(500);
/// Between counts that nothing asks for: time alone changes what counts.
const RECOUNT: Duration = Duration::from_secs(300);

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let informers = &context.informers;
    context.route(&informers.quotas, &queue, |quota| {
        vec![Key::from_obj(quota)]
    });
    context.route(&informers.pods, &queue, beside(&context));
    context.route(&informers.claims, &queue, beside(&context));
    context.route(&informers.services, &queue, beside(&context));
    context.tasks.spawn(listen(context.clone(), queue.clone()));
    let cancel = context.cancel.clone();
    let controller = Arc::new(Controller {
        context,
        seen: Mutex::default(),
    });
    queue
        .drive("resourcequota", WORKERS, cancel, move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(&key).await }
        })
        .await;
}

/// The quotas of an object's namespace.
fn beside<K: Resource>(context: &Context) -> impl Fn(&K) -> Vec<Key> + Send + Sync + 'static {
    let quotas = context.informers.quotas.store().clone();
    move |object| {
        let namespace = &object.meta().namespace;
        let quotas = quotas.state_filter(|quota| quota.metadata.namespace == *namespace);
        quotas.iter().map(|quota| Key::from_obj(&**quota)).collect()
    }
}

/// Counts anew where the inventory changes.
async fn listen(context: Context, queue: WorkQueue<Key>) {
    let mut changes = context.inventory.subscribe();
    let quotas = context.informers.quotas.store().clone();
    loop {
        let change = tokio::select! {
            () = context.cancel.cancelled() => return,
            change = changes.recv() => change,
        };
        let changed = match change {
            Ok(Changed::Namespace(namespace)) => quotas
                .state_filter(|quota| quota.metadata.namespace.as_deref() == Some(&*namespace)),
            Ok(Changed::Everywhere) | Err(RecvError::Lagged(_)) => quotas.state(),
            Err(RecvError::Closed) => return,
        };
        changed
            .iter()
            .for_each(|quota| queue.add(Key::from_obj(&**quota)));
    }
}

struct Controller {
    context: Context,
    /// Since when each quota has been in the version that the cache shows.
    seen: Mutex<HashMap<Key, (Option<String>, Instant)>>,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let informers = &self.context.informers;
        let Some(quota) = informers.quotas.store().get(key) else {
            self.seen().remove(key);
            return Ok(None);
        };
        let unchanged = self.unchanged_for(key, quota.resource_version());
        let namespace = quota.namespace().unwrap_or_default();
        let pods = here(informers.pods.store(), &namespace);
        let claims = here(informers.claims.store(), &namespace);
        let services = here(informers.services.store(), &namespace);
        let inventory = &self.context.inventory;
        let action = plan(&Observed {
            quota: &quota,
            pods: &pods.iter().map(|pod| &**pod).collect::<Vec<_>>(),
            claims: &claims.iter().map(|claim| &**claim).collect::<Vec<_>>(),
            services: &services
                .iter()
                .map(|service| &**service)
                .collect::<Vec<_>>(),
            count: &|resource| inventory.count(&namespace, resource),
            now: Timestamp::now(),
            is_quiet: unchanged >= SETTLE,
        });
        match action {
            Some(Action::Settle) => Ok(Some(SETTLE.saturating_sub(unchanged))),
            Some(Action::Write(status)) => {
                self.write(&quota, status).await?;
                Ok(Some(RECOUNT))
            }
            None => Ok(Some(RECOUNT)),
        }
    }

    async fn write(&self, quota: &ResourceQuota, status: ResourceQuotaStatus) -> Result<(), Error> {
        let mut update = quota.clone();
        update.status = Some(status);
        let namespace = quota.namespace().unwrap_or_default();
        let api: Api<ResourceQuota> = Api::namespaced(self.context.client.clone(), &namespace);
        let written = api
            .replace_status(&quota.name_any(), &PostParams::default(), &update)
            .await;
        ignore_not_found(written).map_err(Error::api("update the status of a ResourceQuota"))?;
        Ok(())
    }

    /// How long the cache has shown this version of a quota, at least.
    fn unchanged_for(&self, key: &Key, version: Option<String>) -> Duration {
        let mut seen = self.seen();
        let (shown, since) = seen
            .entry(key.clone())
            .or_insert_with(|| (version.clone(), Instant::now()));
        if *shown != version {
            (*shown, *since) = (version, Instant::now());
        }
        since.elapsed()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (Option<String>, Instant)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cache's objects of a namespace.
fn here<K>(store: &kube::runtime::reflector::Store<K>, namespace: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| object.meta().namespace.as_deref() == Some(namespace))
}
