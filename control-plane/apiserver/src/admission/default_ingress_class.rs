//! DefaultIngressClass: an Ingress that names no class is of the default one.

use async_trait::async_trait;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::{Admission, Operation, Review};
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::registry::kinds::ingress::CLASS_ANNOTATION;
use crate::registry::kinds::ingress_class::IS_DEFAULT;

pub(super) struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if review.operation != Operation::Create {
            return Ok(());
        }
        let Some(ingress) = object.and_then(|object| object.as_any_mut().downcast_mut::<Ingress>())
        else {
            return Ok(());
        };
        let annotations = ingress.metadata.annotations.as_ref();
        let annotated = annotations.is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
        let spec = ingress.spec.get_or_insert_default();
        if annotated || spec.ingress_class_name.is_some() {
            return Ok(());
        }
        let classes = registry.find_all::<IngressClass>("").await?;
        let is_default = |class: &IngressClass| {
            let annotations = class.metadata.annotations.as_ref();
            annotations
                .and_then(|all| all.get(IS_DEFAULT))
                .is_some_and(|value| value == "true")
        };
        let newest = classes.into_iter().filter(is_default).max_by(|a, b| {
            let time = |class: &IngressClass| {
                let time = class.metadata.creation_timestamp.as_ref();
                time.map(|time| time.0)
            };
            // Of two of the same age the first by name counts.
            let names = || b.metadata.name.cmp(&a.metadata.name);
            time(a).cmp(&time(b)).then_with(names)
        });
        spec.ingress_class_name = newest.and_then(|class| class.metadata.name);
        Ok(())
    }
}
