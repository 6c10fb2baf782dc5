//! The end of a namespace: everything in it is deleted, then it may go.
//!
//! Pods go first, so that nothing that they may need on their way out is gone before them
//! (KEP-5080). While something remains, conditions on the Namespace say what.

mod conditions;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::context::{Context, PACE};
use crate::discovery::{Served, served};
use crate::error::{Error, ignore_not_found, message, not_found};
use crate::queue::WorkQueue;
use conditions::{Remains, conditions};

type Key = ObjectRef<Namespace>;

/// Passes at once.
const WORKERS: usize = 4;
/// Between looks at what remains; Pods that go are noticed at once.
const AGAIN: Duration = Duration::from_secs(1);
/// What keeps a Namespace until its content is gone.
const FINALIZER: &str = "kubernetes";

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    context.route(&context.informers.namespaces, &queue, |namespace| {
        let ends = namespace.metadata.deletion_timestamp.is_some();
        ends.then(|| Key::from_obj(namespace)).into_iter().collect()
    });
    let namespaces = context.informers.namespaces.store().clone();
    context.route(&context.informers.pods, &queue, move |pod| {
        let key = Key::new(&pod.namespace().unwrap_or_default());
        let namespace = namespaces.get(&key);
        let ends = namespace.is_some_and(|n| n.metadata.deletion_timestamp.is_some());
        ends.then_some(key).into_iter().collect()
    });
    let (cancel, context) = (context.cancel.clone(), Arc::new(context));
    queue
        .drive("namespace", WORKERS, cancel, move |key| {
            let context = context.clone();
            async move { reconcile(&context, key).await }
        })
        .await;
}

async fn reconcile(context: &Context, key: Key) -> Result<Option<Duration>, Error> {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let Some(cached) = context.informers.namespaces.store().get(&key) else {
        return Ok(None);
    };
    if cached.metadata.deletion_timestamp.is_none() {
        return Ok(None);
    }
    let live = api
        .get_opt(&key.name)
        .await
        .map_err(Error::api("read a Namespace"))?;
    let Some(mut namespace) = live.filter(|live| live.uid() == cached.uid()) else {
        return Ok(None);
    };
    if !finalizers(&namespace).any(|finalizer| finalizer == FINALIZER) {
        return Ok(None);
    }
    if phase(&namespace) != Some("Terminating") {
        let conditions = namespace.status.take().and_then(|status| status.conditions);
        let Some(updated) = write_status(&api, &namespace, conditions).await? else {
            return Ok(None);
        };
        namespace = updated;
    }
    let remains = empty(context, &key.name).await;
    let old = namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let new = conditions(
        old.as_deref().unwrap_or_default(),
        &remains,
        Timestamp::now(),
    );
    if old.as_ref() != Some(&new) {
        let Some(updated) = write_status(&api, &namespace, Some(new)).await? else {
            return Ok(None);
        };
        namespace = updated;
    }
    if !remains.is_empty() {
        return Ok(Some(AGAIN));
    }
    let finalizers: Vec<_> = finalizers(&namespace)
        .filter(|f| *f != FINALIZER)
        .map(str::to_owned)
        .collect();
    namespace.spec.get_or_insert_default().finalizers = Some(finalizers);
    let finalized = api
        .replace_subresource("finalize", &key.name, &PostParams::default(), &namespace)
        .await;
    ignore_not_found(finalized).map_err(Error::api("finalize a Namespace"))?;
    Ok(None)
}

async fn write_status(
    api: &Api<Namespace>,
    namespace: &Namespace,
    conditions: Option<Vec<k8s_openapi::api::core::v1::NamespaceCondition>>,
) -> Result<Option<Namespace>, Error> {
    let mut update = namespace.clone();
    update.status = Some(NamespaceStatus {
        phase: Some("Terminating".to_owned()),
        conditions,
    });
    let written = api
        .replace_status(&namespace.name_any(), &PostParams::default(), &update)
        .await;
    ignore_not_found(written).map_err(Error::api("update the status of a Namespace"))
}

/// Deletes what is in the namespace, and says what is still there.
async fn empty(context: &Context, namespace: &str) -> Remains {
    let mut remains = Remains::default();
    let served = match served(&context.client).await {
        Ok(served) => served,
        Err(error) => {
            remains.undiscovered = Some(error.to_string());
            return remains;
        }
    };
    let deletable =
        |served: &Served| served.namespaced && served.can("list") && served.can("delete");
    let (pods, others): (Vec<_>, Vec<_>) = served
        .into_iter()
        .filter(deletable)
        .partition(|served| served.name() == "pods");
    for resource in &pods {
        empty_of(context, namespace, resource, &mut remains).await;
    }
    if !remains.is_empty() {
        return remains;
    }
    for resource in &others {
        empty_of(context, namespace, resource, &mut remains).await;
    }
    remains
}

async fn empty_of(context: &Context, namespace: &str, served: &Served, remains: &mut Remains) {
    let api: Api<PartialObjectMeta<DynamicObject>> =
        Api::namespaced_with(context.client.clone(), namespace, &served.resource);
    let left = async {
        let list = api.list_metadata(&ListParams::default()).await?;
        if list.items.is_empty() {
            return Ok(list.items);
        }
        if served.can("deletecollection") {
            let objects: Api<DynamicObject> =
                Api::namespaced_with(context.client.clone(), namespace, &served.resource);
            let all = ListParams::default();
            objects
                .delete_collection(&DeleteParams::background(), &all)
                .await?;
        } else {
            for object in &list.items {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                ignore_not_found(api.delete(name, &DeleteParams::background()).await)?;
            }
        }
        Ok(api.list_metadata(&ListParams::default()).await?.items)
    };
    let left: Result<_, kube::Error> = left.await;
    match left {
        Ok(left) => {
            for object in left {
                let finalizers = object.metadata.finalizers.unwrap_or_default();
                remains.count(&served.name(), &finalizers);
            }
        }
        // The resource is served no more.
        Err(error) if not_found(&error) => {}
        Err(error) => remains
            .failed
            .push(format!("{}: {}", served.name(), message(&error))),
    }
}

fn finalizers(namespace: &Namespace) -> impl Iterator<Item = &str> {
    let finalizers = namespace
        .spec
        .iter()
        .flat_map(|spec| spec.finalizers.iter().flatten());
    finalizers.map(String::as_str)
}

fn phase(namespace: &Namespace) -> Option<&str> {
    namespace.status.as_ref()?.phase.as_deref()
}
