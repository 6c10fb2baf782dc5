//! Metadata and label selectors.

use super::{Struct, atomic, map, set};

pub(super) static OBJECT_META: Struct = Struct {
    name: "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    fields: &[
        ("finalizers", set().merged(None)),
        ("managedFields", atomic()),
        ("ownerReferences", map(&["uid"])),
    ],
};

pub(super) static LABEL_SELECTOR_REQUIREMENT: Struct = Struct {
    name: "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
    fields: &[("values", atomic())],
};

pub(super) static LABEL_SELECTOR: Struct = Struct {
    name: "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
    fields: &[("matchExpressions", atomic().of(&LABEL_SELECTOR_REQUIREMENT))],
};
