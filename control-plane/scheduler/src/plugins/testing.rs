//! Nodes and Pods for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::cache::{Cache, NodeInfo, PodInfo};

/// A node of four CPUs, 8 GiB and ten Pods, changed by `change`.
pub(crate) fn node(name: &str, change: Value) -> Node {
    let amounts = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {}, "status": {"allocatable": amounts}});
    serde_json::from_value(changed(node, &change)).unwrap()
}

/// A Pod whose uid is its name, changed by `change`.
pub(crate) fn pod(name: &str, change: Value) -> Pod {
    let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    serde_json::from_value(changed(pod, &change)).unwrap()
}

pub(crate) fn pod_info(name: &str, change: Value) -> PodInfo {
    PodInfo::new(Arc::new(pod(name, change)))
}

/// A node's information with these Pods on it.
pub(crate) fn node_info(node: Node, pods: &[PodInfo]) -> NodeInfo {
    let mut cache = Cache::default();
    let name = node.metadata.name.clone().unwrap();
    cache.set_node(Arc::new(node));
    pods.iter().for_each(|pod| cache.assume(pod, &name));
    cache.nodes()[0].clone()
}

/// A Pod that requests so much CPU and memory.
pub(crate) fn asking(cpu: &str, memory: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
}

fn changed(mut target: Value, change: &Value) -> Value {
    match (&mut target, change) {
        (Value::Object(fields), Value::Object(change)) => {
            for (key, value) in change {
                let field = fields.remove(key).unwrap_or(Value::Null);
                fields.insert(key.clone(), changed(field, value));
            }
            target
        }
        _ => change.clone(),
    }
}
