//! The served kinds other than Pod.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::pod::POD_TEMPLATE_SPEC;
use super::{LEAF, Struct, atomic, map, nested, set};

pub(super) static NAMESPACE_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.NamespaceSpec",
    fields: &[("finalizers", atomic())],
};

pub(super) static NAMESPACE_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.NamespaceStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static NAMESPACE: Struct = Struct {
    name: "io.k8s.api.core.v1.Namespace",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&NAMESPACE_SPEC)),
        ("status", nested(&NAMESPACE_STATUS)),
    ],
};

pub(super) static NODE_POD_PREEMPTION_POLICY: Struct = Struct {
    name: "io.k8s.api.core.v1.NodePodPreemptionPolicy",
    fields: &[("disableResizePreemption", set())],
};

pub(super) static NODE_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeSpec",
    fields: &[
        ("podCIDRs", set().merged(None)),
        ("podPreemptionPolicy", nested(&NODE_POD_PREEMPTION_POLICY)),
        ("taints", atomic()),
    ],
};

pub(super) static CONTAINER_IMAGE: Struct = Struct {
    name: "io.k8s.api.core.v1.ContainerImage",
    fields: &[("names", atomic())],
};

pub(super) static NODE_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeStatus",
    fields: &[
        ("addresses", map(&["type"])),
        ("conditions", map(&["type"])),
        ("declaredFeatures", atomic()),
        ("images", atomic().of(&CONTAINER_IMAGE)),
        ("runtimeHandlers", atomic()),
        ("volumesAttached", atomic()),
        ("volumesInUse", atomic()),
    ],
};

pub(super) static NODE: Struct = Struct {
    name: "io.k8s.api.core.v1.Node",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&NODE_SPEC)),
        ("status", nested(&NODE_STATUS)),
    ],
};

pub(super) static SERVICE_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.ServiceSpec",
    fields: &[
        ("clusterIPs", atomic()),
        ("externalIPs", atomic()),
        ("ipFamilies", atomic()),
        ("loadBalancerSourceRanges", atomic()),
        ("ports", map(&["port", "protocol"])),
    ],
};

pub(super) static LOAD_BALANCER_INGRESS: Struct = Struct {
    name: "io.k8s.api.core.v1.LoadBalancerIngress",
    fields: &[("ports", atomic())],
};

pub(super) static LOAD_BALANCER_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.LoadBalancerStatus",
    fields: &[("ingress", atomic().of(&LOAD_BALANCER_INGRESS))],
};

pub(super) static SERVICE_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.ServiceStatus",
    fields: &[
        ("conditions", map(&["type"])),
        ("loadBalancer", nested(&LOAD_BALANCER_STATUS)),
    ],
};

pub(super) static SERVICE: Struct = Struct {
    name: "io.k8s.api.core.v1.Service",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&SERVICE_SPEC)),
        ("status", nested(&SERVICE_STATUS)),
    ],
};

pub(super) static ENDPOINT_SUBSET: Struct = Struct {
    name: "io.k8s.api.core.v1.EndpointSubset",
    fields: &[
        ("addresses", atomic()),
        ("notReadyAddresses", atomic()),
        ("ports", atomic()),
    ],
};

pub(super) static ENDPOINTS: Struct = Struct {
    name: "io.k8s.api.core.v1.Endpoints",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("subsets", atomic().of(&ENDPOINT_SUBSET)),
    ],
};

pub(super) static ENDPOINT_HINTS: Struct = Struct {
    name: "io.k8s.api.discovery.v1.EndpointHints",
    fields: &[("forNodes", atomic()), ("forZones", atomic())],
};

pub(super) static ENDPOINT: Struct = Struct {
    name: "io.k8s.api.discovery.v1.Endpoint",
    fields: &[("addresses", set()), ("hints", nested(&ENDPOINT_HINTS))],
};

pub(super) static ENDPOINT_SLICE: Struct = Struct {
    name: "io.k8s.api.discovery.v1.EndpointSlice",
    fields: &[
        ("endpoints", atomic().of(&ENDPOINT)),
        ("metadata", nested(&OBJECT_META)),
        ("ports", atomic()),
    ],
};

pub(super) static CONFIG_MAP: Struct = Struct {
    name: "io.k8s.api.core.v1.ConfigMap",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static SECRET: Struct = Struct {
    name: "io.k8s.api.core.v1.Secret",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static SERVICE_ACCOUNT: Struct = Struct {
    name: "io.k8s.api.core.v1.ServiceAccount",
    fields: &[
        ("imagePullSecrets", atomic()),
        ("metadata", nested(&OBJECT_META)),
        ("secrets", map(&["name"])),
    ],
};

pub(super) static EVENT: Struct = Struct {
    name: "io.k8s.api.core.v1.Event",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static EVENTS_EVENT: Struct = Struct {
    name: "io.k8s.api.events.v1.Event",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static LEASE: Struct = Struct {
    name: "io.k8s.api.coordination.v1.Lease",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static REPLICA_SET_SPEC: Struct = Struct {
    name: "io.k8s.api.apps.v1.ReplicaSetSpec",
    fields: &[
        ("selector", nested(&LABEL_SELECTOR)),
        ("template", nested(&POD_TEMPLATE_SPEC)),
    ],
};

pub(super) static REPLICA_SET_STATUS: Struct = Struct {
    name: "io.k8s.api.apps.v1.ReplicaSetStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static REPLICA_SET: Struct = Struct {
    name: "io.k8s.api.apps.v1.ReplicaSet",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&REPLICA_SET_SPEC)),
        ("status", nested(&REPLICA_SET_STATUS)),
    ],
};

pub(super) static DEPLOYMENT_SPEC: Struct = Struct {
    name: "io.k8s.api.apps.v1.DeploymentSpec",
    fields: &[
        ("selector", nested(&LABEL_SELECTOR)),
        ("strategy", nested(&LEAF).retain_keys()),
        ("template", nested(&POD_TEMPLATE_SPEC)),
    ],
};

pub(super) static DEPLOYMENT_STATUS: Struct = Struct {
    name: "io.k8s.api.apps.v1.DeploymentStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static DEPLOYMENT: Struct = Struct {
    name: "io.k8s.api.apps.v1.Deployment",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&DEPLOYMENT_SPEC)),
        ("status", nested(&DEPLOYMENT_STATUS)),
    ],
};

pub(super) static PRIORITY_CLASS: Struct = Struct {
    name: "io.k8s.api.scheduling.v1.PriorityClass",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static SCHEDULING: Struct = Struct {
    name: "io.k8s.api.node.v1.Scheduling",
    fields: &[("tolerations", atomic())],
};

pub(super) static RUNTIME_CLASS: Struct = Struct {
    name: "io.k8s.api.node.v1.RuntimeClass",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("scheduling", nested(&SCHEDULING)),
    ],
};

pub(super) static SCALE: Struct = Struct {
    name: "io.k8s.api.autoscaling.v1.Scale",
    fields: &[("metadata", nested(&OBJECT_META))],
};
