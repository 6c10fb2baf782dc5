//! Kinds that make Pods: ReplicationController, StatefulSet, DaemonSet, Job and CronJob; and what
//! they keep beside.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::pod::POD_TEMPLATE_SPEC;
use super::volumes::PERSISTENT_VOLUME_CLAIM_SPEC;
use super::{Struct, atomic, map, nested, set};

pub(super) static REPLICATION_CONTROLLER_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.ReplicationControllerSpec",
    fields: &[("template", nested(&POD_TEMPLATE_SPEC))],
};

pub(super) static REPLICATION_CONTROLLER_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.ReplicationControllerStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static REPLICATION_CONTROLLER: Struct = Struct {
    name: "io.k8s.api.core.v1.ReplicationController",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&REPLICATION_CONTROLLER_SPEC)),
        ("status", nested(&REPLICATION_CONTROLLER_STATUS)),
    ],
};

pub(super) static POD_TEMPLATE: Struct = Struct {
    name: "io.k8s.api.core.v1.PodTemplate",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("template", nested(&POD_TEMPLATE_SPEC)),
    ],
};

pub(super) static VOLUME_HEALTH_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.VolumeHealthStatus",
    fields: &[("healthConditions", map(&["status"]))],
};

pub(super) static PERSISTENT_VOLUME_CLAIM_STATUS: Struct = Struct {
    name: "io.k8s.api.core.v1.PersistentVolumeClaimStatus",
    fields: &[
        ("accessModes", atomic()),
        ("conditions", map(&["type"])),
        ("healthStatus", nested(&VOLUME_HEALTH_STATUS)),
    ],
};

pub(super) static PERSISTENT_VOLUME_CLAIM: Struct = Struct {
    name: "io.k8s.api.core.v1.PersistentVolumeClaim",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&PERSISTENT_VOLUME_CLAIM_SPEC)),
        ("status", nested(&PERSISTENT_VOLUME_CLAIM_STATUS)),
    ],
};

pub(super) static STATEFUL_SET_SPEC: Struct = Struct {
    name: "io.k8s.api.apps.v1.StatefulSetSpec",
    fields: &[
        ("selector", nested(&LABEL_SELECTOR)),
        ("template", nested(&POD_TEMPLATE_SPEC)),
        (
            "volumeClaimTemplates",
            atomic().of(&PERSISTENT_VOLUME_CLAIM),
        ),
    ],
};

pub(super) static STATEFUL_SET_STATUS: Struct = Struct {
    name: "io.k8s.api.apps.v1.StatefulSetStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static STATEFUL_SET: Struct = Struct {
    name: "io.k8s.api.apps.v1.StatefulSet",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&STATEFUL_SET_SPEC)),
        ("status", nested(&STATEFUL_SET_STATUS)),
    ],
};

pub(super) static DAEMON_SET_SPEC: Struct = Struct {
    name: "io.k8s.api.apps.v1.DaemonSetSpec",
    fields: &[
        ("selector", nested(&LABEL_SELECTOR)),
        ("template", nested(&POD_TEMPLATE_SPEC)),
    ],
};

pub(super) static DAEMON_SET_STATUS: Struct = Struct {
    name: "io.k8s.api.apps.v1.DaemonSetStatus",
    fields: &[("conditions", map(&["type"]))],
};

pub(super) static DAEMON_SET: Struct = Struct {
    name: "io.k8s.api.apps.v1.DaemonSet",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&DAEMON_SET_SPEC)),
        ("status", nested(&DAEMON_SET_STATUS)),
    ],
};

pub(super) static CONTROLLER_REVISION: Struct = Struct {
    name: "io.k8s.api.apps.v1.ControllerRevision",
    fields: &[("metadata", nested(&OBJECT_META))],
};

pub(super) static POD_FAILURE_POLICY_ON_EXIT_CODES_REQUIREMENT: Struct = Struct {
    name: "io.k8s.api.batch.v1.PodFailurePolicyOnExitCodesRequirement",
    fields: &[("values", set())],
};

pub(super) static POD_FAILURE_POLICY_RULE: Struct = Struct {
    name: "io.k8s.api.batch.v1.PodFailurePolicyRule",
    fields: &[
        (
            "onExitCodes",
            nested(&POD_FAILURE_POLICY_ON_EXIT_CODES_REQUIREMENT),
        ),
        ("onPodConditions", atomic()),
    ],
};

pub(super) static POD_FAILURE_POLICY: Struct = Struct {
    name: "io.k8s.api.batch.v1.PodFailurePolicy",
    fields: &[("rules", atomic().of(&POD_FAILURE_POLICY_RULE))],
};

pub(super) static WORKLOAD_POD_GROUP_SCHEDULING_CONSTRAINTS: Struct = Struct {
    name: "io.k8s.api.scheduling.v1alpha3.WorkloadPodGroupSchedulingConstraints",
    fields: &[("topology", atomic())],
};

pub(super) static JOB_SCHEDULING_CONFIGURATION: Struct = Struct {
    name: "io.k8s.api.batch.v1.JobSchedulingConfiguration",
    fields: &[
        ("resourceClaims", map(&["name"])),
        (
            "schedulingConstraints",
            nested(&WORKLOAD_POD_GROUP_SCHEDULING_CONSTRAINTS),
        ),
    ],
};

pub(super) static SUCCESS_POLICY: Struct = Struct {
    name: "io.k8s.api.batch.v1.SuccessPolicy",
    fields: &[("rules", atomic())],
};

pub(super) static JOB_SPEC: Struct = Struct {
    name: "io.k8s.api.batch.v1.JobSpec",
    fields: &[
        ("podFailurePolicy", nested(&POD_FAILURE_POLICY)),
        ("scheduling", nested(&JOB_SCHEDULING_CONFIGURATION)),
        ("selector", nested(&LABEL_SELECTOR)),
        ("successPolicy", nested(&SUCCESS_POLICY)),
        ("template", nested(&POD_TEMPLATE_SPEC)),
    ],
};

pub(super) static UNCOUNTED_TERMINATED_PODS: Struct = Struct {
    name: "io.k8s.api.batch.v1.UncountedTerminatedPods",
    fields: &[("failed", set()), ("succeeded", set())],
};

pub(super) static JOB_STATUS: Struct = Struct {
    name: "io.k8s.api.batch.v1.JobStatus",
    fields: &[
        ("conditions", atomic().merged(Some("type"))),
        (
            "uncountedTerminatedPods",
            nested(&UNCOUNTED_TERMINATED_PODS),
        ),
    ],
};

pub(super) static JOB: Struct = Struct {
    name: "io.k8s.api.batch.v1.Job",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&JOB_SPEC)),
        ("status", nested(&JOB_STATUS)),
    ],
};

pub(super) static JOB_TEMPLATE_SPEC: Struct = Struct {
    name: "io.k8s.api.batch.v1.JobTemplateSpec",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&JOB_SPEC)),
    ],
};

pub(super) static CRON_JOB_SPEC: Struct = Struct {
    name: "io.k8s.api.batch.v1.CronJobSpec",
    fields: &[("jobTemplate", nested(&JOB_TEMPLATE_SPEC))],
};

pub(super) static CRON_JOB_STATUS: Struct = Struct {
    name: "io.k8s.api.batch.v1.CronJobStatus",
    fields: &[("active", atomic())],
};

pub(super) static CRON_JOB: Struct = Struct {
    name: "io.k8s.api.batch.v1.CronJob",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&CRON_JOB_SPEC)),
        ("status", nested(&CRON_JOB_STATUS)),
    ],
};
