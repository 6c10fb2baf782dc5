//! ComponentStatus: whether what the API server stands on is healthy. Nothing is stored: it is
//! computed when it is asked for (`handlers/components`).

use k8s_openapi::api::core::v1::ComponentStatus;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy};
use crate::validation::{items, text};

pub(super) struct ComponentStatusStrategy;

impl Strategy for ComponentStatusStrategy {
    type Object = ComponentStatus;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ComponentStatus>()
            .short_names(&["cs"])
            .computed(&["get", "list"])
            .deprecated("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn validate(&self, _object: &ComponentStatus) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, _new: &ComponentStatus, _old: &ComponentStatus) -> ErrorList {
        ErrorList::default()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Status", "Status of the component conditions"),
            Column::text("Message", "Message of the component conditions"),
            Column::text("Error", "Error of the component conditions"),
        ]
    }

    fn row(&self, object: &ComponentStatus, _now: jiff::Timestamp) -> Vec<Cell> {
        let healthy = items(&object.conditions)
            .iter()
            .find(|condition| condition.type_ == "Healthy");
        let status = match healthy.map(|condition| condition.status.as_str()) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        vec![
            printing::name(&object.metadata),
            Cell::from(status),
            Cell::from(healthy.map_or("", |condition| text(&condition.message))),
            Cell::from(healthy.map_or("", |condition| text(&condition.error))),
        ]
    }
}
