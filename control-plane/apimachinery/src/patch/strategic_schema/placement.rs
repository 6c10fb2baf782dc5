//! Where pods may be placed.

use super::meta::LABEL_SELECTOR;
use super::{Struct, atomic, nested};

pub(super) static NODE_SELECTOR_REQUIREMENT: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeSelectorRequirement",
    fields: &[("values", atomic())],
};

pub(super) static NODE_SELECTOR_TERM: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeSelectorTerm",
    fields: &[
        ("matchExpressions", atomic().of(&NODE_SELECTOR_REQUIREMENT)),
        ("matchFields", atomic().of(&NODE_SELECTOR_REQUIREMENT)),
    ],
};

pub(super) static PREFERRED_SCHEDULING_TERM: Struct = Struct {
    name: "io.k8s.api.core.v1.PreferredSchedulingTerm",
    fields: &[("preference", nested(&NODE_SELECTOR_TERM))],
};

pub(super) static NODE_SELECTOR: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeSelector",
    fields: &[("nodeSelectorTerms", atomic().of(&NODE_SELECTOR_TERM))],
};

pub(super) static NODE_AFFINITY: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeAffinity",
    fields: &[
        (
            "preferredDuringSchedulingIgnoredDuringExecution",
            atomic().of(&PREFERRED_SCHEDULING_TERM),
        ),
        (
            "requiredDuringSchedulingIgnoredDuringExecution",
            nested(&NODE_SELECTOR),
        ),
    ],
};

pub(super) static POD_AFFINITY_TERM: Struct = Struct {
    name: "io.k8s.api.core.v1.PodAffinityTerm",
    fields: &[
        ("labelSelector", nested(&LABEL_SELECTOR)),
        ("matchLabelKeys", atomic()),
        ("mismatchLabelKeys", atomic()),
        ("namespaceSelector", nested(&LABEL_SELECTOR)),
        ("namespaces", atomic()),
    ],
};

pub(super) static WEIGHTED_POD_AFFINITY_TERM: Struct = Struct {
    name: "io.k8s.api.core.v1.WeightedPodAffinityTerm",
    fields: &[("podAffinityTerm", nested(&POD_AFFINITY_TERM))],
};

pub(super) static POD_AFFINITY: Struct = Struct {
    name: "io.k8s.api.core.v1.PodAffinity",
    fields: &[
        (
            "preferredDuringSchedulingIgnoredDuringExecution",
            atomic().of(&WEIGHTED_POD_AFFINITY_TERM),
        ),
        (
            "requiredDuringSchedulingIgnoredDuringExecution",
            atomic().of(&POD_AFFINITY_TERM),
        ),
    ],
};

pub(super) static POD_ANTI_AFFINITY: Struct = Struct {
    name: "io.k8s.api.core.v1.PodAntiAffinity",
    fields: &[
        (
            "preferredDuringSchedulingIgnoredDuringExecution",
            atomic().of(&WEIGHTED_POD_AFFINITY_TERM),
        ),
        (
            "requiredDuringSchedulingIgnoredDuringExecution",
            atomic().of(&POD_AFFINITY_TERM),
        ),
    ],
};

pub(super) static AFFINITY: Struct = Struct {
    name: "io.k8s.api.core.v1.Affinity",
    fields: &[
        ("nodeAffinity", nested(&NODE_AFFINITY)),
        ("podAffinity", nested(&POD_AFFINITY)),
        ("podAntiAffinity", nested(&POD_ANTI_AFFINITY)),
    ],
};

pub(super) static TOPOLOGY_SPREAD_CONSTRAINT: Struct = Struct {
    name: "io.k8s.api.core.v1.TopologySpreadConstraint",
    fields: &[
        ("labelSelector", nested(&LABEL_SELECTOR)),
        ("matchLabelKeys", atomic()),
    ],
};
