//! Binding: that a Pod is to run on a node. It is created to bind (`handlers/pods`), below the Pod or
//! beside it, and none is stored.

use k8s_openapi::api::core::v1::Binding;

use crate::registry::strategy::{Descriptor, ErrorList, Strategy};

pub(super) struct BindingStrategy;

impl Strategy for BindingStrategy {
    type Object = Binding;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Binding>().computed(&["create"])
    }

    fn validate(&self, _object: &Binding) -> ErrorList {
        ErrorList::default()
    }

    fn validate_update(&self, new: &Binding, _old: &Binding) -> ErrorList {
        self.validate(new)
    }
}
