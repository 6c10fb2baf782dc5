//! PersistentVolumes, claims, and the kinds of storage.k8s.io.

use super::meta::{LABEL_SELECTOR, OBJECT_META};
use super::placement::NODE_SELECTOR;
use super::volumes::FC_VOLUME_SOURCE;
use super::{Struct, atomic, map, nested, set};

pub(super) static CEPH_FS_PERSISTENT_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.CephFSPersistentVolumeSource",
    fields: &[("monitors", atomic())],
};

pub(super) static ISCSI_PERSISTENT_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.ISCSIPersistentVolumeSource",
    fields: &[("portals", atomic())],
};

pub(super) static VOLUME_NODE_AFFINITY: Struct = Struct {
    name: "io.k8s.api.core.v1.VolumeNodeAffinity",
    fields: &[("required", nested(&NODE_SELECTOR))],
};

pub(super) static RBD_PERSISTENT_VOLUME_SOURCE: Struct = Struct {
    name: "io.k8s.api.core.v1.RBDPersistentVolumeSource",
    fields: &[("monitors", atomic())],
};

pub(super) static PERSISTENT_VOLUME_SPEC: Struct = Struct {
    name: "io.k8s.api.core.v1.PersistentVolumeSpec",
    fields: &[
        ("accessModes", atomic()),
        ("cephfs", nested(&CEPH_FS_PERSISTENT_VOLUME_SOURCE)),
        ("fc", nested(&FC_VOLUME_SOURCE)),
        ("iscsi", nested(&ISCSI_PERSISTENT_VOLUME_SOURCE)),
        ("mountOptions", atomic()),
        ("nodeAffinity", nested(&VOLUME_NODE_AFFINITY)),
        ("rbd", nested(&RBD_PERSISTENT_VOLUME_SOURCE)),
    ],
};

pub(super) static PERSISTENT_VOLUME: Struct = Struct {
    name: "io.k8s.api.core.v1.PersistentVolume",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&PERSISTENT_VOLUME_SPEC)),
    ],
};

pub(super) static TOPOLOGY_SELECTOR_LABEL_REQUIREMENT: Struct = Struct {
    name: "io.k8s.api.core.v1.TopologySelectorLabelRequirement",
    fields: &[("values", atomic())],
};

pub(super) static TOPOLOGY_SELECTOR_TERM: Struct = Struct {
    name: "io.k8s.api.core.v1.TopologySelectorTerm",
    fields: &[(
        "matchLabelExpressions",
        atomic().of(&TOPOLOGY_SELECTOR_LABEL_REQUIREMENT),
    )],
};

pub(super) static STORAGE_CLASS: Struct = Struct {
    name: "io.k8s.api.storage.v1.StorageClass",
    fields: &[
        ("allowedTopologies", atomic().of(&TOPOLOGY_SELECTOR_TERM)),
        ("metadata", nested(&OBJECT_META)),
        ("mountOptions", atomic()),
    ],
};

pub(super) static VOLUME_ATTACHMENT_SOURCE: Struct = Struct {
    name: "io.k8s.api.storage.v1.VolumeAttachmentSource",
    fields: &[("inlineVolumeSpec", nested(&PERSISTENT_VOLUME_SPEC))],
};

pub(super) static VOLUME_ATTACHMENT_SPEC: Struct = Struct {
    name: "io.k8s.api.storage.v1.VolumeAttachmentSpec",
    fields: &[("source", nested(&VOLUME_ATTACHMENT_SOURCE))],
};

pub(super) static VOLUME_ATTACHMENT: Struct = Struct {
    name: "io.k8s.api.storage.v1.VolumeAttachment",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&VOLUME_ATTACHMENT_SPEC)),
    ],
};

pub(super) static CSI_DRIVER_SPEC: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSIDriverSpec",
    fields: &[("tokenRequests", atomic()), ("volumeLifecycleModes", set())],
};

pub(super) static CSI_DRIVER: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSIDriver",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&CSI_DRIVER_SPEC)),
    ],
};

pub(super) static CSI_NODE_DRIVER: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSINodeDriver",
    fields: &[("topologyKeys", atomic())],
};

pub(super) static CSI_NODE_SPEC: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSINodeSpec",
    fields: &[("drivers", map(&["name"]).of(&CSI_NODE_DRIVER))],
};

pub(super) static STORAGE_HEALTH: Struct = Struct {
    name: "io.k8s.api.storage.v1.StorageHealth",
    fields: &[("healthConditions", atomic())],
};

pub(super) static CSI_NODE_STATUS: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSINodeStatus",
    fields: &[("storageHealth", map(&["name"]).of(&STORAGE_HEALTH))],
};

pub(super) static CSI_NODE: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSINode",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("spec", nested(&CSI_NODE_SPEC)),
        ("status", nested(&CSI_NODE_STATUS)),
    ],
};

pub(super) static CSI_STORAGE_CAPACITY: Struct = Struct {
    name: "io.k8s.api.storage.v1.CSIStorageCapacity",
    fields: &[
        ("metadata", nested(&OBJECT_META)),
        ("nodeTopology", nested(&LABEL_SELECTOR)),
    ],
};

pub(super) static VOLUME_ATTRIBUTES_CLASS: Struct = Struct {
    name: "io.k8s.api.storage.v1.VolumeAttributesClass",
    fields: &[("metadata", nested(&OBJECT_META))],
};
