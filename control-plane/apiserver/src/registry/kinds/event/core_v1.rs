//! Event in v1, as it is stored.

use k8s_openapi::api::core::v1::Event;

use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::text;

pub(in crate::registry::kinds) struct EventStrategy;

const INVOLVED: [&str; 7] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
];
const FIELDS: [&str; 4] = ["reason", "reportingComponent", "source", "type"];

impl Strategy for EventStrategy {
    type Object = Event;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Event>()
            .short_names(&["ev"])
            .fields(&[&INVOLVED[..], &FIELDS[..]].concat())
            .create_on_update()
    }

    fn validate(&self, object: &Event) -> ErrorList {
        let mut errors = ErrorList::default();
        super::validate(object, "reportingComponent", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Event, _old: &Event) -> ErrorList {
        self.validate(new)
    }

    fn selectable_fields(&self, object: &Event) -> Vec<(&'static str, String)> {
        let reporting = text(&object.reporting_component);
        let source = object
            .source
            .as_ref()
            .map_or("", |source| text(&source.component));
        let source = if source.is_empty() { reporting } else { source };
        let values =
            [text(&object.reason), reporting, source, text(&object.type_)].map(str::to_owned);
        INVOLVED
            .into_iter()
            .zip(super::involved_fields(object))
            .chain(FIELDS.into_iter().zip(values))
            .collect()
    }

    fn columns(&self) -> Vec<Column> {
        super::columns()
    }

    fn row(&self, object: &Event, now: jiff::Timestamp) -> Vec<Cell> {
        super::row(object, now)
    }
}
