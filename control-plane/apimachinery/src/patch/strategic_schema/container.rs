//! Containers, as pods declare them.

use super::{Field, Struct, atomic, map, nested, set};

pub(super) static EXEC_ACTION: Struct = Struct {
    name: "io.k8s.api.core.v1.ExecAction",
    fields: &[("command", atomic())],
};

pub(super) static HTTP_GET_ACTION: Struct = Struct {
    name: "io.k8s.api.core.v1.HTTPGetAction",
    fields: &[("httpHeaders", atomic())],
};

pub(super) static LIFECYCLE_HANDLER: Struct = Struct {
    name: "io.k8s.api.core.v1.LifecycleHandler",
    fields: &[
        ("exec", nested(&EXEC_ACTION)),
        ("httpGet", nested(&HTTP_GET_ACTION)),
    ],
};

pub(super) static LIFECYCLE: Struct = Struct {
    name: "io.k8s.api.core.v1.Lifecycle",
    fields: &[
        ("postStart", nested(&LIFECYCLE_HANDLER)),
        ("preStop", nested(&LIFECYCLE_HANDLER)),
    ],
};

pub(super) static PROBE: Struct = Struct {
    name: "io.k8s.api.core.v1.Probe",
    fields: &[
        ("exec", nested(&EXEC_ACTION)),
        ("httpGet", nested(&HTTP_GET_ACTION)),
    ],
};

pub(super) static RESOURCE_REQUIREMENTS: Struct = Struct {
    name: "io.k8s.api.core.v1.ResourceRequirements",
    fields: &[("claims", map(&["name"]).replaced())],
};

pub(super) static CONTAINER_RESTART_RULE_ON_EXIT_CODES: Struct = Struct {
    name: "io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes",
    fields: &[("values", set())],
};

pub(super) static CONTAINER_RESTART_RULE: Struct = Struct {
    name: "io.k8s.api.core.v1.ContainerRestartRule",
    fields: &[("exitCodes", nested(&CONTAINER_RESTART_RULE_ON_EXIT_CODES))],
};

pub(super) static CAPABILITIES: Struct = Struct {
    name: "io.k8s.api.core.v1.Capabilities",
    fields: &[("add", atomic()), ("drop", atomic())],
};

pub(super) static SECURITY_CONTEXT: Struct = Struct {
    name: "io.k8s.api.core.v1.SecurityContext",
    fields: &[("capabilities", nested(&CAPABILITIES))],
};

pub(super) static VOLUME_MOUNT: Struct = Struct {
    name: "io.k8s.api.core.v1.VolumeMount",
    fields: &[("bindMountOptions", set())],
};

pub(super) static CONTAINER: Struct = Struct {
    name: "io.k8s.api.core.v1.Container",
    fields: CONTAINER_FIELDS,
};

/// What ordinary and ephemeral containers have in common.
const CONTAINER_FIELDS: &[(&str, Field)] = &[
    ("args", atomic()),
    ("command", atomic()),
    ("env", map(&["name"])),
    ("envFrom", atomic()),
    ("lifecycle", nested(&LIFECYCLE)),
    ("livenessProbe", nested(&PROBE)),
    ("ports", map(&["containerPort", "protocol"])),
    ("readinessProbe", nested(&PROBE)),
    ("resizePolicy", atomic()),
    ("resources", nested(&RESOURCE_REQUIREMENTS)),
    ("restartPolicyRules", atomic().of(&CONTAINER_RESTART_RULE)),
    ("securityContext", nested(&SECURITY_CONTEXT)),
    ("startupProbe", nested(&PROBE)),
    ("volumeDevices", map(&["devicePath"])),
    ("volumeMounts", map(&["mountPath"]).of(&VOLUME_MOUNT)),
];

pub(super) static EPHEMERAL_CONTAINER: Struct = Struct {
    name: "io.k8s.api.core.v1.EphemeralContainer",
    fields: CONTAINER_FIELDS,
};
