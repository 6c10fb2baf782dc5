//! ServiceAccount: who the processes of a Pod are to the API.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::items;

pub(super) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ServiceAccount>()
            .short_names(&["sa"])
            .subresources(&[Subresource::Token])
            .conditional_update()
    }

    fn validate(&self, _object: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, _new: &ServiceAccount, _old: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Secrets", "How many secrets the account may use."),
            Column::age(),
        ]
    }

    fn row(&self, object: &ServiceAccount, now: jiff::Timestamp) -> Vec<Cell> {
        vec![
            printing::name(&object.metadata),
            Cell::from(items(&object.secrets).len()),
            printing::age(&object.metadata, now),
        ]
    }
}
