//! Priority: a Pod's priority is that of its PriorityClass, and one class at most is the default.

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Admission, Operation, Review, old_pod, pod};
use crate::registry::Registry;
use crate::registry::erased::Object;

pub(super) struct Priority;

#[async_trait]
impl Admission for Priority {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if !review.writes_pod() {
            return Ok(());
        }
        let Some(pod) = pod(object) else {
            return Ok(());
        };
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let Some(spec) = pod.spec.as_mut() else {
            return Ok(());
        };
        if let Some(old) = old_pod(old) {
            // What was decided at creation stays, said again or not.
            if let Some(old) = &old.spec {
                spec.priority = spec.priority.or(old.priority);
                let policy = spec.preemption_policy.take();
                spec.preemption_policy = policy.or_else(|| old.preemption_policy.clone());
            }
            return Ok(());
        }
        let wanted = spec
            .priority_class_name
            .clone()
            .filter(|name| !name.is_empty());
        let class = match &wanted {
            Some(name) => {
                let class = registry.find::<PriorityClass>("", name).await?;
                Some(class.ok_or_else(|| {
                    review.forbidden(
                        &pod_name,
                        format!("no PriorityClass with name {name} was found"),
                    )
                })?)
            }
            None => default_class(registry).await?,
        };
        let priority = class.as_ref().and_then(|class| class.value).unwrap_or(0);
        if let Some(given) = spec.priority.filter(|given| *given != priority) {
            let cause = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
            );
            return Err(review.forbidden(&pod_name, cause));
        }
        let policy = class
            .as_ref()
            .and_then(|class| class.preemption_policy.clone());
        spec.priority = Some(priority);
        spec.priority_class_name = class.and_then(|class| class.metadata.name);
        spec.preemption_policy = policy
            .or_else(|| spec.preemption_policy.take())
            .or_else(|| Some("PreemptLowerPriority".to_owned()));
        Ok(())
    }

    async fn validate(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let class = object.and_then(|object| object.as_any().downcast_ref::<PriorityClass>());
        let Some(class) = class.filter(|class| class.global_default == Some(true)) else {
            return Ok(());
        };
        if review.operation == Operation::Delete {
            return Ok(());
        }
        match default_class(registry).await? {
            Some(other) if other.metadata.name != class.metadata.name => {
                let cause = format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.metadata.name.unwrap_or_default()
                );
                Err(review.forbidden(class.metadata.name.as_deref().unwrap_or_default(), cause))
            }
            _ => Ok(()),
        }
    }
}

async fn default_class(registry: &Registry) -> Result<Option<PriorityClass>, Status> {
    let classes = registry.find_all::<PriorityClass>("").await?;
    Ok(classes
        .into_iter()
        .find(|class| class.global_default == Some(true)))
}
