//! ControllerRevision: a state that a controller may go back to.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::meta::controller_of;
use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{immutable, non_negative};

pub(super) struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    type Object = ControllerRevision;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ControllerRevision>()
    }

    fn validate(&self, object: &ControllerRevision) -> ErrorList {
        let mut errors = ErrorList::default();
        if object.data.0.is_null() {
            errors.push(Error::required(&Path::new("data"), "data is mandatory"));
        }
        let revision = object.revision.unwrap_or(0);
        non_negative(revision, &Path::new("revision"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision) -> ErrorList {
        let mut errors = self.validate(new);
        immutable(&new.data, &old.data, &Path::new("data"), &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Controller", "Controller of the object"),
            Column::text("Revision", "Which state it is, in their order."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ControllerRevision, now: jiff::Timestamp) -> Vec<Cell> {
        let controller = controller_of(&object.metadata).map(|owner| {
            let group = owner.api_version.split_once('/').map(|(group, _)| group);
            let kind = owner.kind.to_lowercase();
            match group {
                Some(group) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            }
        });
        vec![
            printing::name(&object.metadata),
            Cell::from(controller.unwrap_or_else(|| "<none>".to_owned())),
            Cell::from(object.revision.unwrap_or(0)),
            printing::age(&object.metadata, now),
        ]
    }
}
