//! ResourceQuota: what is created is charged to the quotas that count it, and refused where one
//! would be exceeded. What is released is counted by the quota's controller.
//!
//! A charge is a compare-and-swap of the quota's status, so that of two creations at the same
//! time no two fit where there is room for one. It is the last check before the object is stored.

use std::collections::BTreeSet;

use async_trait::async_trait;
use coracle_apimachinery::quota::{
    claim_usage, counts_any, counts_claim, counts_pod, is_of_claims, is_of_pods, object_count,
    pod_usage, service_usage, unnamed,
};
use coracle_apimachinery::resources::{ResourceList, add, parse, sub, to_api};
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota as Quota, Service};

use super::{Admission, Operation, Review};
use crate::registry::erased::Object;
use crate::registry::strategy::Descriptor;
use crate::registry::update::Part;
use crate::registry::{Caller, FieldManager, Registry, Target, meta, typed};

pub(super) struct ResourceQuota;

#[async_trait]
impl Admission for ResourceQuota {
    async fn validate(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let descriptor = review.kind.descriptor();
        let Some(object) = object.filter(|object| is_counted(review, descriptor, *object)) else {
            return Ok(());
        };
        let quotas = registry.find_all::<Quota>(review.namespace).await?;
        if quotas.is_empty() {
            return Ok(());
        }
        let name = object.meta().name.clone().unwrap_or_default();
        let demand = Demand {
            object,
            group: &descriptor.group,
            plural: &descriptor.plural,
            delta: delta(descriptor, object, old),
        };
        let refuse = |cause: String| review.forbidden(&name, cause);
        let mut concerned = Vec::new();
        for quota in &quotas {
            if demand.concerns(quota) {
                demand.check_constraints(quota).map_err(refuse)?;
                concerned.push(quota);
            }
        }
        // Nothing is charged where any of them is exceeded.
        for quota in &concerned {
            demand.charged(quota).map_err(refuse)?;
        }
        // It is the server that charges, whoever writes the object, and even where that is applied.
        let caller = Caller {
            manager: FieldManager::Update("kube-apiserver"),
            ..review.caller
        };
        for quota in concerned {
            let target = Target {
                kind: registry.kind_of::<Quota>()?,
                namespace: review.namespace,
                name: quota.metadata.name.as_deref().unwrap_or_default(),
            };
            let charge = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
                let mut quota: Quota = typed(current.boxed())?;
                let used = demand.charged(&quota).map_err(refuse)?;
                quota.status.get_or_insert_default().used = Some(to_api(&used));
                Ok(Box::new(quota))
            };
            let charged = registry.update(target, Part::Status, &charge, caller).await;
            match charged {
                // A quota that is gone limits nothing.
                Err(status) if status.code() == 404 => {}
                other => other.map(|_| ())?,
            }
        }
        Ok(())
    }
}

/// Whether the request can use more of anything: all creations in a namespace, and updates of
/// what can grow. Events are too many to be counted.
fn is_counted(review: &Review<'_>, descriptor: &Descriptor, object: &dyn Object) -> bool {
    let grows = object.as_any().is::<Service>() || object.as_any().is::<PersistentVolumeClaim>();
    review.subresource.is_empty()
        && descriptor.is_namespaced()
        && descriptor.storage != "events"
        && match review.operation {
            Operation::Create => true,
            Operation::Update => grows,
            Operation::Delete => false,
        }
}

fn usage(descriptor: &Descriptor, object: &dyn Object) -> ResourceList {
    let any = object.as_any();
    if let Some(pod) = any.downcast_ref::<Pod>() {
        pod_usage(pod, meta::now().0)
    } else if let Some(service) = any.downcast_ref::<Service>() {
        service_usage(service)
    } else if let Some(claim) = any.downcast_ref::<PersistentVolumeClaim>() {
        claim_usage(claim)
    } else {
        object_count(&descriptor.group, &descriptor.plural)
    }
}

/// What is used more than before.
fn delta(descriptor: &Descriptor, object: &dyn Object, old: Option<&dyn Object>) -> ResourceList {
    let mut delta = usage(descriptor, object);
    if let Some(old) = old {
        sub(&mut delta, &usage(descriptor, old));
    }
    delta.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
    delta
}

/// What a request wants.
struct Demand<'a> {
    object: &'a dyn Object,
    group: &'a str,
    plural: &'a str,
    delta: ResourceList,
}

impl Demand<'_> {
    /// The resources of a quota that objects of this kind use.
    fn tracked(&self, quota: &Quota) -> BTreeSet<String> {
        let status = quota.status.as_ref();
        let hard = parse(status.and_then(|status| status.hard.as_ref()));
        let any = self.object.as_any();
        let uses = |name: &str| {
            if any.is::<Pod>() {
                is_of_pods(name)
            } else if any.is::<PersistentVolumeClaim>() {
                is_of_claims(name)
            } else if any.is::<Service>() {
                name == "services" || name == "count/services" || name.starts_with("services.")
            } else {
                object_count(self.group, self.plural).contains_key(name)
            }
        };
        hard.into_keys().filter(|name| uses(name)).collect()
    }

    /// Whether a quota counts the object.
    fn concerns(&self, quota: &Quota) -> bool {
        let any = self.object.as_any();
        let in_scope = if let Some(pod) = any.downcast_ref::<Pod>() {
            counts_pod(quota, pod)
        } else if let Some(claim) = any.downcast_ref::<PersistentVolumeClaim>() {
            counts_claim(quota, claim)
        } else {
            counts_any(quota)
        };
        in_scope && !self.tracked(quota).is_empty()
    }

    /// What must be said of the object where this quota counts it, and of the quota itself.
    fn check_constraints(&self, quota: &Quota) -> Result<(), String> {
        let name = quota.metadata.name.as_deref().unwrap_or_default();
        let tracked = self.tracked(quota);
        if let Some(spec) = self
            .object
            .as_any()
            .downcast_ref::<Pod>()
            .and_then(|pod| pod.spec.as_ref())
        {
            let missing = unnamed(spec, tracked.iter().map(String::as_str));
            let parts: Vec<String> = missing
                .into_iter()
                .map(|(resource, names)| format!("{resource} for: {}", names.join(",")))
                .collect();
            if !parts.is_empty() {
                let parts = parts.join("; ");
                return Err(format!("failed quota: {name}: must specify {parts}"));
            }
        }
        let used = quota.status.as_ref().and_then(|s| s.used.as_ref());
        let known = |resource: &String| used.is_some_and(|used| used.contains_key(resource));
        if !tracked.iter().all(known) {
            let resources: Vec<String> = tracked.into_iter().collect();
            return Err(format!(
                "status unknown for quota: {name}, resources: {}",
                resources.join(",")
            ));
        }
        Ok(())
    }

    /// What is used of a quota with this object.
    fn charged(&self, quota: &Quota) -> Result<ResourceList, String> {
        let status = quota.status.clone().unwrap_or_default();
        let hard = parse(status.hard.as_ref());
        let used = parse(status.used.as_ref());
        let mut requested = self.delta.clone();
        requested.retain(|name, _| hard.contains_key(name));
        let mut sum = used.clone();
        add(&mut sum, &requested);
        let exceeded: Vec<&String> = requested
            .keys()
            .filter(|name| sum[*name] > hard[*name])
            .collect();
        if exceeded.is_empty() {
            return Ok(sum);
        }
        let shown = |list: &ResourceList| {
            let pairs = exceeded.iter().map(|name| {
                let amount = list.get(*name).copied().unwrap_or_default();
                format!("{name}={amount}")
            });
            pairs.collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            quota.metadata.name.as_deref().unwrap_or_default(),
            shown(&requested),
            shown(&used),
            shown(&hard)
        ))
    }
}
