//! Volumes of pods.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::{Struct, atomic, nested};

pub(super) static CEPH_FS_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.CephFSVolumeSource",
    fields: &[("monitors", atomic())],
};

pub(super) static CONFIG_MAP_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.ConfigMapVolumeSource",
    fields: &[("items", atomic())],
};

pub(super) static DOWNWARD_API_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.DownwardAPIVolumeSource",
    fields: &[("items", atomic())],
};

pub(super) static PERSISTENT_VOLUME_CLAIM_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.PersistentVolumeClaimSpec",
    fields: &[
        ("accessModes", atomic()),
        ("selector", nested(&LABEL_SELECTOR)),
    ],
};

pub(super) static PERSISTENT_VOLUME_CLAIM_TEMPLATE: Struct = Struct {
    name: "io.k8s.api.core.v1.PersistentVolumeClaimTemplate",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&PERSISTENT_VOLUME_CLAIM_SPEC)),
    ],
};

pub(super) static EPHEMERAL_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.EphemeralVolumeSource",
    fields: &[(
        "volumeClaimTemplate",
        nested(&PERSISTENT_VOLUME_CLAIM_TEMPLATE),
    )],
};

pub(super) static FC_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.FCVolumeSource",
    fields: &[("targetWWNs", atomic()), ("wwids", atomic())],
};

pub(super) static ISCSI_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.ISCSIVolumeSource",
    fields: &[("portals", atomic())],
};

pub(super) static CLUSTER_TRUST_BUNDLE_PROJECTION: Struct = Struct {
    name: "io.k8s.api.core.v1.ClusterTrustBundleProjection",
    fields: &[("labelSelector", nested(&LABEL_SELECTOR))],
};

pub(super) static CONFIG_MAP_PROJECTION: Struct = Struct {
    name: "io.k8s.api.core.v1.ConfigMapProjection",
    fields: &[("items", atomic())],
};

pub(super) static DOWNWARD_API_PROJECTION: Struct = Struct {
    name: "io.k8s.api.core.v1.DownwardAPIProjection",
    fields: &[("items", atomic())],
};

pub(super) static SECRET_PROJECTION: Struct = Struct {
    name: "io.k8s.api.core.v1.SecretProjection",
    fields: &[("items", atomic())],
};

pub(super) static VOLUME_PROJECTION: Struct = Struct {
    name: "io.k8s.api.core.v1.VolumeProjection",
    fields: &[
        (
            "clusterTrustBundle",
            nested(&CLUSTER_TRUST_BUNDLE_PROJECTION),
        ),
        ("configMap", nested(&CONFIG_MAP_PROJECTION)),
        ("downwardAPI", nested(&DOWNWARD_API_PROJECTION)),
        ("secret", nested(&SECRET_PROJECTION)),
    ],
};

pub(super) static PROJECTED_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.ProjectedVolumeSource",
    fields: &[("sources", atomic().of(&VOLUME_PROJECTION))],
};

pub(super) static RBD_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.RBDVolumeSource",
    fields: &[("monitors", atomic())],
};

pub(super) static SECRET_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.SecretVolumeSource",
    fields: &[("items", atomic())],
};

pub(super) static VOLUME: Struct = Struct {
    name: "io.k8s.api.core.v1.Volume",
    fields: &[
        ("cephfs", nested(&CEPH_FS_VOLUME_SOURCE)),
        ("configMap", nested(&CONFIG_MAP_VOLUME_SOURCE)),
        ("downwardAPI", nested(&DOWNWARD_API_VOLUME_SOURCE)),
        ("ephemeral", nested(&EPHEMERAL_VOLUME_SOURCE)),
        ("fc", nested(&FC_VOLUME_SOURCE)),
        ("iscsi", nested(&ISCSI_VOLUME_SOURCE)),
        ("projected", nested(&PROJECTED_VOLUME_SOURCE)),
        ("rbd", nested(&RBD_VOLUME_SOURCE)),
        ("secret", nested(&SECRET_VOLUME_SOURCE)),
    ],
};
