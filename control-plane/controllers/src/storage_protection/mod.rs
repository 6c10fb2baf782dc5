//! What is used is not removed: PersistentVolumeClaims as long as a Pod needs them,
//! PersistentVolumes as long as they are bound to a claim, VolumeAttributesClasses as long as a
//! claim or a volume names them.
//!
//! A finalizer keeps such an object. The API server puts it on what is created; here it is put
//! on what lacks it, and taken from what is being deleted once nobody uses it. A cache may not
//! show a user that has just appeared, so the API server is asked before an object is let go.

mod plan;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use coracle_apimachinery::meta::{add_finalizer, is_terminating, remove_finalizer};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::{Context, PACE};
use crate::error::{Error, ignore_not_found};
use crate::queue::WorkQueue;
use plan::{Action, claim_names, claim_of, claims_of, is_meant, plan, pod_uses, volume_names};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

/// Passes at once.
const WORKERS: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectRef<PersistentVolumeClaim>),
    Volume(ObjectRef<PersistentVolume>),
    Class(ObjectRef<VolumeAttributesClass>),
}

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    route(&context, &queue);
    let cancel = context.cancel.clone();
    let context = Arc::new(context);
    queue
        .drive("storageprotection", WORKERS, cancel, move |key| {
            let context = context.clone();
            async move {
                match key {
                    Key::Claim(key) => claim(&context, &key).await,
                    Key::Volume(key) => volume(&context, &key).await,
                    Key::Class(key) => class(&context, &key).await,
                }
                .map(|()| None::<Duration>)
            }
        })
        .await;
}

fn route(context: &Context, queue: &WorkQueue<Key>) {
    let informers = &context.informers;
    let claims = informers.claims.store().clone();
    context.route(&informers.pods, queue, move |pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let keys = claims_of(pod).map(|name| ObjectRef::new(&name).within(&namespace));
        let known = keys.filter(|key| claims.get(key).is_some());
        known.map(Key::Claim).collect()
    });
    let (volumes, ending) = (informers.volumes.store().clone(), ending_classes(context));
    context.route(&informers.claims, queue, move |claim| {
        let bound = volumes.state_filter(|volume| {
            is_terminating(&volume.metadata)
                && claim_of(volume).is_some_and(|reference| is_meant(reference, claim))
        });
        let bound = bound
            .iter()
            .map(|volume| Key::Volume(ObjectRef::from_obj(volume)));
        let this = Key::Claim(ObjectRef::from_obj(claim));
        ending().into_iter().chain(bound).chain([this]).collect()
    });
    let ending = ending_classes(context);
    context.route(&informers.volumes, queue, move |volume| {
        let this = Key::Volume(ObjectRef::from_obj(volume));
        ending().into_iter().chain([this]).collect()
    });
    context.route(&informers.volume_attributes_classes, queue, |class| {
        vec![Key::Class(ObjectRef::from_obj(class))]
    });
}

/// Classes that are being deleted: a change tells what an object names now, not what it named.
fn ending_classes(context: &Context) -> impl Fn() -> Vec<Key> + Send + Sync + 'static {
    let classes = context.informers.volume_attributes_classes.store().clone();
    move || {
        let ending = classes.state_filter(|class| is_terminating(&class.metadata));
        let keys = ending.iter().map(|class| ObjectRef::from_obj(&**class));
        keys.map(Key::Class).collect()
    }
}

async fn claim(context: &Context, key: &ObjectRef<PersistentVolumeClaim>) -> Result<(), Error> {
    let informers = &context.informers;
    let Some(claim) = informers.claims.store().get(key) else {
        return Ok(());
    };
    let shown = || {
        let users = informers
            .pods
            .store()
            .state_filter(|pod| pod_uses(pod, &claim));
        !users.is_empty()
    };
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let action = plan(&claim.metadata, CLAIM, shown);
    if action == Some(Action::Release) {
        let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
        let pods = pods.list(&ListParams::default()).await;
        let pods = pods.map_err(Error::api("list the Pods that may use a claim"))?;
        if pods.iter().any(|pod| pod_uses(pod, &claim)) {
            return Ok(());
        }
    }
    let api = Api::namespaced(context.client.clone(), namespace);
    apply(&api, &*claim, CLAIM, action).await
}

async fn volume(context: &Context, key: &ObjectRef<PersistentVolume>) -> Result<(), Error> {
    let informers = &context.informers;
    let Some(volume) = informers.volumes.store().get(key) else {
        return Ok(());
    };
    let reference = claim_of(&volume);
    let shown = || {
        reference.is_some_and(|reference| {
            let claims = informers.claims.store();
            !claims
                .state_filter(|claim| is_meant(reference, claim))
                .is_empty()
        })
    };
    let action = plan(&volume.metadata, VOLUME, shown);
    if let (Some(Action::Release), Some(reference)) = (action, reference) {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
        let claim = claims.get_opt(name).await;
        let claim = claim.map_err(Error::api("read the claim of a volume"))?;
        if claim.is_some_and(|claim| is_meant(reference, &claim)) {
            return Ok(());
        }
    }
    apply(&Api::all(context.client.clone()), &*volume, VOLUME, action).await
}

async fn class(context: &Context, key: &ObjectRef<VolumeAttributesClass>) -> Result<(), Error> {
    let informers = &context.informers;
    let Some(class) = informers.volume_attributes_classes.store().get(key) else {
        return Ok(());
    };
    let by_claim = |claim: &PersistentVolumeClaim| claim_names(claim, &key.name);
    let by_volume = |volume: &PersistentVolume| volume_names(volume, &key.name);
    let shown = || {
        !informers.claims.store().state_filter(by_claim).is_empty()
            || !informers.volumes.store().state_filter(by_volume).is_empty()
    };
    let action = plan(&class.metadata, CLASS, shown);
    if action == Some(Action::Release) {
        let doing = "list what may use a class of volume attributes";
        let (all, client) = (ListParams::default(), &context.client);
        let claims = Api::all(client.clone()).list(&all).await;
        let volumes = Api::all(client.clone()).list(&all).await;
        if claims.map_err(Error::api(doing))?.iter().any(by_claim)
            || volumes.map_err(Error::api(doing))?.iter().any(by_volume)
        {
            return Ok(());
        }
    }
    apply(&Api::all(context.client.clone()), &*class, CLASS, action).await
}

/// Writes the finalizers, unless the object changed since it was looked at.
async fn apply<K>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
    action: Option<Action>,
) -> Result<(), Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let Some(action) = action else {
        return Ok(());
    };
    let mut wanted: ObjectMeta = object.meta().clone();
    match action {
        Action::Protect => add_finalizer(&mut wanted, finalizer),
        Action::Release => remove_finalizer(&mut wanted, finalizer),
    };
    let patch = Patch::Merge(json!({"metadata": {
        "uid": wanted.uid,
        "resourceVersion": wanted.resource_version,
        "finalizers": wanted.finalizers,
    }}));
    let patched = api
        .patch(&object.name_any(), &PatchParams::default(), &patch)
        .await;
    ignore_not_found(patched).map_err(Error::api("write the finalizers of a storage object"))?;
    Ok(())
}
