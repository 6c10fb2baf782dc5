//! ControllerRevision: a state that a controller may go back to.

use coracle_apimachinery::field::{Error, Path};
use coracle_apimachinery::meta::controller_of;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

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
        validate_revision(object, &mut errors);
        let fault = match &object.data.0 {
            Value::Object(_) => return errors,
            Value::Null => "data is mandatory",
            _ => "data must be a valid JSON object",
        };
        errors.push(Error::required(&Path::new("data"), fault));
        errors
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision) -> ErrorList {
        let mut errors = ErrorList::default();
        validate_revision(new, &mut errors);
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

fn validate_revision(object: &ControllerRevision, errors: &mut ErrorList) {
    let revision = object.revision.unwrap_or(0);
    non_negative(revision, &Path::new("revision"), errors);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn a_state_is_an_object_and_stays_as_it_is() {
        let of = |data: Value| -> ControllerRevision {
            serde_json::from_value(json!({"metadata": {"name": "r"}, "data": data, "revision": 1}))
                .unwrap()
        };
        let strategy = ControllerRevisionStrategy;
        assert_causes(&strategy.validate(&of(json!({"a": 1}))), &[]);
        for (data, fault) in [
            (json!(null), "data FieldValueRequired data is mandatory"),
            (
                json!("a"),
                "data FieldValueRequired data must be a valid JSON object",
            ),
        ] {
            assert_causes(&strategy.validate(&of(data)), &[fault]);
        }
        assert_causes(
            &strategy.validate_update(&of(json!({"a": 2})), &of(json!({"a": 1}))),
            &["data FieldValueInvalid field is immutable"],
        );
    }
}
