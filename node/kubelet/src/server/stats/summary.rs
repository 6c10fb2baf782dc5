//! The summary API of the kubelet (`stats/v1alpha1`).

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{ContainerUse, Measured, NodeUse, PodUse, Use};
use crate::pod;

pub(super) fn summary(measured: &Measured) -> Value {
    let pods: Vec<Value> = measured.pods.iter().map(of_pod).collect();
    json!({"node": of_node(&measured.node), "pods": pods})
}

fn of_node(node: &NodeUse) -> Value {
    let mut value = json!({
        "nodeName": node.name,
        "startTime": node.booted.map(pod::api_time),
    });
    if let Some(used) = &node.used {
        value["cpu"] = cpu(used);
        value["memory"] = memory(used);
        value["memory"]["usageBytes"] = node.memory_in_use.into();
        value["memory"]["availableBytes"] = node.memory_available.into();
    }
    if let Some(disk) = &node.disk {
        let of_disk = json!({
            "time": pod::api_time(disk.at),
            "availableBytes": disk.available,
            "capacityBytes": disk.capacity,
            "usedBytes": disk.used,
            "inodesFree": disk.inodes_free,
            "inodes": disk.inodes,
            "inodesUsed": disk.inodes - disk.inodes_free,
        });
        // Images are on the same disk.
        value["runtime"] = json!({"imageFs": of_disk});
        value["fs"] = of_disk;
    }
    value
}

fn of_pod(of: &PodUse) -> Value {
    let containers: Vec<Value> = of.containers.iter().map(of_container).collect();
    let mut value = json!({
        "podRef": {
            "name": pod::name(&of.pod),
            "namespace": pod::namespace(&of.pod),
            "uid": pod::uid(&of.pod),
        },
        "startTime": pod::status(&of.pod).start_time,
        "containers": containers,
    });
    if let Some(used) = of.used() {
        value["cpu"] = cpu(&used);
        value["memory"] = memory(&used);
    }
    value
}

fn of_container(of: &ContainerUse) -> Value {
    json!({
        "name": of.name,
        "startTime": of.started.map(pod::api_time),
        "cpu": cpu(&of.used),
        "memory": memory(&of.used),
    })
}

/// With fractions of seconds, which rates take.
fn cpu(used: &Use) -> Value {
    let time = Timestamp::try_from(used.at).unwrap_or(Timestamp::UNIX_EPOCH);
    json!({"time": time, "usageCoreNanoSeconds": nanoseconds(used.cpu)})
}

fn memory(used: &Use) -> Value {
    json!({
        "time": pod::api_time(used.at),
        "workingSetBytes": used.memory_bytes,
        "usageBytes": used.memory_bytes,
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
