//! Limits, quotas, budgets and autoscalers.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::{Struct, atomic, map, nested};

pub(super) static COMPONENT_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.ComponentStatus",
    fields: &[
        ("conditions", map(&["type"])),
        ("metadata", nested(&OBJECT_META)),
    ],
};

pub(super) static LIMIT_RANGE_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.LimitRangeSpec",
    fields: &[("limits", atomic())],
};

pub(super) static LIMIT_RANGE: Struct = Struct {
    name: "io.k8s.api.core.v1.LimitRange",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&LIMIT_RANGE_SPEC)),
    ],
};

pub(super) static SCOPED_RESOURCE_SELECTOR_REQUIREMENT: Struct = Struct {
    name: "io.k8s.api.core.v1.ScopedResourceSelectorRequirement",
    fields: &[("values", atomic())],
};

pub(super) static SCOPE_SELECTOR: Struct = Struct {
    name: "io.k8s.api.core.v1.ScopeSelector",
    fields: &[(
        "matchExpressions",
        atomic().of(&SCOPED_RESOURCE_SELECTOR_REQUIREMENT),
    )],
};

pub(super) static RESOURCE_QUOTA_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.ResourceQuotaSpec",
    fields: &[
        ("scopeSelector", nested(&SCOPE_SELECTOR)),
        ("scopes", atomic()),
    ],
};

pub(super) static RESOURCE_QUOTA: Struct = Struct {
    name: "io.k8s.api.core.v1.ResourceQuota",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&RESOURCE_QUOTA_SPEC)),
    ],
};

pub(super) static POD_DISRUPTION_BUDGET_SPEC: Struct = Struct {
    name: "io.k8s.api.policy.v1.PodDisruptionBudgetSpec",
    fields: &[("selector", nested(&LABEL_SELECTOR))],
};

pub(super) static POD_DISRUPTION_BUDGET_STATUS: Struct = Struct {
    name: "io.k8s.api.policy.v1.PodDisruptionBudgetStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static POD_DISRUPTION_BUDGET: Struct = Struct {
    name: "io.k8s.api.policy.v1.PodDisruptionBudget",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&POD_DISRUPTION_BUDGET_SPEC)),
        ("status", nested(&POD_DISRUPTION_BUDGET_STATUS)),
    ],
};

pub(super) static AUTOSCALER_V1: Struct = Struct {
    name: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static HPA_SCALING_RULES: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.HPAScalingRules",
    fields: &[("policies", atomic())],
};

pub(super) static HORIZONTAL_POD_AUTOSCALER_BEHAVIOR: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior",
    fields: &[
        ("scaleDown", nested(&HPA_SCALING_RULES)),
        ("scaleUp", nested(&HPA_SCALING_RULES)),
    ],
};

pub(super) static METRIC_IDENTIFIER: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.MetricIdentifier",
    fields: &[("selector", nested(&LABEL_SELECTOR))],
};

pub(super) static EXTERNAL_METRIC_SOURCE: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.ExternalMetricSource",
    fields: &[("metric", nested(&METRIC_IDENTIFIER))],
};

pub(super) static OBJECT_METRIC_SOURCE: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.ObjectMetricSource",
    fields: &[("metric", nested(&METRIC_IDENTIFIER))],
};

pub(super) static PODS_METRIC_SOURCE: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.PodsMetricSource",
    fields: &[("metric", nested(&METRIC_IDENTIFIER))],
};

pub(super) static METRIC_SPEC: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.MetricSpec",
    fields: &[
        ("external", nested(&EXTERNAL_METRIC_SOURCE)),
        ("object", nested(&OBJECT_METRIC_SOURCE)),
        ("pods", nested(&PODS_METRIC_SOURCE)),
    ],
};

pub(super) static HORIZONTAL_POD_AUTOSCALER_SPEC: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerSpec",
    fields: &[
        ("behavior", nested(&HORIZONTAL_POD_AUTOSCALER_BEHAVIOR)),
        ("metrics", atomic().of(&METRIC_SPEC)),
    ],
};

pub(super) static EXTERNAL_METRIC_STATUS: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.ExternalMetricStatus",
    fields: &[("metric", nested(&METRIC_IDENTIFIER))],
};

pub(super) static OBJECT_METRIC_STATUS: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.ObjectMetricStatus",
    fields: &[("metric", nested(&METRIC_IDENTIFIER))],
};

pub(super) static PODS_METRIC_STATUS: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.PodsMetricStatus",
    fields: &[("metric", nested(&METRIC_IDENTIFIER))],
};

pub(super) static METRIC_STATUS: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.MetricStatus",
    fields: &[
        ("external", nested(&EXTERNAL_METRIC_STATUS)),
        ("object", nested(&OBJECT_METRIC_STATUS)),
        ("pods", nested(&PODS_METRIC_STATUS)),
    ],
};

pub(super) static HORIZONTAL_POD_AUTOSCALER_STATUS: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus",
    fields: &[
        ("conditions", map(&["type"])),
        ("currentMetrics", atomic().of(&METRIC_STATUS)),
    ],
};

pub(super) static AUTOSCALER_V2: Struct = Struct {
    name: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&HORIZONTAL_POD_AUTOSCALER_SPEC)),
        ("status", nested(&HORIZONTAL_POD_AUTOSCALER_STATUS)),
    ],
};
