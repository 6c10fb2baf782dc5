//! Pods, and the templates of pods.

use super::container::{CONTAINER, EPHEMERAL_CONTAINER, RESOURCE_REQUIREMENTS};
use super::meta::OBJECT_META;
use super::placement::{AFFINITY, TOPOLOGY_SPREAD_CONSTRAINT};
use super::volumes::VOLUME;
use super::{Struct, atomic, map, nested, set};

pub(super) static POD_DNS_CONFIG: Struct = Struct {
    name: "io.k8s.api.core.v1.PodDNSConfig",
    fields: &[
        ("nameservers", atomic()),
        ("options", atomic()),
        ("searches", atomic()),
    ],
};

pub(super) static HOST_ALIAS: Struct = Struct {
    name: "io.k8s.api.core.v1.HostAlias",
    fields: &[("hostnames", atomic())],
};

pub(super) static POD_SECURITY_CONTEXT: Struct = Struct {
    name: "io.k8s.api.core.v1.PodSecurityContext",
    fields: &[("supplementalGroups", atomic()), ("sysctls", atomic())],
};

pub(super) static POD_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.PodSpec",
    fields: &[
        ("affinity", nested(&AFFINITY)),
        ("containers", map(&["name"]).of(&CONTAINER)),
        ("dnsConfig", nested(&POD_DNS_CONFIG)),
        (
            "ephemeralContainers",
            map(&["name"]).of(&EPHEMERAL_CONTAINER),
        ),
        ("evictionResponders", map(&["name"])),
        ("hostAliases", map(&["ip"]).of(&HOST_ALIAS)),
        ("imagePullSecrets", map(&["name"])),
        ("initContainers", map(&["name"]).of(&CONTAINER)),
        ("readinessGates", atomic()),
        ("resourceClaims", map(&["name"]).retain_keys()),
        ("resources", nested(&RESOURCE_REQUIREMENTS)),
        ("schedulingGates", map(&["name"])),
        ("securityContext", nested(&POD_SECURITY_CONTEXT)),
        ("tolerations", atomic()),
        (
            "topologySpreadConstraints",
            map(&["topologyKey", "whenUnsatisfiable"]).of(&TOPOLOGY_SPREAD_CONSTRAINT),
        ),
        ("volumes", map(&["name"]).of(&VOLUME).retain_keys()),
    ],
};

pub(super) static RESOURCE_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.ResourceStatus",
    fields: &[("resources", map(&["resourceID"]).replaced())],
};

pub(super) static LINUX_CONTAINER_USER: Struct = Struct {
    name: "io.k8s.api.core.v1.LinuxContainerUser",
    fields: &[("supplementalGroups", atomic())],
};

pub(super) static CONTAINER_USER: Struct = Struct {
    name: "io.k8s.api.core.v1.ContainerUser",
    fields: &[("linux", nested(&LINUX_CONTAINER_USER))],
};

pub(super) static CONTAINER_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.ContainerStatus",
    fields: &[
        (
            "allocatedResourcesStatus",
            map(&["name"]).of(&RESOURCE_STATUS),
        ),
        ("resources", nested(&RESOURCE_REQUIREMENTS)),
        ("user", nested(&CONTAINER_USER)),
        ("volumeMounts", map(&["mountPath"])),
    ],
};

pub(super) static POD_EXTENDED_RESOURCE_CLAIM_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.PodExtendedResourceClaimStatus",
    fields: &[("requestMappings", atomic())],
};

pub(super) static NODE_ALLOCATABLE_RESOURCE_CLAIM_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus",
    fields: &[
        ("containers", set()),
        ("mapping", map(&["name"])),
        ("overhead", map(&["name"])),
    ],
};

pub(super) static POD_VOLUME_HEALTH: Struct = Struct {
    name: "io.k8s.api.core.v1.PodVolumeHealth",
    fields: &[("healthConditions", map(&["status", "reason"]))],
};

pub(super) static POD_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.PodStatus",
    fields: &[
        ("conditions", map(&["type"])),
        ("containerStatuses", atomic().of(&CONTAINER_STATUS)),
        ("ephemeralContainerStatuses", atomic().of(&CONTAINER_STATUS)),
        (
            "extendedResourceClaimStatus",
            nested(&POD_EXTENDED_RESOURCE_CLAIM_STATUS),
        ),
        ("hostIPs", atomic().merged(Some("ip"))),
        ("initContainerStatuses", atomic().of(&CONTAINER_STATUS)),
        (
            "nodeAllocatableResourceClaimStatuses",
            map(&["resourceClaimName"]).of(&NODE_ALLOCATABLE_RESOURCE_CLAIM_STATUS),
        ),
        ("podIPs", map(&["ip"])),
        ("resourceClaimStatuses", map(&["name"]).retain_keys()),
        ("resources", nested(&RESOURCE_REQUIREMENTS)),
        (
            "volumeHealth",
            map(&["name"]).of(&POD_VOLUME_HEALTH).replaced(),
        ),
    ],
};

pub(super) static POD: Struct = Struct {
    name: "io.k8s.api.core.v1.Pod",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&POD_SPEC)),
        ("status", nested(&POD_STATUS)),
    ],
};

pub(super) static POD_TEMPLATE_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.PodTemplateSpec",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&POD_SPEC)),
    ],
};
