//! ServiceAccount: who the processes of a Pod are to the API.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::registry::strategy::{Descriptor, ErrorList, Strategy, Subresource};

pub(super) struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<ServiceAccount>()
            .short_names(&["sa"])
            .returns_deleted()
            .subresources(&[Subresource::Token])
            .conditional_update()
    }

    fn validate(&self, _object: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, _new: &ServiceAccount, _old: &ServiceAccount) -> ErrorList {
        ErrorList::default()
    }
}
