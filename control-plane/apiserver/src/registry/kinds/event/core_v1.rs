//! Event in v1, as it is stored.

use k8s_openapi::api::core::v1::Event;

use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, NameRule, Strategy};

pub(in crate::registry::kinds) struct EventStrategy;

impl Strategy for EventStrategy {
    type Object = Event;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Event>()
            .short_names(&["ev"])
            // Its clients name Events after objects of any kind.
            .names(NameRule::PathSegment)
            .fields(&super::FIELDS)
            .create_on_update()
            .uncollected()
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
        super::selectable_fields(object)
    }

    fn columns(&self) -> Vec<Column> {
        super::columns()
    }

    fn row(&self, object: &Event, now: jiff::Timestamp) -> Vec<Cell> {
        super::row(object, now)
    }
}
