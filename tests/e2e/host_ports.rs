//! Ports of the machine that lead to guests, in both forms of the Pod network.

use std::net::TcpListener;

use serde_json::json;

use crate::cluster::{Cluster, Kubectl, eventually, http_get, kubectl_available, sample};

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn guest(kubectl: &Kubectl, name: &str, port: u16) {
    let ports = json!([{"containerPort": 8080, "hostPort": port}]);
    let name_of_pod = json!([{"name": "POD_NAME", "value": name}]);
    let container =
        json!({"name": "c", "image": "hello-http:v1", "ports": ports, "env": name_of_pod});
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [container]},
        })
        .to_string(),
    );
}

/// Waits until a guest of that name answers at a port of the machine.
fn answers(addresses: &[&str], port: u16, name: &str) {
    for address in addresses {
        eventually("an answer at a port of the machine", || {
            match http_get(&format!("{address}:{port}"), "/") {
                Ok((200, body)) if body.contains(&format!("from {name},")) => Ok(()),
                other => Err(format!("{address}:{port}: {other:?}")),
            }
        });
    }
}

fn guests_have_ports(up: impl Fn(&[&str]) -> Cluster, again: impl Fn(Cluster) -> Cluster) {
    let cluster = up(&[]);
    let hello = sample("hello-http");
    cluster.coracle(&[
        "push",
        hello.join("hello-http.wasm").to_str().unwrap(),
        "hello-http:v1",
    ]);
    let kubectl = cluster.kubectl();
    let port = free_port();
    guest(&kubectl, "one", port);
    kubectl.wait_value(&["pod", "one"], ".status.phase", "Running");
    let host = kubectl.value(&["pod", "one"], ".status.hostIP");
    let addresses = ["127.0.0.1", host.as_str()];
    answers(&addresses, port, "one");
    // The next agent has it again.
    let cluster = again(cluster);
    let kubectl = cluster.kubectl();
    answers(&addresses, port, "one");
    // Another Pod waits until it is free, and has it then.
    guest(&kubectl, "two", port);
    eventually("the scheduler says why", || {
        let events = kubectl.ok(&["events", "--for", "pod/two"]);
        let why = "didn't have free ports for the requested pod ports";
        events.contains(why).then_some(()).ok_or(events)
    });
    kubectl.ok(&["delete", "pod", "one", "--timeout=60s"]);
    kubectl.wait_value(&["pod", "two"], ".status.phase", "Running");
    answers(&addresses, port, "two");
    kubectl.ok(&["delete", "pod", "two", "--timeout=60s"]);
    for address in addresses {
        eventually("it is closed", || {
            match http_get(&format!("{address}:{port}"), "/") {
                Err(_) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// The range of Pods that a cluster has, for the one that goes on with its folder.
fn range(cluster: &Cluster) -> String {
    let address = cluster.kubectl().value(&["pod", "one"], ".status.podIP");
    format!("{}.0.0/16", address.rsplitn(3, '.').last().unwrap())
}

#[test]
fn guests_have_ports_of_the_machine() {
    if kubectl_available() {
        guests_have_ports(Cluster::up, |cluster| {
            let range = range(&cluster);
            Cluster::up_in(cluster.kill(), &["--cluster-cidr", &range])
        });
    }
}

#[test]
fn guests_of_a_user_without_rights_have_ports_of_the_machine() {
    if kubectl_available() {
        guests_have_ports(Cluster::up_as_nobody, |cluster| cluster);
    }
}
