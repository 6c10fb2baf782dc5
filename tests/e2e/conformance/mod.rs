//! Behaviours of Kubernetes' conformance that take a cluster of the binary, named as those of the
//! API server's tests in `tests/api/conformance`. Images are WebAssembly, and busybox as root: such
//! tests share a cluster ([`shared`]).

mod dns;
mod empty_dir;
mod endpoints;
mod environment;
mod ephemeral_containers;
mod expansion;
mod file_modes;
mod hooks;
mod hostport;
mod kubectl;
mod outputs;
mod pod_resize;
mod pods;
mod probes;
mod proxy;
mod runtime;
mod scheduling;
mod security;
mod services;
mod shared;
mod subpath;
mod taints;
mod updates;
mod volumes;
mod websockets;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Kubectl, kubectl_available, sample};

/// A cluster whose registry has some of the samples' images, where there is a kubectl.
fn cluster_with(images: &[&str]) -> Option<(Cluster, Kubectl)> {
    let named = images.iter().map(|image| (*image, format!("{image}:v1")));
    cluster_with_named(named.collect())
}

/// The same with names of one's own.
fn cluster_with_named(images: Vec<(&str, String)>) -> Option<(Cluster, Kubectl)> {
    if !kubectl_available() {
        return None;
    }
    let cluster = Cluster::up(&[]);
    for (image, name) in images {
        let folder = if image == "exit3" { "faults" } else { image };
        let guest = sample(folder).join(format!("{image}.wasm"));
        cluster.coracle(&["push", guest.to_str().unwrap(), &name]);
    }
    let kubectl = cluster.kubectl();
    kubectl.wait_value(&["serviceaccount", "default"], ".metadata.name", "default");
    Some((cluster, kubectl))
}

/// What one container says of what it is given: with this of a container and this of a Pod, it shows
/// its files or its environment, and ends.
#[track_caller]
fn shown(kubectl: &Kubectl, mut container: Value, mut spec: Value) -> String {
    container["name"] = json!("test");
    container["image"] = json!("inspect:v1");
    spec["restartPolicy"] = json!("Never");
    spec["containers"] = json!([container]);
    let metadata = json!({"name": "inspect", "labels": {"key1": "value1"}});
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": metadata, "spec": spec}),
    );
    kubectl.wait_value(&["pod", "inspect"], ".status.phase", "Succeeded");
    kubectl.ok(&["logs", "inspect"])
}

/// Makes an object of version v1.
#[track_caller]
fn create(kubectl: &Kubectl, object: &Value) {
    let mut object = object.clone();
    object["apiVersion"] = json!("v1");
    kubectl.apply(&object.to_string());
}

#[track_caller]
fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|said| said == *line), "{line}: {text}");
    }
}

/// A quantity of a node, as the whole number that a container is told.
fn whole(quantity: &str) -> u64 {
    let (number, factor) = match quantity.strip_suffix("Ki") {
        Some(number) => (number, 1024),
        None => (quantity, 1),
    };
    match number.strip_suffix('m') {
        Some(milli) => milli.parse::<u64>().unwrap().div_ceil(1000),
        None => number.parse::<u64>().unwrap() * factor,
    }
}
