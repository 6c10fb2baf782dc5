//! PodTemplate: a template that stands for itself.

use coracle_apimachinery::field::Path;
use k8s_openapi::api::core::v1::PodTemplate;

use super::format_labels;
use super::pod::set_template_defaults;
use super::workload::{template_cells, template_columns, template_warnings};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::equality;
use crate::validation::pod::template::validate_template;

pub(super) struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    type Object = PodTemplate;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PodTemplate>()
            .generation()
            .returns_deleted()
    }

    fn set_defaults(&self, object: &mut PodTemplate) {
        set_template_defaults(object.template.get_or_insert_default());
    }

    fn validate(&self, object: &PodTemplate) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(template) = &object.template {
            validate_template(template, &Path::new("template"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &PodTemplate, _old: &PodTemplate) -> ErrorList {
        self.validate(new)
    }

    fn spec_changed(&self, new: &PodTemplate, old: &PodTemplate) -> bool {
        !equality::semantic(&new.template, &old.template)
    }

    fn warnings(&self, object: &PodTemplate) -> Vec<String> {
        template_warnings(object.template.as_ref(), &Path::new("template"))
    }

    fn columns(&self) -> Vec<Column> {
        let labels = Column::text("Pod Labels", "The labels of the pods that are made of it.");
        [Column::name()]
            .into_iter()
            .chain(template_columns())
            .chain([labels])
            .collect()
    }

    fn row(&self, object: &PodTemplate, _now: jiff::Timestamp) -> Vec<Cell> {
        let template = object.template.as_ref();
        let meta = template.and_then(|template| template.metadata.as_ref());
        let labels = format_labels(meta.and_then(|meta| meta.labels.as_ref()));
        [printing::name(&object.metadata)]
            .into_iter()
            .chain(template_cells(template))
            .chain([Cell::from(labels)])
            .collect()
    }
}
