//! test/e2e/network/hostport.go.

use serde_json::json;

use super::create;
use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Kubectl, eventually};
use crate::host_ports::free_port;

const SERVE: &str = "mkdir /www && echo $NAME > /www/hostname && exec httpd -f -p 8080 -h /www";

/// Makes a Pod that serves its name, at a port of its node.
fn serving(kubectl: &Kubectl, name: &str, ip: &str, port: u16, protocol: &str) {
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    let port = json!({"containerPort": 8080, "hostPort": port, "hostIP": ip, "protocol": protocol});
    let container = json!({
        "name": "serves", "image": "busybox:v1", "command": ["sh", "-c", SERVE],
        "env": [{"name": "NAME", "value": name}], "ports": [port],
        "readinessProbe": {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1},
    });
    let spec = json!({
        "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container],
    });
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": {"name": name}, "spec": spec}),
    );
    kubectl.ok(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        &format!("pod/{name}"),
    ]);
}

/// Must: Pods with one port of a node, but other addresses of it or another protocol, are ready on
/// the same node.
/// Must: from the node each is reached at its address and by its protocol, and no other.
#[test]
fn hostport_validates_that_there_is_no_conflict_between_pods_with_same_hostport_but_different_hostip_and_protocol()
 {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let port = free_port();
    let client = json!({"name": "calls", "image": "busybox:v1", "command": ["sleep", "1000"]});
    let spec = json!({
        "hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [client],
    });
    create(
        &kubectl,
        &json!({"kind": "Pod", "metadata": {"name": "client"}, "spec": spec}),
    );
    kubectl.wait_value(&["pod", "client"], ".status.phase", "Running");
    let host = kubectl.value(&["pod", "client"], ".status.hostIP");
    serving(&kubectl, "pod1", "127.0.0.1", port, "TCP");
    serving(&kubectl, "pod2", &host, port, "TCP");
    serving(&kubectl, "pod3", &host, port, "UDP");
    for (address, pod) in [("127.0.0.1", "pod1"), (host.as_str(), "pod2")] {
        let url = format!("http://{address}:{port}/hostname");
        let call = ["exec", "client", "--", "wget", "-q", "-O", "-", &url];
        eventually("its name", || {
            let said = kubectl.run(&call);
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            (said == format!("{pod}\n")).then_some(()).ok_or(said)
        });
    }
    // Nobody listens in the Pod, where a datagram is counted that comes.
    let unanswered = || -> u64 {
        let counters = kubectl.ok(&["exec", "pod3", "--", "cat", "/proc/net/snmp"]);
        let mut lines = counters.lines().filter(|line| line.starts_with("Udp:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|name| name == "NoPorts").unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    };
    assert_eq!(unanswered(), 0);
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    eventually("a datagram comes", || {
        // The answer to an earlier one may be told of this.
        let _ = socket.send_to(b"ahoy", (host.as_str(), port));
        let counted = unanswered();
        (counted > 0).then_some(()).ok_or(counted.to_string())
    });
}
