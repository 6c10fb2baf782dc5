//! What a Service's policies and labels do to a port of the node.

use serde_json::{Value, json};

use crate::cluster::{Cluster, Kubectl, eventually, http_get, kubectl_available, sample};

/// A cluster with a guest that serves HTTP at its port 8080.
fn cluster_with_guest() -> Option<(Cluster, Kubectl)> {
    if !kubectl_available() {
        return None;
    }
    let cluster = Cluster::up(&[]);
    let hello = sample("hello-http").join("hello-http.wasm");
    cluster.coracle(&["push", hello.to_str().unwrap(), "hello-http:v1"]);
    let kubectl = cluster.kubectl();
    make(
        &kubectl,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "one", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "hello-http:v1"}]},
        }),
    );
    Some((cluster, kubectl))
}

fn make(kubectl: &Kubectl, object: Value) {
    kubectl.apply(&object.to_string());
}

/// Waits until the node's port is served, or is not.
#[track_caller]
fn is_served(port: u16, wanted: bool) {
    eventually("a port of the node", || {
        let answer = http_get(&format!("127.0.0.1:{port}"), "/");
        let is_as_wanted = match &answer {
            Ok((code, _)) => wanted && *code == 200,
            Err(_) => !wanted,
        };
        is_as_wanted
            .then_some(())
            .ok_or_else(|| format!("{answer:?}"))
    });
}

#[test]
fn a_service_that_is_another_proxys_has_no_port_here() {
    let Some((_cluster, kubectl)) = cluster_with_guest() else {
        return;
    };
    make(
        &kubectl,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {
                "type": "NodePort", "selector": {"app": "web"},
                "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        }),
    );
    let port = kubectl.node_port("web");
    is_served(port, true);
    let label = "service.kubernetes.io/service-proxy-name";
    kubectl.ok(&["label", "service", "web", &format!("{label}=other")]);
    is_served(port, false);
    kubectl.ok(&["label", "service", "web", &format!("{label}-")]);
    is_served(port, true);
}

#[test]
fn endpoints_are_followed_unless_their_slice_is_headless() {
    let Some((_cluster, kubectl)) = cluster_with_guest() else {
        return;
    };
    make(
        &kubectl,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "by-hand"},
            "spec": {"type": "NodePort", "ports": [{"name": "http", "port": 80}]},
        }),
    );
    kubectl.ok(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/one"]);
    let address = kubectl.value(&["pod", "one"], ".status.podIP");
    make(
        &kubectl,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "by-hand-1", "labels": {"kubernetes.io/service-name": "by-hand"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        }),
    );
    let port = kubectl.node_port("by-hand");
    is_served(port, true);
    let label = "service.kubernetes.io/headless";
    kubectl.ok(&["label", "endpointslice", "by-hand-1", &format!("{label}=")]);
    is_served(port, false);
    kubectl.ok(&["label", "endpointslice", "by-hand-1", &format!("{label}-")]);
    is_served(port, true);
}
