//! What the served kinds say about their lists: how a strategic merge patch treats them, and
//! their list types (atomic, set, map by keys) as the API reference gives them.
//!
//! The tables hold every list, and every object on the way to one; fields that are missing hold
//! no list. A test compares them with the schemas of the types. A kind without a table, which
//! is to say a custom resource, takes no strategic merge patch.

mod container;
mod kinds;
mod limits;
mod meta;
mod networking;
mod placement;
mod pod;
mod storage;
mod volumes;
mod workloads;

use crate::gvk::GroupVersionKind;

/// The fields of a type of object that are or hold lists.
#[derive(Debug)]
pub struct Struct {
    /// The name of the OpenAPI definition.
    pub name: &'static str,
    /// By the name of the field, sorted.
    pub fields: &'static [(&'static str, Field)],
}

/// A field that is a list, or an object that holds one.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The type of the list; `None` for an object.
    pub list: Option<ListType>,
    /// What a strategic merge patch does with a list.
    pub strategy: Strategy,
    /// Whether the patch names the members of the object, or of each item, that stay
    /// (`$retainKeys`).
    pub retain_keys: bool,
    /// The type of the object, or of the items.
    pub inner: &'static Struct,
}

/// What makes the items of a list distinct (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Nothing: the list is one value.
    Atomic,
    /// Their value.
    Set,
    /// The values of these members.
    Map(&'static [&'static str]),
}

/// What a strategic merge patch does with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The list of the patch replaces the one that is there.
    Replace,
    /// Items are merged: objects by the value of this member, scalars by their value.
    Merge(Option<&'static str>),
}

impl Struct {
    /// The table of a served kind.
    pub fn of(kind: &GroupVersionKind) -> Option<&'static Self> {
        Some(match (kind.group.as_ref(), kind.kind.as_ref()) {
            ("", "Namespace") => &kinds::NAMESPACE,
            ("", "Node") => &kinds::NODE,
            ("", "Pod") => &pod::POD,
            ("", "Service") => &kinds::SERVICE,
            ("", "Endpoints") => &kinds::ENDPOINTS,
            ("", "ConfigMap") => &kinds::CONFIG_MAP,
            ("", "Secret") => &kinds::SECRET,
            ("", "ServiceAccount") => &kinds::SERVICE_ACCOUNT,
            ("", "Event") => &kinds::EVENT,
            ("apps", "Deployment") => &kinds::DEPLOYMENT,
            ("apps", "ReplicaSet") => &kinds::REPLICA_SET,
            ("autoscaling", "Scale") => &kinds::SCALE,
            ("coordination.k8s.io", "Lease") => &kinds::LEASE,
            ("discovery.k8s.io", "EndpointSlice") => &kinds::ENDPOINT_SLICE,
            ("events.k8s.io", "Event") => &kinds::EVENTS_EVENT,
            ("node.k8s.io", "RuntimeClass") => &kinds::RUNTIME_CLASS,
            ("scheduling.k8s.io", "PriorityClass") => &kinds::PRIORITY_CLASS,
            ("", "ReplicationController") => &workloads::REPLICATION_CONTROLLER,
            ("", "PodTemplate") => &workloads::POD_TEMPLATE,
            ("apps", "StatefulSet") => &workloads::STATEFUL_SET,
            ("apps", "DaemonSet") => &workloads::DAEMON_SET,
            ("apps", "ControllerRevision") => &workloads::CONTROLLER_REVISION,
            ("batch", "Job") => &workloads::JOB,
            ("batch", "CronJob") => &workloads::CRON_JOB,
            ("", "ComponentStatus") => &limits::COMPONENT_STATUS,
            ("", "LimitRange") => &limits::LIMIT_RANGE,
            ("", "ResourceQuota") => &limits::RESOURCE_QUOTA,
            ("policy", "PodDisruptionBudget") => &limits::POD_DISRUPTION_BUDGET,
            ("", "PersistentVolume") => &storage::PERSISTENT_VOLUME,
            ("", "PersistentVolumeClaim") => &workloads::PERSISTENT_VOLUME_CLAIM,
            ("storage.k8s.io", "StorageClass") => &storage::STORAGE_CLASS,
            ("storage.k8s.io", "VolumeAttachment") => &storage::VOLUME_ATTACHMENT,
            ("storage.k8s.io", "CSIDriver") => &storage::CSI_DRIVER,
            ("storage.k8s.io", "CSINode") => &storage::CSI_NODE,
            ("storage.k8s.io", "CSIStorageCapacity") => &storage::CSI_STORAGE_CAPACITY,
            ("storage.k8s.io", "VolumeAttributesClass") => &storage::VOLUME_ATTRIBUTES_CLASS,
            ("networking.k8s.io", "Ingress") => &networking::INGRESS,
            ("networking.k8s.io", "IngressClass") => &networking::INGRESS_CLASS,
            ("networking.k8s.io", "NetworkPolicy") => &networking::NETWORK_POLICY,
            ("networking.k8s.io", "ServiceCIDR") => &networking::SERVICE_CIDR,
            ("networking.k8s.io", "IPAddress") => &networking::IP_ADDRESS,
            ("autoscaling", "HorizontalPodAutoscaler") if kind.version == "v1" => {
                &limits::AUTOSCALER_V1
            }
            ("autoscaling", "HorizontalPodAutoscaler") => &limits::AUTOSCALER_V2,
            _ => return None,
        })
    }

    /// A field of the type; one that the table lacks holds no list.
    pub fn field(&self, name: &str) -> &Field {
        self.fields
            .iter()
            .find(|(field, _)| *field == name)
            .map_or(&LEAF_FIELD, |(_, field)| field)
    }
}

/// A type that holds no list.
static LEAF: Struct = Struct {
    name: "",
    fields: &[],
};
static LEAF_FIELD: Field = nested(&LEAF);

const fn nested(inner: &'static Struct) -> Field {
    Field {
        list: None,
        strategy: Strategy::Replace,
        retain_keys: false,
        inner,
    }
}

const fn atomic() -> Field {
    Field {
        list: Some(ListType::Atomic),
        ..nested(&LEAF)
    }
}

const fn set() -> Field {
    Field {
        list: Some(ListType::Set),
        ..nested(&LEAF)
    }
}

/// A list of objects with these keys; a patch merges by the first of them.
const fn map(keys: &'static [&'static str]) -> Field {
    Field {
        list: Some(ListType::Map(keys)),
        strategy: Strategy::Merge(Some(keys[0])),
        ..nested(&LEAF)
    }
}

impl Field {
    const fn of(mut self, inner: &'static Struct) -> Self {
        self.inner = inner;
        self
    }

    const fn merged(mut self, key: Option<&'static str>) -> Self {
        self.strategy = Strategy::Merge(key);
        self
    }

    const fn replaced(mut self) -> Self {
        self.strategy = Strategy::Replace;
        self
    }

    const fn retain_keys(mut self) -> Self {
        self.retain_keys = true;
        self
    }
}

#[cfg(test)]
#[path = "strategic_schema_tests.rs"]
mod tests;
