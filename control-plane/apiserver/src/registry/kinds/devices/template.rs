//! ResourceClaimTemplate: the claim that is made for each Pod that names it.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;

use super::{alpha, defaults};
use crate::registry::strategy::{Descriptor, ErrorList, Strategy};
use crate::validation::devices::claim::validate_claim_spec;
use crate::validation::immutable;
use crate::validation::object_meta::validate_claim_template_meta;

pub(in super::super) struct ResourceClaimTemplateStrategy;

impl Strategy for ResourceClaimTemplateStrategy {
    type Object = ResourceClaimTemplate;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ResourceClaimTemplate>().returns_deleted()
    }

    fn set_defaults(&self, object: &mut ResourceClaimTemplate) {
        let spec = object.spec.get_or_insert_default();
        spec.metadata.get_or_insert_default();
        defaults::claim_spec(spec.spec.get_or_insert_default());
    }

    fn prepare_for_create(&self, object: &mut ResourceClaimTemplate) {
        drop_fields(object);
    }

    fn validate(&self, object: &ResourceClaimTemplate) -> ErrorList {
        let mut errors = ErrorList::default();
        let (spec, at) = (object.spec.clone().unwrap_or_default(), Path::new("spec"));
        if let Some(meta) = &spec.metadata {
            validate_claim_template_meta(meta, &at.child("metadata"), &mut errors);
        }
        let claim = spec.spec.unwrap_or_default();
        validate_claim_spec(&claim, &at.child("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, new: &mut ResourceClaimTemplate, _old: &ResourceClaimTemplate) {
        drop_fields(new);
    }

    fn validate_update(
        &self,
        new: &ResourceClaimTemplate,
        old: &ResourceClaimTemplate,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        immutable(&new.spec, &old.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn reset_fields(&self, _subresource: &str) -> &'static [&'static [&'static str]] {
        &[]
    }
}

fn drop_fields(template: &mut ResourceClaimTemplate) {
    let spec = template.spec.iter_mut();
    spec.filter_map(|spec| spec.spec.as_mut())
        .for_each(alpha::drop_from_claim);
}
